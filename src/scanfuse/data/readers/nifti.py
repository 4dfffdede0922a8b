"""One axial slice of a NIfTI volume through nibabel."""

import gzip
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from scanfuse.data.readers.image import Image, check_size, finish, finite_range, pick_slice
from scanfuse.errors import UserError

__all__ = ["SUFFIXES", "read", "read_volume"]

SUFFIXES = (".nii", ".nii.gz")

_MAX_VOXELS = 2_000_000_000


def read(path: Path, *, slice_index: int | None = None) -> Image:
    """Reads slice `slice_index` (default: the middle one) of the third axis, counted from the feet upwards.

    The volume is first turned to the nearest RAS+ orientation. The slice is then shown as radiologists do:
    row 0 is anterior, column 0 is the patient's right. Stored integers stay integers unless the header
    scales them (then float32). low and high are those of the whole volume, so that slices stay comparable.

    Raises:
        UserError: no NIfTI file, damaged, a time series, a colour volume, or a slice that is not there.
    """
    volume, zooms = read_volume(path)
    index = pick_slice(path, slice_index, volume.shape[2])
    pixels = volume[::-1, ::-1, index].T
    limits = finite_range(path, volume)
    return finish(path, pixels, stored=str(volume.dtype), spacing_mm=(zooms[1], zooms[0]), limits=limits)


def read_volume(path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The whole volume in RAS+ order (x right, y front, z head) and its voxel size in mm."""
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        shape = image.shape
        if len(shape) > 3 and any(size != 1 for size in shape[3:]):
            raise UserError(f"{path} holds {shape[3]} volumes (shape {shape}); save the one you want by itself.")
        if len(shape) < 2 or image.get_data_dtype().fields is not None:
            raise UserError(f"{path} is not a grey volume (shape {shape}); convert it first.")
        check_size(path, shape[0], shape[1])
        if int(np.prod(shape)) > _MAX_VOXELS:
            raise UserError(f"{path} claims {shape} voxels, too many to read; crop it first.")
        volume = np.asanyarray(image.dataobj)
        zooms = [float(size) for size in (*image.header.get_zooms(), 1.0, 1.0)][:3]
    except UserError:
        raise
    except (
        ImageFileError,
        HeaderDataError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is not a NIfTI volume or is damaged ({reason}); copy it again.") from error
    volume = volume.reshape(*shape[:3], *([1] * (3 - len(shape[:3]))))
    if volume.dtype.kind == "f":
        volume = volume.astype(np.float32)
    return volume, (zooms[0], zooms[1], zooms[2])
