"""One slice of a NIfTI volume, read in one pass through the file with a few megabytes of memory."""

import gzip
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel
import numpy as np
from nibabel.volumeutils import apply_read_scaling

from scanfuse.data.readers.image import MAX_FILE, Image, check_size, finish, finite_range
from scanfuse.data.readers.slices import AXES, SliceChoice
from scanfuse.errors import UserError
from scanfuse.foreign import foreign, shown

__all__ = ["MAX_VOXELS", "SUFFIXES", "count", "read"]

SUFFIXES = (".nii", ".nii.gz")

MAX_VOXELS = 1_000_000_000
"""Larger volumes, or above `MAX_FILE` bytes unpacked, are refused by their header: 8 MB of packed zeros are 4 GB."""

_BLOCK_BYTES = 4_000_000
_LONGEST_SIDE = 65_535
_LARGEST_HEADER = 16_000_000
_DENSEST = 1_032
"""Bytes that one byte of gzip can unpack to at most."""

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())
_log.propagate = False


@dataclass(frozen=True)
class _Volume:
    """What a header says. `turn` has for each stored axis the patient's axis (0 x, 1 y, 2 z) and its sign."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    scaling: tuple[float, float] | None
    zooms: tuple[float, float, float]
    turn: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

    def stored_axis(self, axis: int) -> int:
        """Which axis of the file runs along the patient's `axis`."""
        return next(place for place, (world, _) in enumerate(self.turn) if world == axis)

    def length(self, axis: int) -> int:
        """Number of slices across the patient's `axis`."""
        return self.shape[self.stored_axis(axis)]


def read(path: Path, *, slices: SliceChoice | None = None, grey_if_equal: bool = True) -> Image:
    """Reads one slice, shown as radiologists do.

    Axial: row 0 is anterior, column 0 the patient's right. Coronal: row 0 is superior, column 0 the patient's right.
    Sagittal: row 0 is superior, column 0 anterior. Axes that are tilted count as the patient's axis nearest to them.
    Stored integers stay integers unless the header scales them (then float32). low and high are those of the whole
    volume, so that slices stay comparable; hence the file is read to its end whichever slice is wanted.

    Args:
        path: the file; whether it is compressed is seen by its content.
        slices: which slice of a volume. A volume of one slice is a picture and needs none.
        grey_if_equal: as for every format; a volume is always grey.

    Raises:
        UserError: no NIfTI file, damaged, a time series, a colour volume, too large, a volume of which no slice was
            asked for, or a slice that is not there.
    """
    volume = _header(path)
    axis = _axis(path, volume, slices)
    number = 0 if slices is None else slices.number(path, volume.length(axis))
    place = volume.stored_axis(axis)
    if volume.turn[place][1] < 0:
        number = volume.shape[place] - 1 - number
    rest = [other for other in range(3) if other != place]
    check_size(path, *(volume.shape[other] for other in rest))
    plane, low, high = _plane(path, volume, place, number)
    for along, other in enumerate(rest):
        if volume.turn[other][1] < 0:
            plane = np.flip(plane, along)
    if volume.turn[rest[0]][0] > volume.turn[rest[1]][0]:
        plane, rest = plane.T, rest[::-1]
    spacing_mm = (volume.zooms[rest[1]], volume.zooms[rest[0]])
    if not np.isfinite(spacing_mm).all():
        raise UserError(f"{shown(path)} has voxels of {spacing_mm} mm; correct its header or export it again.")
    return finish(path, plane[::-1, ::-1].T, stored=str(plane.dtype), spacing_mm=spacing_mm, limits=(low, high))


def count(path: Path, slices: SliceChoice | None) -> int:
    """How many slices the volume has across the axis of `slices`, from the header alone."""
    volume = _header(path)
    return volume.length(_axis(path, volume, slices))


def _axis(path: Path, volume: _Volume, slices: SliceChoice | None) -> int:
    flat = [axis for axis in (2, 1, 0) if volume.length(axis) == 1]
    if slices is None:
        if flat:
            return flat[0]
        size = " x ".join(map(str, volume.shape))
        raise UserError(
            f"{shown(path)} is a volume of {size} voxels, not a picture: choose slices of it, such as --slice "
            "axial:middle or --slice axial:all, or use a system for volumes."
        )
    if slices.axis == "frame":
        raise UserError(f"{shown(path)} is a volume and has no frames; choose with --slice axial:middle.")
    axis = AXES.index(slices.axis)
    if flat and axis not in flat:
        raise UserError(f"{shown(path)} is one {AXES[flat[0]]} slice and has no {slices.axis} ones.")
    return axis


def _header(path: Path) -> _Volume:
    with foreign(path, "is not a NIfTI volume or is damaged", "copy it again"), _open(path) as file:
        start = file.read(540)
        size = {start[:4], start[3::-1]} & {b"\x5c\1\0\0", b"\x1c\2\0\0"}
        if not size:
            raise UserError(f"{shown(path)} is not a NIfTI volume; copy or export it again.")
        kind = nibabel.Nifti1Header if size == {b"\x5c\1\0\0"} else nibabel.Nifti2Header
        header = kind(start[: kind.sizeof_hdr], check=False)
        header.check_fix(logger=_log, error_level=40)
        if not bytes(header["magic"]).startswith((b"n+1", b"n+2")):
            raise UserError(
                f"{shown(path)} is a header without voxels (of a .hdr and .img pair); save it as .nii.gz."
            )
        shape = tuple(int(length) for length in header.get_data_shape())
        dtype = header.get_data_dtype()
        slope, inter = header.get_slope_inter()
        affine = header.get_best_affine()
        zooms = [float(size) for size in (*header.get_zooms(), 1.0, 1.0, 1.0)][:3]
        offset = int(header.get_data_offset())
    _check(path, shape, dtype)
    with np.errstate(all="ignore"), foreign(path, "does not say which way its axes point", "export it again"):
        turn = nibabel.io_orientation(affine)
        turned = tuple((int(world), int(sign)) for world, sign in turn)
    scaling = None if slope is None or (slope, inter) == (1, 0) else (float(slope), float(inter))
    shape = (*shape, 1, 1, 1)[:3]
    volume = _Volume(shape, dtype, offset, scaling, (zooms[0], zooms[1], zooms[2]), turned)  # type: ignore[arg-type]
    _check_length(path, volume)
    return volume


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    name = shown(path)
    if len(shape) > 3 and any(size != 1 for size in shape[3:]):
        raise UserError(f"{name} holds {shape[3]} volumes (shape {shape}); save the one you want by itself.")
    if len(shape) < 2 or dtype.kind not in "iuf":
        raise UserError(f"{name} is not a grey volume (shape {shape}, {dtype}); convert it first.")
    if min(shape) < 1:
        raise UserError(f"{name} has no voxels (shape {shape}); export it again.")
    voxels = 1
    for length in shape:
        voxels *= length
    if voxels > MAX_VOXELS or voxels * dtype.itemsize > MAX_FILE or max(shape) > _LONGEST_SIDE:
        size = " x ".join(map(str, shape[:3]))
        raise UserError(
            f"{name} claims {size} voxels of {dtype.itemsize} bytes; at most {MAX_VOXELS // 10**6} million, "
            f"{MAX_FILE // 10**9} GB and {_LONGEST_SIDE} along one axis are allowed. If it is genuine, crop or "
            "shrink it first."
        )


def _check_length(path: Path, volume: _Volume) -> None:
    """The file must be able to hold what the header claims."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    size = path.stat().st_size * (_DENSEST if packed else 1)
    needed = volume.offset + volume.dtype.itemsize * int(np.prod(volume.shape, dtype=np.int64))
    if not 0 <= volume.offset <= _LARGEST_HEADER or size < needed:
        raise UserError(f"{shown(path)} is cut short: its header claims {needed:,} bytes; copy it again.")


def _plane(path: Path, volume: _Volume, place: int, number: int) -> tuple[np.ndarray, float, float]:
    """The values at index `number` of stored axis `place`, (first other axis, second other axis), and the range.

    The first axis lies closest together in the file. A column is one run along it, so all that is read at a time is
    some columns, in the order of the file.
    """
    columns, per_slab = volume.shape[1] * volume.shape[2], volume.shape[1]
    step = max(1, _BLOCK_BYTES // (volume.shape[0] * volume.dtype.itemsize))
    low, high = np.inf, -np.inf
    planes = {0: volume.shape[:0:-1], 1: volume.shape[::-2], 2: volume.shape[1::-1]}
    plane: np.ndarray | None = None
    with foreign(path, "is damaged or cut short", "copy it again"), _open(path) as file:
        file.seek(volume.offset)
        for first in range(0, columns, step):
            block = _values(file, volume, min(step, columns - first))
            finite = block[np.isfinite(block)] if block.dtype.kind == "f" else block
            if finite.size:
                low, high = min(low, finite.min()), max(high, finite.max())
            if plane is None:
                plane = np.empty(planes[place], block.dtype)
            slab, row = np.divmod(np.arange(first, first + len(block)), per_slab)
            if place == 0:
                plane[slab, row] = block[:, number]
            else:
                wanted = (row if place == 1 else slab) == number
                plane[(slab if place == 1 else row)[wanted]] = block[wanted]
    low, high = finite_range(path, np.array([low, high]))
    assert plane is not None  # a volume has columns
    return plane.T, low, high


def _values(file: BinaryIO, volume: _Volume, columns: int) -> np.ndarray:
    """The next columns, (columns, length of the first axis), scaled, in the byte order of this machine."""
    wanted = columns * volume.shape[0] * volume.dtype.itemsize
    data = file.read(wanted)
    if len(data) < wanted:
        raise EOFError(f"{wanted - len(data)} bytes are missing")
    stored = np.frombuffer(data, volume.dtype).reshape(columns, volume.shape[0])
    values = stored.astype(volume.dtype.newbyteorder("="), copy=False)
    if volume.scaling is not None:
        values = apply_read_scaling(values, *volume.scaling)
    return values.astype(np.float32) if values.dtype.kind == "f" else values


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked  # type: ignore[misc]
        else:
            file.seek(0)
            yield file
