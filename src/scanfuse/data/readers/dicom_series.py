"""A DICOM series of a folder as one volume: files in the order of their place in space, turned to one orientation.

Names and instance numbers do not count: what lies where, ImagePositionPatient and ImageOrientationPatient say.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int16
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from scanfuse.data.readers import dicom
from scanfuse.errors import UserError
from scanfuse.foreign import foreign, shown

__all__ = ["Scan", "is_dicom", "read_dicom_series", "scan_of"]

_log = logging.getLogger(__name__)

_FEWEST = 3
_SCOUT = 5
"""A further series of at most so many pictures is an overview, and is passed over."""
_SPREAD = 1.5
"""Times the usual distance between slices from which a gap is a missing slice."""


@dataclass(frozen=True)
class Scan:
    """A CT volume in Hounsfield units.

    Attributes:
        hu: (D, H, W) int16, slices from the feet to the head, row 0 anterior, column 0 the patient's right.
        spacing_mm: between slices, rows and columns.
        source: folder or file.
    """

    hu: Int16[np.ndarray, "d h w"]
    spacing_mm: tuple[float, float, float]
    source: Path


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its suffix or by how it starts."""
    if path.suffix.lower() in dicom.SUFFIXES:
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # "1.2.840.113" has no suffix, though it looks like one
        return False
    with foreign(path), path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom_series(folder: Path, files: Iterable[Path], *, threads: int = 2) -> Scan:
    """The CT series of a folder.

    Overviews beside it (series of at most five pictures) are passed over, and this is said.

    Args:
        folder: for messages.
        files: the DICOM files.
        threads: files that are unpacked at once.

    Raises:
        UserError: no series, several, another modality, slices without a place, twice at one place, of different
            size, orientation or spacing, or a gap where a slice is missing.
    """
    series: dict[str, list[tuple[Path, dicom.Place]]] = defaultdict(list)
    for file in sorted(files):
        place = dicom.place_of(file)
        if place is not None:
            series[place.series].append((file, place))
    members = _one_of(folder, series)
    first = members[0][1]
    if first.modality not in ("CT", ""):
        raise UserError(f"{shown(folder)} holds a {first.modality} series, not CT; give the CT.")
    for file, place in members:
        if place.rows != first.rows or place.columns != first.columns or not place.is_parallel(first):
            raise UserError(f"{shown(file)} has another size or orientation than {members[0][0].name}; split them.")
    along = np.array([place.along for _, place in members])
    order = np.argsort(along, kind="stable")
    step = np.diff(along[order])
    if (step < 1e-3).any():
        at = int(np.argmin(step))
        one, other = (members[int(order[at + k])][0].name for k in (0, 1))
        raise UserError(f"{shown(folder)} has two slices at one place, {one} and {other}; remove one of each.")
    usual = float(np.median(step))
    if (step > _SPREAD * usual).any():
        at = int(np.argmax(step))
        raise UserError(
            f"{shown(folder)} lacks slices after {members[int(order[at])][0].name}: {step[at]:.1f} mm to the next, "
            f"usual are {usual:.1f} mm; export the series again."
        )
    with ThreadPoolExecutor(threads) as pool:
        slices = list(pool.map(_hounsfield, [members[int(number)][0] for number in order]))
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.row) * first.spacing_mm[1]  # along a row: from column to column
    affine[:3, 1] = np.array(first.column) * first.spacing_mm[0]
    affine[:3, 2] = np.cross(first.row, first.column) * usual
    affine[:2] *= -1  # DICOM's axes point to the left and the back, the affine's to the right and the front
    return scan_of(np.stack(slices).transpose(2, 1, 0), affine, folder)


def scan_of(stored: np.ndarray, affine: np.ndarray, source: Path) -> Scan:
    """A scan from voxels (I, J, K) and their affine in millimetres (RAS+).

    Raises:
        UserError: an affine that names no directions.
    """
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(f"{shown(source)} does not say which way its axes point; export it again.")
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("LPS"))
    turned = np.ascontiguousarray(apply_orientation(stored, turn).transpose(2, 1, 0))
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    x, y, z = (float(sizes[axis]) for axis in np.argsort(io_orientation(affine)[:, 0]))
    hu = np.clip(np.nan_to_num(np.rint(turned), nan=-1024), -32768, 32767) if turned.dtype.kind == "f" else turned
    return Scan(np.clip(hu, -32768, 32767).astype(np.int16), (z, y, x), source)


def _hounsfield(file: Path) -> Int16[np.ndarray, "h w"]:
    pixels = dicom.read(file).pixels
    if pixels.ndim != 2:
        raise UserError(f"{shown(file)} is in colour, not CT; leave it out.")
    return np.clip(np.rint(pixels), -32768, 32767).astype(np.int16)


def _one_of(folder: Path, series: dict[str, list[tuple[Path, "dicom.Place"]]]) -> list[tuple[Path, "dicom.Place"]]:
    size: Callable[[str], int] = lambda name: len(series[name])  # noqa: E731
    names = sorted(series, key=size, reverse=True)
    if not names or size(names[0]) < _FEWEST:
        most = size(names[0]) if names else 0
        raise UserError(
            f"{shown(folder)} holds no series: {most} slice(s) that say where they lie (ImagePositionPatient); at "
            f"least {_FEWEST} are needed."
        )
    large = [name for name in names if size(name) > _SCOUT]
    if len(large) > 1 or (not large and len(names) > 1):
        counts = ", ".join(str(size(name)) for name in names)
        raise UserError(f"{shown(folder)} holds {len(names)} series of {counts} slices; keep one in the folder.")
    if len(names) > 1:
        left = sum(map(size, names[1:]))
        _log.info("%s: the series of %d slices was taken; %d overview(s) left out.", folder, size(names[0]), left)
    return series[names[0]]
