"""Whole volumes with their place in space: NIfTI files, or an array, to (D, H, W) in one orientation and back.

Volumes are turned (without interpolation) so that slices go from the feet to the head, row 0 is anterior and column 0
the patient's right, which is how radiologists see an axial slice. What is written goes back the way it came: in the
order of axes, with the affine, data type and scaling of the file it belongs to.
"""

import gzip
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Bool, Float
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from scanfuse.data.readers import nifti
from scanfuse.data.readers.image import finite_range
from scanfuse.errors import UserError
from scanfuse.files import atomic_path
from scanfuse.foreign import check_file, foreign, shown

__all__ = [
    "Frame",
    "Volume",
    "box_of",
    "foreground",
    "from_unit",
    "mismatch",
    "read_volume",
    "resampled",
    "to_unit",
    "volume_of",
    "write_volume",
]

PERCENTILES = (0.5, 99.5)
"""Of the foreground: what maps to 0 and to 1, so that a few bright vessels do not darken the rest."""

_ORIENTATION = axcodes2ornt("LPS")
_FLAT = 1e-9
"""Cubic millimetres: voxels without a volume have no direction."""

_NEAR_MM = 1e-2
"""Affines whose corners lie closer together than this are one: headers are rounded to single precision."""


@dataclass(frozen=True)
class Frame:
    """How a volume is stored.

    Attributes:
        shape: (I, J, K) of the file.
        affine: (4, 4), from indices of the file to millimetres (RAS+).
        dtype: of the file.
        scaling: slope and intercept of stored integers; None where values are stored as they are.
        header: nibabel's, which a result copies; None for arrays.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    dtype: np.dtype
    scaling: tuple[float, float] | None = None
    header: nibabel.Nifti1Header | None = field(default=None, repr=False, compare=False)

    @property
    def orientation(self) -> str:
        """Where the axes of the file point to, such as "LPS" or "RAS"."""
        return "".join(nibabel.aff2axcodes(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between slices, rows and columns of the turned volume (D, H, W)."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        x, y, z = (float(sizes[axis]) for axis in np.argsort(io_orientation(self.affine)[:, 0]))
        return z, y, x


@dataclass(frozen=True)
class Volume:
    """A volume in one orientation, and what is needed to give a result back in its place and range.

    Attributes:
        voxels: (D, H, W), slices upwards, row 0 anterior, column 0 right; of the file's dtype (float32 if scaled).
        low, high: the values that map to 0 and 1: percentiles of the foreground.
        background: the value of what lies around the object, None if there is no single one.
        frame: how it is stored.
        source: the file.
    """

    voxels: np.ndarray
    low: float
    high: float
    background: float | None
    frame: Frame
    source: Path

    @property
    def size(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        depth, height, width = (int(side) for side in self.voxels.shape)
        return depth, height, width


def read_volume(path: str | Path, *, percentiles: tuple[float, float] = PERCENTILES) -> Volume:
    """Reads a NIfTI volume.

    Args:
        path: .nii or .nii.gz.
        percentiles: of the foreground, see `Volume`.

    Raises:
        UserError: no such file, no NIfTI file, damaged, too large, a time series, a colour volume, or an affine that
            does not say which way the axes point.
    """
    path = Path(path)
    check_file(path, "volume")
    if not path.name.lower().endswith(nifti.SUFFIXES):
        raise UserError(f"{shown(path)} is no volume: give a .nii or .nii.gz file, or use a system for pictures.")
    nifti.check(path)
    with foreign(path, "is not a NIfTI volume or is damaged", "copy it again"):
        image = nibabel.load(path)
        voxels = np.asanyarray(image.dataobj)
        slope, inter = image.dataobj.slope, image.dataobj.inter
        header = image.header.copy()
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < _FLAT:
        raise UserError(f"{shown(path)} does not say which way its axes point; export it again.")
    scaling = None if (slope, inter) == (1, 0) else (float(slope), float(inter))
    dtype = image.get_data_dtype().newbyteorder("=")
    three = (*(int(side) for side in image.shape), 1, 1, 1)[:3]
    frame = Frame((three[0], three[1], three[2]), np.array(image.affine, float), dtype, scaling, header)
    return volume_of(voxels.reshape(frame.shape), frame, path, percentiles=percentiles)


def volume_of(
    stored: np.ndarray, frame: Frame, source: Path, *, percentiles: tuple[float, float] = PERCENTILES
) -> Volume:
    """A volume from voxels in the order of the file."""
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if stored.dtype.kind == "f":
        stored = stored.astype(np.float32)
    turned = apply_orientation(stored, ornt_transform(io_orientation(frame.affine), _ORIENTATION))
    voxels = np.ascontiguousarray(turned.transpose(2, 1, 0))
    finite_range(source, voxels)
    background = _background(voxels)
    inside = voxels if background is None else voxels[voxels != background]
    inside = inside[np.isfinite(inside)]
    low, high = (float(end) for end in np.percentile(inside if inside.size else voxels, percentiles))
    if low == high and inside.size:
        low, high = float(inside.min()), float(inside.max())
    return Volume(voxels, low, high, background, frame, source)


def to_unit(volume: Volume) -> Float[np.ndarray, "d h w"]:
    """Voxels mapped to [0, 1]: (value - low) / (high - low), clipped; background and not-a-number become 0.

    All zero where low equals high.
    """
    span = volume.high - volume.low
    if span <= 0:
        return np.zeros(volume.size, np.float32)
    unit = (volume.voxels.astype(np.float32) - np.float32(volume.low)) / np.float32(span)
    unit = np.clip(np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    if volume.background is not None:
        unit[volume.voxels == volume.background] = 0.0
    return unit


def from_unit(
    unit: Float[np.ndarray, "d h w"], volume: Volume, inside: Bool[np.ndarray, "d h w"] | None = None
) -> np.ndarray:
    """Values of [0, 1] in the range and dtype of `volume`; outside of `inside` its background.

    Raises:
        ValueError: values that are not finite.
    """
    if not np.isfinite(unit).all():
        raise ValueError(f"The array for {volume.source.name} holds values that are not finite")
    values = volume.low + np.clip(unit.astype(np.float64), 0.0, 1.0) * (volume.high - volume.low)
    if volume.frame.scaling is not None:
        slope, inter = volume.frame.scaling
        values = np.rint((values - inter) / slope) * slope + inter
    if inside is not None and volume.background is not None:
        values[~inside] = volume.background
    if volume.voxels.dtype.kind in "iu":
        limits = np.iinfo(volume.voxels.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(volume.voxels.dtype)


def write_volume(path: str | Path, voxels: np.ndarray, like: Volume) -> None:
    """Writes (D, H, W) voxels as .nii.gz in the order of axes, affine, data type and scaling of `like`.

    Equal voxels give equal bytes.
    """
    frame = like.frame
    back = ornt_transform(_ORIENTATION, io_orientation(frame.affine))
    stored = apply_orientation(np.ascontiguousarray(voxels.transpose(2, 1, 0)), back)
    header = nibabel.Nifti1Header() if frame.header is None else frame.header.copy()
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    if frame.scaling is not None:
        stored = np.rint((stored.astype(np.float64) - frame.scaling[1]) / frame.scaling[0])
    image = kind(stored.astype(frame.dtype), frame.affine, header, dtype=frame.dtype)
    image.header.set_slope_inter(*(frame.scaling or (1, 0)))
    # The range to display is the source's and would be wrong; readers then look for themselves.
    image.header["cal_min"], image.header["cal_max"] = 0, 0
    content = image.to_bytes()
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(content, compresslevel=6, mtime=0))


def foreground(volume: Volume) -> Bool[np.ndarray, "d h w"]:
    """Where the volume differs from its background; everywhere if it has none."""
    if volume.background is None:
        return np.ones(volume.size, bool)
    return np.asarray(volume.voxels != volume.background)


def box_of(inside: Bool[np.ndarray, "d h w"]) -> tuple[slice, slice, slice]:
    """The smallest box around what is true; the whole if nothing is."""
    found = []
    for axis in range(3):
        where = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        found.append(slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, inside.shape[axis]))
    return found[0], found[1], found[2]


def mismatch(one: Volume, other: Volume) -> str:
    """In which way, and by how much, two volumes are not on one grid of voxels; "" if they are."""
    if one.size != other.size:
        return f"the sizes are {_times(one.size)} and {_times(other.size)} voxels (slices, rows, columns)"
    offset = float(np.abs(_corners(one) - _corners(other)).max())
    if offset <= _NEAR_MM:
        return ""
    return f"the affines put the same voxel up to {offset:.3g} mm apart"


def resampled(volume: Volume, onto: Volume, *, percentiles: tuple[float, float] = PERCENTILES) -> Volume:
    """The volume on the grid of another: linear in between, its background outside (0 if it has none)."""
    from nibabel.processing import resample_from_to

    frame = volume.frame
    back = ornt_transform(_ORIENTATION, io_orientation(frame.affine))
    stored = apply_orientation(np.ascontiguousarray(volume.voxels.transpose(2, 1, 0)), back)
    source = nibabel.Nifti1Image(stored.astype(np.float32), frame.affine)
    found = resample_from_to(
        source, (onto.frame.shape, onto.frame.affine), order=1, cval=float(volume.background or 0)
    )
    values = np.asanyarray(found.dataobj)
    if volume.voxels.dtype.kind in "iu":
        values = np.rint(values)
    moved = replace(frame, shape=onto.frame.shape, affine=onto.frame.affine)
    return volume_of(values.astype(volume.voxels.dtype), moved, volume.source, percentiles=percentiles)


def _background(voxels: np.ndarray) -> float | None:
    """The value that at least half of the voxels on the six faces have."""
    faces = np.concatenate([np.take(voxels, side, axis).ravel() for axis in range(3) for side in (0, -1)])
    values, counts = np.unique(faces, return_counts=True)
    most = int(counts.argmax())
    constant = (voxels == values[most]).all()
    return float(values[most]) if 2 * counts[most] >= len(faces) and not constant else None


def _corners(volume: Volume) -> np.ndarray:
    """Where the corners of the turned volume lie, in millimetres."""
    turn = ornt_transform(io_orientation(volume.frame.affine), _ORIENTATION)
    affine = volume.frame.affine @ nibabel.orientations.inv_ornt_aff(turn, volume.frame.shape)
    ends = np.array(volume.size[::-1]) - 1
    corners = np.array([[x, y, z, 1] for x in (0, ends[0]) for y in (0, ends[1]) for z in (0, ends[2])], float)
    return (corners @ affine.T)[:, :3]


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
