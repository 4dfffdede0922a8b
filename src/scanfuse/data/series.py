"""A patient's chest CT in whatever form: a folder of slices, a stack, a prepared file, a DICOM series, NIfTI.

    <patient>/slice_000.png ...          8 or 16 bit, with the lung window applied
    <patient>/slice_000.npy ...          one slice each; see below for values
    <patient>.npz                        ct (S,H,W), and optional lung (S,H,W) bool, place (S,) in [0, 1]
    <patient>.npy                        (S,H,W)
    <patient>/*.dcm, <patient>.nii.gz    a raw scan: lungs are found and slices chosen when it is read

Values of arrays: signed integers, and floats of which one is below 0, are Hounsfield units; unsigned integers are
windowed and fill their range; floats in [0, 1] are windowed. Slices go from the first to the last by name.
"""

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from scanfuse.data.readers import read_image, stem
from scanfuse.data.readers.dicom_series import Scan, is_dicom, read_dicom_series, scan_of
from scanfuse.data.readers.image import MAX_BYTES, MAX_FILE
from scanfuse.data.readers.volume import read_volume
from scanfuse.data.transforms.chest import lung_slices
from scanfuse.errors import UserError
from scanfuse.files import atomic_path
from scanfuse.foreign import check_file, foreign, shown

__all__ = [
    "STACKS",
    "Series",
    "files_of",
    "name_of",
    "packed",
    "raw_series",
    "read_scan",
    "read_series",
    "series_of_array",
    "write_series",
]

STACKS = (".npz", ".npy", ".nii", ".nii.gz")
"""Files that hold all slices of a patient."""
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_MOST_SLICES = 5000


@dataclass(frozen=True)
class Series:
    """The slices of one patient.

    Attributes:
        values: (S, H, W): Hounsfield units (int16), or windowed (float32 in [0, 1]).
        is_hu: which of the two.
        lung: (S, H, W), or None where nobody says where the lungs are.
        place: (S,) of each slice between the first (0) and the last (1).
        source: file or folder.
    """

    values: np.ndarray
    is_hu: bool
    lung: Bool[np.ndarray, "s h w"] | None
    place: Float32[np.ndarray, " s"]
    source: Path


def read_series(path: str | Path, *, count: int = 30, size: int = 224) -> Series:
    """Reads a patient's slices.

    Args:
        path: see the module docstring.
        count, size: slices, and their side in pixels, that are taken from a raw scan; other forms come as they are.

    Raises:
        UserError: nothing there, several kinds of files, slices of different sizes, values that are neither HU nor
            windowed, or what the readers say.
    """
    path = Path(path)
    if path.is_dir():
        files = files_of(path)
        kinds = sorted({_kind(file) for file in files})
        if len(kinds) > 1:
            raise UserError(f"{shown(path)} holds {' and '.join(kinds)} files; keep one kind in the folder.")
        if kinds == ["DICOM"]:
            return _of_scan(read_dicom_series(path, files), count, size)
        return _of_slices(path, files)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _of_scan(read_scan(path), count, size)
    check_file(path, "series of slices", largest=MAX_FILE)
    if path.suffix.lower() == ".npz":
        return _of_npz(path)
    if path.suffix.lower() == ".npy":
        return series_of_array(_array(path), path)
    raise UserError(
        f"{shown(path)} is no series of slices: give a folder of DICOM, PNG or NPY slices, or a file "
        f"({', '.join(STACKS)})."
    )


def read_scan(path: Path) -> Scan:
    """A raw scan: a folder of DICOM files or a NIfTI volume.

    Raises:
        UserError: something else, or damaged.
    """
    if path.is_dir():
        files = files_of(path)
        if any(_kind(file) != "DICOM" for file in files):
            other = next(file.name for file in files if _kind(file) != "DICOM")
            raise UserError(f"{shown(path)} holds {other}, which is no DICOM file; keep the series alone.")
        return read_dicom_series(path, files)
    volume = read_volume(path)
    depth, height, width = volume.frame.spacing_mm
    affine = np.diag([-width, -height, depth, 1.0])  # it has been turned already
    return scan_of(volume.voxels.transpose(2, 1, 0), affine, path)


def files_of(folder: Path) -> list[Path]:
    """The files of a folder and those below it, in the order of their names, numbers by size.

    Raises:
        UserError: there are none, or far too many.
    """
    with foreign(folder):
        found = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    found = [file for file in found if file.name.upper() != "DICOMDIR"]
    if not found:
        raise UserError(f"{shown(folder)} holds no file; give the folder with the slices.")
    if len(found) > _MOST_SLICES:
        raise UserError(
            f"{shown(folder)} holds {len(found)} files, more than a patient has; give the series' folder."
        )
    return sorted(found, key=_natural)


def raw_series(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Raw scans of a folder, or of its folder ct_raw: file to make -> DICOM folder or NIfTI volume; and the table and
    splits beside them, which are copied.

    A patient is a folder (with DICOM files in it or below) or a .nii or .nii.gz file.

    Raises:
        UserError: no such folder, or no scan in it.
    """
    if not root.is_dir():
        raise UserError(f"{shown(root)} is no folder; give the one with the patients' scans.")
    home = root / "ct_raw" if (root / "ct_raw").is_dir() else root
    found: dict[str, Path] = {}
    for path in sorted(home.iterdir()):
        if path.name.startswith(".") or path.name == "splits":
            continue
        if path.is_dir() or path.name.lower().endswith((".nii", ".nii.gz")):
            target = f"ct/{name_of(path)}.npz"
            if target in found:
                raise UserError(f"{shown(home)} holds {found[target].name} and {path.name}; keep one of them.")
            found[target] = path
    if not found:
        raise UserError(f"{shown(home)} holds no folder of a patient and no NIfTI volume.")
    beside = {name: root / name for name in ("clinical.csv", "ABOUT.txt")}
    beside |= {f"splits/{file.name}": file for file in sorted((root / "splits").glob("*.txt"))}
    return found, {name: file for name, file in beside.items() if file.is_file()}


def name_of(path: Path) -> str:
    """What a patient is called after a file or folder."""
    return path.name if path.is_dir() else stem(path)


def write_series(path: Path, series: Series) -> None:
    """Writes a prepared series as .npz, whole or not at all; equal content gives equal bytes."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(packed(series))


def packed(series: Series) -> bytes:
    """A prepared series as the bytes of an .npz file."""
    content: dict[str, Any] = {"ct": series.values, "place": series.place}
    if series.lung is not None:
        content["lung"] = series.lung
    stream = io.BytesIO()
    np.savez_compressed(stream, **content)
    return stream.getvalue()


def series_of_array(
    values: np.ndarray, source: Path, *, lung: np.ndarray | None = None, place: np.ndarray | None = None
) -> Series:
    """A series from an array (S, H, W); see the module docstring for its values.

    Raises:
        UserError: another shape, values that are not finite, or neither Hounsfield units nor windowed.
    """
    name = shown(source)
    if values.ndim != 3 or min(values.shape) < 1 or len(values) > _MOST_SLICES:
        raise UserError(f"{name} holds an array of shape {values.shape}; expected (slices, rows, columns).")
    if lung is not None and (lung.shape != values.shape or lung.dtype != bool):
        raise UserError(
            f"{name}: lung is {lung.dtype} {lung.shape}; expected bool of the shape of ct {values.shape}."
        )
    if place is None:
        place = np.linspace(0, 1, len(values)) if len(values) > 1 else np.full(1, 0.5)
    if place.shape != values.shape[:1] or not np.isfinite(place).all() or place.min() < 0 or place.max() > 1:
        raise UserError(f"{name}: place must be one number in 0 to 1 for each of the {len(values)} slices.")
    is_hu = values.dtype.kind == "i"
    if values.dtype.kind == "u":
        unit = values.astype(np.float32) / np.iinfo(values.dtype).max
    elif values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise UserError(f"{name} holds values that are not finite; mend or leave it out.")
        is_hu = float(values.min()) < 0
        if not is_hu and float(values.max()) > 1:
            raise UserError(
                f"{name} holds floats from {values.min():g} to {values.max():g}: no HU, and not in 0 to 1."
            )
        unit = values.astype(np.float32)
    elif not is_hu:
        raise UserError(f"{name} holds {values.dtype}; expected integers or floats.")
    if is_hu:
        unit = np.clip(np.rint(values), -32768, 32767).astype(np.int16)
    return Series(unit, is_hu, lung, place.astype(np.float32), source)


def _of_scan(scan: Scan, count: int, size: int) -> Series:
    values, lung, place = lung_slices(scan, count=count, size=size)
    return Series(values, True, lung, place, scan.source)


def _of_slices(folder: Path, files: Sequence[Path]) -> Series:
    slices: list[np.ndarray] = []
    for file in files:
        if _kind(file) == "NPY":
            check_file(file, "slice", largest=MAX_FILE)
            slices.append(_array(file))
        else:
            slices.append(read_image(file).pixels)
        if slices[-1].ndim != 2:
            raise UserError(f"{shown(file)} has the shape {slices[-1].shape}; a slice is grey, (rows, columns).")
        if slices[-1].shape != slices[0].shape or slices[-1].dtype != slices[0].dtype:
            raise UserError(f"{shown(file)} differs from {files[0].name} in size or depth; export the slices alike.")
    return series_of_array(np.stack(slices), folder)


def _of_npz(path: Path) -> Series:
    with foreign(path, "is not an .npz file or is damaged"):
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
        if total > MAX_BYTES:
            raise UserError(f"{shown(path)} unpacks to more than {MAX_BYTES // 10**6} MB; cut or shrink it first.")
        with np.load(path, allow_pickle=False) as file:
            content = {name: np.asarray(file[name]) for name in ("ct", "lung", "place") if name in file.files}
            names = ", ".join(file.files)
    if "ct" not in content:
        raise UserError(f"{shown(path)} has no array 'ct' (it has {names or 'none'}).")
    return series_of_array(content["ct"], path, lung=content.get("lung"), place=content.get("place"))


def _array(path: Path) -> np.ndarray:
    with foreign(path, "is not an .npy file or is damaged"):
        found = np.load(path, allow_pickle=False, mmap_mode="r")  # the header may claim more than there is
        if found.nbytes > MAX_BYTES:
            raise UserError(f"{shown(path)} holds more than {MAX_BYTES // 10**6} MB; cut or shrink it first.")
        return np.array(found)


def _kind(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix == ".npy":
        return "NPY"
    if suffix in _PICTURES:
        return "picture"
    return "DICOM" if is_dicom(file) else suffix or "other"


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Numbers of a name count by their size: slice_10 comes after slice_9."""
    parts = re.split(r"([0-9]+)", str(path))
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
