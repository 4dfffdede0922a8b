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

_NATIVE = {
    tifffile.COMPRESSION.NONE,
    tifffile.COMPRESSION.DEFLATE,
    tifffile.COMPRESSION.ADOBE_DEFLATE,
    tifffile.COMPRESSION.PACKBITS,
}
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
            check_size(path, page.imagelength, page.imagewidth)
            stored = f"{page.photometric!s} {page.compression!s}".lower()
            pixels = _pixels(path, page, index)
    except UserError:
        raise
    except tifffile.TiffFileError as error:
        raise UserError(f"{path} is not a TIFF picture or is damaged; export it again.") from error
    except Exception as error:
        # tifffile raises whatever its parsers meet in a damaged file, from struct.error to KeyError.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); export it again as plain TIFF or PNG.") from error
    return finish(path, pixels, stored=f"{pixels.dtype} {stored}", grey_if_equal=grey_if_equal)


def _pixels(path: Path, page: tifffile.TiffPage, index: int) -> np.ndarray:
    if page.compression not in _NATIVE:
        with PIL.Image.open(path, formats=("TIFF",)) as picture:
            picture.seek(index)
            deepest = np.max(page.bitspersample)
            if deepest > 8 and page.samplesperpixel > 1:
                # Pillow would narrow it to 8 bit without a word.
                raise UserError(f"{path} is compressed {deepest}-bit colour; save it as uncompressed TIFF.")
            return pillow_pixels(picture)
    pixels = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        table = page.colormap.T  # (entries, 3), 16 bit; 8-bit pictures use the upper byte
        return (table >> 8).astype(np.uint8)[pixels] if pixels.dtype == np.uint8 else table[pixels]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = pixels.max() - pixels if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max - pixels
    if pixels.ndim == 3 and pixels.shape[-1] in (2, 4) and pixels.dtype.kind == "u":
        return flatten_alpha(pixels)
    return pixels
