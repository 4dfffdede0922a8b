"""TIFF through tifffile: 8 and 16 bit, float, pages as slices; other compressions through Pillow."""

from pathlib import Path

import numpy as np
import PIL.Image
import tifffile

from scanfuse.data.readers.image import Image, check_size, finish, flatten_alpha, pick_slice
from scanfuse.data.readers.png_jpeg import pillow_pixels
from scanfuse.errors import UserError

__all__ = ["SUFFIXES", "read"]

SUFFIXES = (".tif", ".tiff")

_NATIVE = {"NONE", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS"}
"""Compressions that tifffile unpacks without an extra package; Pillow gives the same pixels for the others."""


def read(path: Path, *, slice_index: int | None = None, grey_if_equal: bool = True) -> Image:
    """Reads one page (the middle one by default): grey or RGB, with or without alpha, palette, white-is-zero.

    Raises:
        UserError: no TIFF, damaged, an unsupported compression, too large, or a page that is not there.
    """
    try:
        with tifffile.TiffFile(path) as file:
            index = pick_slice(path, slice_index, len(file.pages))
            page = file.pages[index]
            assert isinstance(page, tifffile.TiffPage)
            check_size(path, page.imagelength, page.imagewidth)
            kind, compression = page.photometric.name, page.compression.name
            pixels = _pixels(path, page, index)
    except UserError:
        raise
    except tifffile.TiffFileError as error:
        raise UserError(f"{path} is not a TIFF picture or is damaged; export it again.") from error
    except (
        Exception
    ) as error:  # tifffile raises what its parsers meet in a damaged file, from struct.error to KeyError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); export it again as plain TIFF or PNG.") from error
    stored = f"{pixels.dtype} {kind} {compression}".lower()
    return finish(path, pixels, stored=stored, grey_if_equal=grey_if_equal)


def _pixels(path: Path, page: tifffile.TiffPage, index: int) -> np.ndarray:
    if page.compression.name not in _NATIVE:
        with PIL.Image.open(path, formats=("TIFF",)) as picture:
            picture.seek(index)
            if max(page.bitspersample if isinstance(page.bitspersample, tuple) else (page.bitspersample,)) > 8 and (
                page.samplesperpixel > 1
            ):
                raise UserError(
                    f"{path} is 16-bit colour compressed with {page.compression.name}; save it uncompressed."
                )
            return pillow_pixels(picture)
    pixels = page.asarray()
    if page.planarconfig.name == "SEPARATE" and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if page.photometric.name == "PALETTE" and page.colormap is not None:
        table = page.colormap.T  # (entries, 3), 16 bit; 8-bit pictures use the upper byte
        return (table >> 8).astype(np.uint8)[pixels] if pixels.dtype == np.uint8 else table[pixels]
    if page.photometric.name == "MINISWHITE":
        pixels = pixels.max() - pixels if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max - pixels
    if pixels.ndim == 3 and pixels.shape[-1] in (2, 4) and pixels.dtype.kind == "u":
        return flatten_alpha(pixels)
    return pixels
