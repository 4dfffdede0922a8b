"""One DICOM slice through pydicom, in the values the header means: rescaled, and large is bright."""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.pixels
import pydicom.uid

from scanfuse.data.readers.image import MAX_BYTES, MAX_FILE, Image, check_size, finish, finite_range
from scanfuse.data.readers.slices import SliceChoice, pick_frame
from scanfuse.errors import UserError
from scanfuse.foreign import check_file, foreign, shown

__all__ = ["SUFFIXES", "Place", "count", "place_of", "position_mm", "read"]

SUFFIXES = (".dcm", ".dicom")


def read(path: Path, *, slices: SliceChoice | None = None, grey_if_equal: bool = True) -> Image:
    """Reads a single-frame file, or one frame of several.

    Bits above BitsStored are cleared (signed values keep their sign), rescale slope and intercept or the
    modality table are applied (int32 if the result is whole, else float32), MONOCHROME1 is inverted within
    its own range, so that large is bright. Padding pixels (PixelPaddingValue) do not count for low and high.
    No display window is applied. Palette and YBR colour become RGB.

    Raises:
        UserError: no DICOM file, no pixels, damaged, header values that make no sense, several frames without
            `slices`, or a compression for which no decoder is installed.
    """
    dataset = _open(path)
    with foreign(path):
        frames = _frames(path, dataset)
        frame = pick_frame(path, slices, frames)
        _check_header(path, dataset)
        spacing_mm = _spacing_mm(path, dataset)
        photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
        bits = int(dataset.get("BitsStored", 8))
        stored = f"{photometric} {bits} bit".lower()
        raw = _decode(path, dataset, frame if frames > 1 else None)
        if photometric == "PALETTE COLOR":
            raw = pydicom.pixels.apply_color_lut(raw, dataset)
            return finish(path, raw, stored=stored, spacing_mm=spacing_mm, grey_if_equal=grey_if_equal)
        if raw.ndim == 3:
            limits = (0.0, float(2**bits - 1))
            return finish(path, raw, stored=stored, spacing_mm=spacing_mm, limits=limits, grey_if_equal=grey_if_equal)
        return _grey(path, dataset, raw, bits, photometric, stored, spacing_mm)


def count(path: Path, slices: SliceChoice | None) -> int:
    """How many frames the file holds, from its header."""
    dataset = _open(path, stop_before_pixels=True)
    with foreign(path):
        return _frames(path, dataset)


def position_mm(path: Path) -> float | None:
    """Where the slice lies along its normal in mm (ImagePositionPatient); None where it is not said."""
    check_file(path, "DICOM file", largest=MAX_FILE)
    dataset = _open(path, stop_before_pixels=True)
    place = _numbers(path, dataset, "ImagePositionPatient", 3)
    axes = _numbers(path, dataset, "ImageOrientationPatient", 6)
    if place is None or axes is None:
        return None
    position = float(np.cross(axes[:3], axes[3:]) @ np.array(place))
    return position if math.isfinite(position) else None


@dataclass(frozen=True)
class Place:
    """Where one slice of a series lies, from its header.

    Attributes:
        series, modality: as the header says; "" where it does not.
        rows, columns: size in pixels.
        row, column: directions of a row and of a column, unit vectors (x to the patient's left, y to the back, z up).
        along: place along the normal in mm.
        spacing_mm: between rows and between columns.
    """

    series: str
    modality: str
    rows: int
    columns: int
    row: tuple[float, ...]
    column: tuple[float, ...]
    along: float
    spacing_mm: tuple[float, float]

    def is_parallel(self, other: "Place") -> bool:
        """Whether both lie the same way, with the same spacing, up to the rounding of headers."""
        mine, theirs = ((*p.row, *p.column, *p.spacing_mm) for p in (self, other))
        return bool(np.allclose(mine, theirs, atol=1e-3))


def place_of(path: Path) -> Place | None:
    """Where a slice lies; None where its header does not say it (a report, an overview without a place).

    Raises:
        UserError: no DICOM file, or a header that makes no sense.
    """
    check_file(path, "DICOM file", largest=MAX_FILE)
    dataset = _open(path, stop_before_pixels=True)
    place = _numbers(path, dataset, "ImagePositionPatient", 3)
    axes = _numbers(path, dataset, "ImageOrientationPatient", 6)
    spacing = _spacing_mm(path, dataset)
    if place is None or axes is None or spacing is None:
        return None
    row, column = np.array(axes[:3]), np.array(axes[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 1e-6 or abs(row @ column) > 1e-2 * lengths[0] * lengths[1]:
        raise UserError(f"{shown(path)} has an ImageOrientationPatient of no two directions; export it again.")
    row, column = row / lengths[0], column / lengths[1]
    rows, columns = (_whole(path, dataset, side, 0, 0, 65_535) for side in ("Rows", "Columns"))
    return Place(
        str(dataset.get("SeriesInstanceUID", "")),
        str(dataset.get("Modality", "")),
        rows,
        columns,
        tuple(map(float, row)),
        tuple(map(float, column)),
        float(np.cross(row, column) @ np.array(place)),
        spacing,
    )


def _open(path: Path, *, stop_before_pixels: bool = False) -> Any:
    # Small deviations of a header (an over-long text, say) are common and do not touch the pixels.
    with foreign(path, "is not a DICOM file or is damaged"):
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
            _check_deflated(path, 132 + 12 + int(meta.FileMetaInformationGroupLength))
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)


def _check_deflated(path: Path, start: int) -> None:
    """Counts what the deflated part unpacks to: pydicom unpacks whatever comes."""
    unpacker, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    while data:
        total += len(unpacker.decompress(data, 16_000_000))
        data = unpacker.unconsumed_tail
        if total > MAX_BYTES:
            raise UserError(f"{shown(path)} unpacks to more than {MAX_BYTES // 10**6} MB; cut or shrink it first.")


def _frames(path: Path, dataset: Any) -> int:
    return _whole(path, dataset, "NumberOfFrames", 1, 1, 1_000_000)


def _check_header(path: Path, dataset: Any) -> None:
    """What says how the pixels are packed must be there and make sense, before anything is allocated."""
    name = shown(path)
    if not any(tag in dataset for tag in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UserError(f"{name} holds no picture (a report or a directory file?); leave it out.")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise UserError(f"{name} does not say how its pixels are packed (no transfer syntax); export it again.")
    if syntax not in (*pydicom.uid.AllTransferSyntaxes, *pydicom.uid.PrivateTransferSyntaxes):
        raise UserError(f"{name} has the unknown transfer syntax {str(syntax)[:70]!r}; export it again.")
    samples = _whole(path, dataset, "SamplesPerPixel", 1, 1, 4)
    allocated = _whole(path, dataset, "BitsAllocated", 8, 1, 64)
    _whole(path, dataset, "BitsStored", 8, 1, allocated)
    rows, columns = (_whole(path, dataset, side, 0, 0, 65_535) for side in ("Rows", "Columns"))
    check_size(path, rows, columns, pixel_bytes=samples * max(1, allocated // 8))
    slope, intercept = (_numbers(path, dataset, side, 1) for side in ("RescaleSlope", "RescaleIntercept"))
    if (slope is None) != (intercept is None):
        raise UserError(f"{name} has one of RescaleSlope and RescaleIntercept without the other; export it again.")
    if slope is None and "RescaleSlope" in dataset:  # there, but empty
        del dataset.RescaleSlope


def _spacing_mm(path: Path, dataset: Any) -> tuple[float, float] | None:
    """Between rows and between columns; zeros are how some devices say that they do not know."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        found = _numbers(path, dataset, name, 2)
        if found is not None and min(found) > 0:
            return found[0], found[1]
    return None


def _whole(path: Path, dataset: Any, name: str, missing: int, low: int, high: int) -> int:
    value = dataset.get(name)
    if value is None or value == "":
        return missing
    if not isinstance(value, int) or not low <= value <= high:
        raise UserError(
            f"{shown(path)} has the {name} {str(value)[:40]!r}; expected a whole number from {low} to {high}. "
            "Export it again."
        )
    return int(value)


def _numbers(path: Path, dataset: Any, name: str, count: int) -> tuple[float, ...] | None:
    """The numbers of one header entry, None where it is missing or empty."""
    with foreign(path, f"has a {name} that cannot be read", "export it again"):
        value = dataset.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        parts = list(value) if isinstance(value, pydicom.multival.MultiValue) else [value]
        if not parts:
            return None
        numbers = tuple(float(part) for part in parts)
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        wanted = "one number" if count == 1 else f"{count} numbers"
        raise UserError(f"{shown(path)} has the {name} {str(value)[:40]!r}; expected {wanted}. Export it again.")
    return numbers


def _decode(path: Path, dataset: Any, frame: int | None) -> np.ndarray:
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        return np.asarray(pydicom.pixels.pixel_array(dataset, index=frame))
    except Exception as error:  # pydicom and its decoder plug-ins raise many kinds for bad pixel data
        if syntax.is_compressed:
            raise UserError(
                f"{shown(path)} is compressed ({syntax.name}) and cannot be unpacked here; "
                "convert it to uncompressed DICOM first, for example with gdcmconv --raw."
            ) from error
        raise UserError(f"{shown(path)} is damaged or cut short; copy or export it again.") from error


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
