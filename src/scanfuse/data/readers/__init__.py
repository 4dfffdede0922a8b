"""Pictures in and out: PNG, JPEG, TIFF, NIfTI slices and DICOM; one file per format.

>>> image = read_image("CT/16003.png")       # doctest: +SKIP
>>> write_image("copy.png", from_unit(to_unit(image), image))  # doctest: +SKIP
"""

from pathlib import Path

from scanfuse.data.readers.image import Image, from_unit, to_unit
from scanfuse.data.readers.writing import suffix_for, write_image
from scanfuse.errors import UserError

__all__ = ["SUFFIXES", "Image", "from_unit", "read_image", "stem", "suffix_for", "to_unit", "write_image"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".nii.gz", ".dcm", ".dicom")
"""What `read_image` knows by name; files without a suffix are read if they start as DICOM does."""


def read_image(path: str | Path, *, slice_index: int | None = None, grey_if_equal: bool = True) -> Image:
    """Reads one picture; the suffix chooses the format.

    Args:
        path: the file.
        slice_index: which slice of a NIfTI volume, multi-frame DICOM or multi-page TIFF, from 0; the middle
            one by default. A format with one picture takes only None or 0.
        grey_if_equal: RGB whose three channels are equal everywhere is returned as grey (H, W).

    Raises:
        UserError: missing, empty, damaged, cut short, not what the name says, unknown, too large, or no pixel
            with a finite value. One line that names the file.
    """
    path = Path(path)
    kind = _suffix(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; check the path.")
    if not path.is_file():
        raise UserError(f"{path} is a folder, not a picture.")
    try:
        size = path.stat().st_size
        dicom_without_suffix = kind not in SUFFIXES and size > 132 and _is_dicom(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    if kind not in SUFFIXES and not dicom_without_suffix:
        raise UserError(f"{path} is of an unknown type; ScanFuse reads {', '.join(SUFFIXES)}.")
    if size == 0:
        raise UserError(f"{path} is an empty file; copy or export it again.")
    return _read(path, kind, slice_index, grey_if_equal)


def stem(path: str | Path) -> str:
    """The file name without its suffix, where .nii.gz counts as one: "a.png" and "a.nii.gz" -> "a"."""
    path = Path(path)
    suffix = _suffix(path)
    return path.name[: len(path.name) - len(suffix)] if suffix in SUFFIXES else path.stem


def _read(path: Path, kind: str, slice_index: int | None, grey_if_equal: bool) -> Image:
    # Each format's package is imported only when a file of that format is read.
    if kind in (".png", ".jpg", ".jpeg"):
        from scanfuse.data.readers import png_jpeg
        from scanfuse.data.readers.image import pick_slice

        pick_slice(path, slice_index, 1)
        return png_jpeg.read(path, grey_if_equal=grey_if_equal)
    if kind in (".tif", ".tiff"):
        from scanfuse.data.readers import tiff

        return tiff.read(path, slice_index=slice_index, grey_if_equal=grey_if_equal)
    if kind in (".nii", ".nii.gz"):
        from scanfuse.data.readers import nifti

        return nifti.read(path, slice_index=slice_index)
    from scanfuse.data.readers import dicom

    return dicom.read(path, slice_index=slice_index)


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
