"""One DICOM slice through pydicom, in the values the header means: rescaled, and large is bright."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.errors
import pydicom.pixels

from scanfuse.data.readers.image import Image, check_size, finish, finite_range, pick_slice
from scanfuse.errors import UserError

__all__ = ["SUFFIXES", "position_mm", "read"]

SUFFIXES = (".dcm", ".dicom")


def read(path: Path, *, slice_index: int | None = None) -> Image:
    """Reads a single- or multi-frame file (frame `slice_index`, default the middle one).

    Bits above BitsStored are cleared (signed values keep their sign), rescale slope and intercept or the
    modality table are applied (int32 if the result is whole, else float32), MONOCHROME1 is inverted within
    its own range, so that large is bright. Padding pixels (PixelPaddingValue) do not count for low and high.
    No display window is applied. Palette and YBR colour become RGB.

    Raises:
        UserError: no DICOM file, no pixels, damaged, or a compression for which no decoder is installed.
    """
    dataset = _open(path)
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    index = pick_slice(path, slice_index, frames)
    check_size(path, int(dataset.get("Rows", 0)), int(dataset.get("Columns", 0)))
    raw = _decode(path, dataset, index if frames > 1 else None)
    spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    spacing_mm = (float(spacing[0]), float(spacing[1])) if spacing is not None else None
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    bits = int(dataset.get("BitsStored", 8))
    stored = f"{photometric} {bits} bit".lower()
    if photometric == "PALETTE COLOR":
        raw = pydicom.pixels.apply_color_lut(raw, dataset)
        return finish(path, raw, stored=stored, spacing_mm=spacing_mm)
    if raw.ndim == 3:
        return finish(path, raw, stored=stored, spacing_mm=spacing_mm, limits=(0.0, float(2**bits - 1)))
    return _grey(path, dataset, raw, bits, photometric, stored, spacing_mm)


def position_mm(path: Path) -> float | None:
    """Where the slice lies along its normal in mm (ImagePositionPatient); None where it is not said."""
    dataset = _open(path, stop_before_pixels=True)
    place, axes = dataset.get("ImagePositionPatient"), dataset.get("ImageOrientationPatient")
    if place is None or axes is None or len(place) != 3 or len(axes) != 6:
        return None
    row, column = np.array(axes[:3], float), np.array(axes[3:], float)
    return float(np.cross(row, column) @ np.array(place, float))


def _open(path: Path, *, stop_before_pixels: bool = False) -> Any:
    try:
        with warnings.catch_warnings():
            # Small deviations of a header (an over-long text, say) are common and do not touch the pixels.
            warnings.simplefilter("ignore", UserWarning)
            return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
    except (
        pydicom.errors.InvalidDicomError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
    ) as error:
        raise UserError(f"{path} is not a DICOM file or is damaged; copy or export it again.") from error


def _decode(path: Path, dataset: Any, frame: int | None) -> np.ndarray:
    if "PixelData" not in dataset and "FloatPixelData" not in dataset and "DoubleFloatPixelData" not in dataset:
        raise UserError(f"{path} holds no picture (a report or a directory file?); leave it out.")
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return pydicom.pixels.pixel_array(dataset, index=frame)
    except Exception as error:  # pydicom and its decoder plug-ins raise many kinds for bad pixel data
        if syntax.is_compressed:
            raise UserError(
                f"{path} is compressed ({syntax.name}) and cannot be unpacked here; "
                "convert it to uncompressed DICOM first, for example with gdcmconv --raw."
            ) from error
        raise UserError(f"{path} is damaged or cut short; copy or export it again.") from error


def _grey(
    path: Path,
    dataset: Any,
    raw: np.ndarray,
    bits: int,
    photometric: str,
    stored: str,
    spacing_mm: tuple[float, float] | None,
) -> Image:
    padding = None
    if raw.dtype.kind in "iu":
        padding = _padding(dataset, raw)
        spare = raw.dtype.itemsize * 8 - bits
        if spare > 0:
            # Shifting up and down clears the unused bits and, for signed values, repeats the sign bit.
            raw = (raw << spare) >> spare
    values = np.asarray(pydicom.pixels.apply_modality_lut(raw, dataset))
    if values.dtype.kind == "f":
        whole = np.isfinite(values).all() and (values == np.rint(values)).all() and abs(values).max() < 2**31
        values = values.astype(np.int32 if whole and raw.dtype.kind in "iu" else np.float32)
    counted = values if padding is None or padding.all() else values[~padding]
    low, high = finite_range(path, counted)
    if photometric == "MONOCHROME1":
        inverted = (low + high) - values.astype(np.float64)
        if padding is not None:
            inverted[padding] = low
        signed = np.result_type(values.dtype, np.int32) if values.dtype.kind in "iu" else values.dtype
        values = inverted.astype(signed)
    return finish(path, values, stored=stored, spacing_mm=spacing_mm, limits=(low, high))


def _padding(dataset: Any, raw: np.ndarray) -> np.ndarray | None:
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    other = dataset.get("PixelPaddingRangeLimit")
    limit = other if isinstance(other, int) else value
    return (raw >= min(value, limit)) & (raw <= max(value, limit))
