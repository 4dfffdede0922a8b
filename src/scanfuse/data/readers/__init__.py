"""Pictures in and out: PNG, JPEG, TIFF, NIfTI slices, DICOM and frames of videos; one file per format.

A file that holds several pictures (a volume, frames, pages, a video) gives one only when it is asked for:

>>> image = read_image("CT/16003.png")       # doctest: +SKIP
>>> image = read_image("head.nii.gz", slices=SliceChoice.parse("axial:middle"))  # doctest: +SKIP
>>> for one in list_slices("head.nii.gz", SliceChoice.parse("axial:all")):  # doctest: +SKIP
...     image = read_image("head.nii.gz", slices=one)
>>> write_image("copy.png", from_unit(to_unit(image), image))  # doctest: +SKIP
"""

import importlib
from pathlib import Path
from types import ModuleType

from scanfuse.data.readers.image import MAX_FILE, Image, from_unit, to_unit
from scanfuse.data.readers.slices import SliceChoice, expand
from scanfuse.data.readers.writing import suffix_for, write_image
from scanfuse.errors import UserError
from scanfuse.foreign import check_file, foreign, shown

__all__ = [
    "CONTAINERS",
    "SUFFIXES",
    "Image",
    "SliceChoice",
    "from_unit",
    "list_slices",
    "read_image",
    "stem",
    "suffix_for",
    "to_unit",
    "write_image",
]

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".nii.gz", ".dcm", ".dicom")
"""What `read_image` knows by name; files without a suffix are read if they start as DICOM does."""

_FORMATS = {".png": "png_jpeg", ".jpg": "png_jpeg", ".jpeg": "png_jpeg", ".tif": "tiff", ".tiff": "tiff"}
_FORMATS |= {".nii": "nifti", ".nii.gz": "nifti", ".dcm": "dicom", ".dicom": "dicom"}
_FORMATS |= dict.fromkeys((".mp4", ".mkv", ".avi", ".mov", ".m4v", ".webm"), "video")


CONTAINERS = (".hdf5", ".h5")
"""Files that hold many pictures by name; `readers.hdf5.Container` keeps one open."""


def read_image(
    path: str | Path, *, slices: SliceChoice | None = None, grey_if_equal: bool = True, member: str = ""
) -> Image:
    """Reads one picture; the suffix chooses the format.

    Args:
        path: the file.
        slices: which slice of a NIfTI volume (axial, coronal, sagittal), or which frame of a DICOM, page of a TIFF or
            picture of an animated PNG or of a video (frame). A file with one picture needs none, and takes only that
            one.
        grey_if_equal: RGB whose three channels are equal everywhere is returned as grey (H, W).
        member: name of the picture where the file is a container of many; any other file is one picture, or says by
            `slices` which.

    Raises:
        UserError: missing, empty, no ordinary file, damaged, cut short, not what the name says, unknown, too large,
            no pixel with a finite value, or several pictures and none or all of them asked for. One line that names
            the file.
    """
    path = Path(path)
    if _suffix(path) in CONTAINERS:
        from scanfuse.data.readers.hdf5 import Container

        if not member:
            raise UserError(f"{shown(path)} holds many pictures; give the folder of the data set with --data.")
        return Container(path).read(member, grey_if_equal=grey_if_equal)
    image: Image = _reader(path).read(path, slices=slices, grey_if_equal=grey_if_equal)
    return image


def list_slices(path: str | Path, slices: SliceChoice | None) -> tuple[SliceChoice | None, ...]:
    """What to give `read_image` for each picture that `slices` means, from the header: "axial:all" -> axial:0, ...

    (slices,) unless it means all of several.

    Raises:
        UserError: as `read_image`, as far as the header tells.
    """
    if slices is None or slices.index != "all":
        return (slices,)
    path = Path(path)
    return expand(slices, _reader(path).count(path, slices))


def stem(path: str | Path) -> str:
    """The file name without its suffix, where .nii.gz counts as one: "a.png" and "a.nii.gz" -> "a"."""
    path = Path(path)
    suffix = _suffix(path)
    return path.name[: len(path.name) - len(suffix)] if suffix in SUFFIXES else path.stem


def _reader(path: Path) -> ModuleType:
    """The module that reads files of this kind; its packages are imported only when such a file is read."""
    kind = _suffix(path)
    # A video is read frame by frame, however long it is.
    check_file(path, "picture", largest=None if _FORMATS.get(kind) == "video" else MAX_FILE)
    with foreign(path):
        name = _FORMATS.get(kind) or ("dicom" if _is_dicom(path) else None)
    if name is None:
        raise UserError(f"{shown(path)} is of an unknown type; ScanFuse reads {', '.join(SUFFIXES)}.")
    return importlib.import_module(f"scanfuse.data.readers.{name}")


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
