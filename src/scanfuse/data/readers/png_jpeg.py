"""PNG and JPEG through Pillow, 16-bit colour in two halves.

Source: W3C, Portable Network Graphics specification, third edition (2025): section 5 (chunks), 8 (interlacing), 11
(IHDR, IDAT).
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.ImageOps

from scanfuse.data.readers.image import Image, check_size, finish, flatten_alpha
from scanfuse.data.readers.slices import SliceChoice, pick_frame
from scanfuse.errors import UserError
from scanfuse.foreign import foreign, shown

__all__ = ["SUFFIXES", "count", "pillow_pixels", "read"]

SUFFIXES = (".png", ".jpg", ".jpeg")

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type: grey, RGB, palette, grey with alpha, RGB with alpha
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced PNG: first column, first row, step between columns, step between rows."""


def read(path: Path, *, slices: SliceChoice | None = None, grey_if_equal: bool = True) -> Image:
    """Reads a PNG or JPEG of any mode; the content decides, not the name.

    Bilevel becomes 0 and 255; a palette becomes RGB; alpha is dropped or composited on black
    (`flatten_alpha`); CMYK becomes RGB; the EXIF orientation of a camera is applied. The previews that some cameras
    store behind the picture do not count as pictures; the frames of an animated PNG do.

    Raises:
        UserError: not a picture, damaged, too large, without pixels, or animated without `slices`.
    """
    with foreign(path), _open(path) as picture:
        stored, frames = picture.mode, _frames(picture)
        deep = False
        picture.seek(pick_frame(path, slices, frames))
        if picture.format == "PNG":
            depth, kind = _check_rows(path)
            deep = depth == 16 and _CHANNELS[kind] > 1
            if deep and frames > 1:
                raise UserError(f"{shown(path)} is an animation with 16 bits per channel; save the picture you want.")
        pixels = _deep_pixels(path, picture) if deep else pillow_pixels(PIL.ImageOps.exif_transpose(picture))
    return finish(path, pixels, stored=f"{stored};16" if deep else stored, grey_if_equal=grey_if_equal)


def count(path: Path, slices: SliceChoice | None) -> int:
    """How many pictures the file holds, from its header."""
    with foreign(path), _open(path) as picture:
        return _frames(picture)


def pillow_pixels(picture: PIL.Image.Image) -> np.ndarray:
    """(H, W) or (H, W, 3) array of a loaded Pillow picture: uint8, uint16, int32 or float32."""
    if picture.mode == "1":
        return np.asarray(picture, np.uint8) * np.uint8(255)
    if picture.mode in ("P", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    elif picture.mode == "La":
        picture = picture.convert("LA")
    elif picture.mode not in ("L", "LA", "RGB", "RGBA", "F", "I") and not picture.mode.startswith("I;16"):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if picture.mode in ("LA", "RGBA"):
        return flatten_alpha(pixels)
    return pixels


@contextmanager
def _open(path: Path) -> Iterator[PIL.ImageFile.ImageFile]:
    with path.open("rb") as file:
        start = file.read(512)
    if not start.startswith((_PNG, b"\xff\xd8")):
        is_text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)
        raise UserError(
            f"{shown(path)} is not a PNG or JPEG picture{' but text' if is_text else ''}; export it again."
        )
    try:
        picture = PIL.Image.open(path, formats=("PNG", "JPEG"))
    except PIL.Image.DecompressionBombError as error:
        raise UserError(f"{shown(path)} claims far more pixels than allowed; cut or shrink it first.") from error
    with picture:
        check_size(path, picture.height, picture.width)
        yield picture


def _frames(picture: PIL.Image.Image) -> int:
    return int(getattr(picture, "n_frames", 1)) if picture.format == "PNG" else 1


def _check_rows(path: Path) -> tuple[int, int]:
    """Bits per channel and colour type of a PNG, after its rows were counted: Pillow shows missing ones as black."""
    unpacker, rest = zlib.decompressobj(), -1
    with path.open("rb") as file:
        file.seek(len(_PNG))
        while rest and len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            content = file.read(length)
            file.seek(4, 1)  # the checksum; Pillow compares it
            if name == b"IHDR":
                width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", content)
                rest = _row_bytes(width, height, depth * _CHANNELS[kind], interlaced)
            while name == b"IDAT" and content and rest:
                rest -= len(unpacker.decompress(content, min(rest, 1_000_000)))
                content = unpacker.unconsumed_tail
    if rest:
        raise UserError(f"{shown(path)} is damaged or cut short ({rest} bytes are missing); copy or export it again.")
    return depth, kind


def _row_bytes(width: int, height: int, bits: int, interlaced: int) -> int:
    """Bytes of all rows, unpacked: each has one in front that names its filter."""
    total = 0
    for left, top, across, down in _ADAM7 if interlaced else _WHOLE:
        columns, rows = -(-max(0, width - left) // across), -(-max(0, height - top) // down)
        total += rows * (1 + (columns * bits + 7) // 8) if columns else 0
    return total


def _deep_pixels(path: Path, picture: PIL.ImageFile.ImageFile) -> np.ndarray:
    """uint16, (H, W) or (H, W, 3); alpha and a transparent colour as in `flatten_alpha`.

    Pillow keeps the upper byte of each 16-bit value ("RGB;16B"). Told that the bytes come in the other order
    ("RGB;16L"), it keeps the lower one. Grey with alpha has four bytes a pixel, which it gives whole as "RGBA".
    """
    transparent = picture.info.get("transparency")
    packed = str(picture.tile[0].args)
    if packed == "LA;16B":
        halves = _unpacked(path, "RGBA").astype(np.uint16)
        return flatten_alpha(halves[..., 0::2] << 8 | halves[..., 1::2])
    upper, lower = (_unpacked(path, f"{packed[:-1]}{order}").astype(np.uint16) for order in "BL")
    pixels = upper << 8 | lower
    if isinstance(transparent, tuple):
        alpha = np.where((pixels == np.array(transparent)).all(axis=-1, keepdims=True), 0, 65535).astype(np.uint16)
        pixels = np.concatenate([pixels, alpha], axis=-1)
    return pixels if pixels.shape[-1] == 3 else flatten_alpha(pixels)


def _unpacked(path: Path, form: str) -> np.ndarray:
    with _open(path) as picture:
        picture.tile = [picture.tile[0]._replace(args=form)]
        return np.asarray(picture)
