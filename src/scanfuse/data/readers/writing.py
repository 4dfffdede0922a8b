"""PNG (8 and 16 bit, grey and RGB) and float32 TIFF, whole or not at all."""

import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image
import tifffile

from scanfuse.data.readers.image import Image
from scanfuse.errors import UserError
from scanfuse.files import atomic_path

__all__ = ["suffix_for", "write_image"]


def suffix_for(image: Image) -> str:
    """The format that keeps this picture's values: ".png" for uint8 and uint16, else ".tif"."""
    return ".png" if image.pixels.dtype in (np.uint8, np.uint16) else ".tif"


def write_image(path: str | Path, array: np.ndarray, *, bits: Literal[8, 16] = 8) -> None:
    """Writes `array` to `path`; the suffix chooses the format.

    .png: uint8 and uint16 are written as they are (`bits` does not matter); float is taken as [0, 1],
    clipped, and rounded to `bits` bits. .tif, .tiff: any numbers, as float32, unscaled.

    Args:
        path: target; its folder is made where it is missing.
        array: (H, W) or (H, W, 3).
        bits: depth for float arrays in PNG.

    Raises:
        UserError: unknown suffix, or the file cannot be written.
        ValueError: not a picture, not finite, or a dtype that PNG cannot hold.
    """
    path = Path(path)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or array.size == 0:
        raise ValueError(f"Expected a picture (H, W) or (H, W, 3), got an array of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"The array for {path.name} holds values that are not finite")
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        with atomic_path(path) as temporary:
            photometric = "minisblack" if array.ndim == 2 else "rgb"
            tifffile.imwrite(temporary, array.astype(np.float32), photometric=photometric)
    elif suffix == ".png":
        pixels = _depth(array, bits)
        with atomic_path(path) as temporary:
            if pixels.dtype == np.uint16 and pixels.ndim == 3:
                temporary.write_bytes(_deep_png(pixels))
            else:
                PIL.Image.fromarray(pixels).save(temporary, format="PNG")
    else:
        raise UserError(f"Cannot write {path}: {suffix or 'no suffix'} is not supported; use .png or .tif.")


def _depth(array: np.ndarray, bits: Literal[8, 16]) -> np.ndarray:
    if array.dtype in (np.uint8, np.uint16):
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise ValueError(f"PNG holds uint8, uint16 or float in [0, 1], not {array.dtype}; write .tif instead")
    top = 2**bits - 1
    return np.rint(np.clip(array.astype(np.float64), 0, 1) * top).astype(np.uint8 if bits == 8 else np.uint16)


def _deep_png(pixels: np.ndarray) -> bytes:
    """The PNG of a uint16 array (H, W, 3), which no library here writes. Rows are differences to the row above.

    Source: W3C, Portable Network Graphics specification, third edition (2025), sections 5 (chunks) and 9 (filters).
    """
    height, width = pixels.shape[:2]
    rows = np.frombuffer(pixels.astype(">u2").tobytes(), np.uint8).reshape(height, width * 6)
    above = np.vstack([np.zeros((1, width * 6), np.uint8), rows[:-1]])
    filtered = np.hstack([np.full((height, 1), 2, np.uint8), rows - above])
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = zlib.compress(filtered.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
