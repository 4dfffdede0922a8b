"""TIFF through tifffile: 8 and 16 bit, float, pages as frames; other compressions through Pillow."""

import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import tifffile

from scanfuse.data.readers.image import Image, check_size, finish, flatten_alpha
from scanfuse.data.readers.png_jpeg import pillow_pixels
from scanfuse.data.readers.slices import SliceChoice, pick_frame
from scanfuse.errors import UserError
from scanfuse.foreign import foreign, shown

__all__ = ["SUFFIXES", "count", "read"]

SUFFIXES = (".tif", ".tiff")

_SAYS = ("cannot be read", "export it again as plain TIFF or PNG")
_MAX_PAGES = 10_000
_DEFLATE = (tifffile.COMPRESSION.DEFLATE, tifffile.COMPRESSION.ADOBE_DEFLATE)
_NATIVE = (tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.PACKBITS, *_DEFLATE)
"""Compressions that tifffile unpacks without an extra package; Pillow gives the same pixels for the others."""


def read(path: Path, *, slices: SliceChoice | None = None, grey_if_equal: bool = True) -> Image:
    """Reads one page: grey or RGB, with or without alpha, palette, white-is-zero.

    Smaller copies (thumbnails, pyramids) and masks that a file holds beside its pages do not count.

    Raises:
        UserError: no TIFF, damaged, an unsupported compression, too large, several pages without `slices`, or a page
            that is not there.
    """
    with foreign(path, *_SAYS), tifffile.TiffFile(path) as file:
        places = _pages(path, file)
        place = places[pick_frame(path, slices, len(places))]
        page = file.pages[place]
        check_size(path, page.imagelength, page.imagewidth, pixel_bytes=_pixel_bytes(path, page))
        stored = f"{page.photometric!s} {page.compression!s}".lower()
        pixels = _pixels(path, page, place)
        return finish(path, pixels, stored=f"{pixels.dtype} {stored}", grey_if_equal=grey_if_equal)


def count(path: Path, slices: SliceChoice | None) -> int:
    """How many pages the file holds, without unpacking them."""
    with foreign(path, *_SAYS), tifffile.TiffFile(path) as file:
        return len(_pages(path, file))


def _pages(path: Path, file: tifffile.TiffFile) -> list[int]:
    """The places of the pages that are pictures of their own."""
    number = len(file.pages)
    if number > _MAX_PAGES:
        raise UserError(f"{shown(path)} claims {number} pages, more than the {_MAX_PAGES} allowed; split it.")
    return [place for place in range(number) if not (file.pages[place].subfiletype & 5)] if number > 1 else [0]


def _pixel_bytes(path: Path, page: tifffile.TiffPage) -> int:
    if page.imagedepth > 1 or not 1 <= page.samplesperpixel <= 4:
        raise UserError(
            f"{shown(path)} has {page.samplesperpixel} channels and {page.imagedepth} layers; expected one grey or "
            "RGB picture."
        )
    pixel_bytes = int(page.samplesperpixel) * max(1, int(np.max(page.bitspersample)) // 8)
    if page.is_tiled:
        check_size(path, page.tilelength, page.tilewidth, pixel_bytes=pixel_bytes)
    return pixel_bytes


def _pixels(path: Path, page: tifffile.TiffPage, place: int) -> np.ndarray:
    if page.compression not in _NATIVE:
        with PIL.Image.open(path, formats=("TIFF",)) as picture:
            picture.seek(place)
            deepest = np.max(page.bitspersample)
            if deepest > 8 and page.samplesperpixel > 1:
                # Pillow would narrow it to 8 bit without a word.
                raise UserError(f"{shown(path)} is compressed {deepest}-bit colour; save it as uncompressed TIFF.")
            return pillow_pixels(picture)
    if page.compression in _DEFLATE:
        _check_deflate(path, page)
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


def _check_deflate(path: Path, page: tifffile.TiffPage) -> None:
    """No strip or tile may unpack to more than the whole picture: tifffile unpacks whatever comes."""
    pixels = page.imagelength * page.imagewidth
    if page.is_tiled:
        pixels = max(pixels, page.tilelength * page.tilewidth)
    with path.open("rb") as file:
        for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.seek(offset)
            unpacker = zlib.decompressobj()
            unpacker.decompress(file.read(size), pixels * _pixel_bytes(path, page) + 64)
            if unpacker.unconsumed_tail:
                raise UserError(f"{shown(path)} unpacks to more than its header claims; export it again.")
