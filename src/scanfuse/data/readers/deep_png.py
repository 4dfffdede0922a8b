"""PNG with 16 bits per channel and colour or alpha, which Pillow narrows to 8 bit: decoder and encoder.

Source: W3C, Portable Network Graphics specification, third edition (2025): section 5 (chunks), 9 (filters), 11 (IHDR,
IDAT, tRNS).
"""

import struct
import zlib
from pathlib import Path

import numpy as np

from scanfuse.data.readers.image import flatten_alpha
from scanfuse.errors import UserError

__all__ = ["decode", "encode", "is_deep"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: 3, 4: 2, 6: 4}  # colour type -> RGB, grey with alpha, RGB with alpha


def is_deep(path: Path) -> bool:
    """True for a PNG with 16 bits per channel and more than one channel, read from its header."""
    with path.open("rb") as file:
        header = file.read(26)
    return header.startswith(_SIGNATURE) and header[24] == 16 and header[25] in _CHANNELS


def decode(path: Path) -> np.ndarray:
    """uint16, (H, W) or (H, W, 3); alpha and a transparent colour as in `flatten_alpha`.

    Raises:
        UserError: the file is interlaced.
        ValueError, struct.error, zlib.error: it is damaged.
    """
    chunks = _chunks(path.read_bytes())
    width, height, _, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if interlaced:
        raise UserError(f"{path} is interlaced 16-bit colour, which is not supported; save it without interlacing.")
    channels = _CHANNELS[kind]
    step = 2 * channels
    expected = height * (1 + width * step)
    data = zlib.decompressobj().decompress(chunks[b"IDAT"], expected)
    if len(data) < expected:
        raise ValueError(f"{len(data)} of {expected} bytes")
    rows = np.frombuffer(data, np.uint8).reshape(height, 1 + width * step)
    plain = _unfilter(rows[:, 0], rows[:, 1:].reshape(height, width, step))
    pixels = np.ascontiguousarray(plain).view(">u2").astype(np.uint16)
    if b"tRNS" in chunks and channels == 3:
        key = np.frombuffer(chunks[b"tRNS"], ">u2")
        alpha = np.where((pixels == key).all(axis=-1, keepdims=True), 0, 65535).astype(np.uint16)
        pixels = np.concatenate([pixels, alpha], axis=-1)
    return pixels if pixels.shape[-1] == 3 else flatten_alpha(pixels)


def encode(pixels: np.ndarray) -> bytes:
    """The file of a uint16 array (H, W, 3). Rows use the filter "up" (difference to the row above)."""
    height, width = pixels.shape[:2]
    rows = np.frombuffer(pixels.astype(">u2").tobytes(), np.uint8).reshape(height, width * 6)
    above = np.vstack([np.zeros((1, width * 6), np.uint8), rows[:-1]])
    filtered = np.hstack([np.full((height, 1), 2, np.uint8), rows - above])
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = zlib.compress(filtered.tobytes(), 6)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _chunks(data: bytes) -> dict[bytes, bytes]:
    """Chunk name -> content, IDAT chunks joined. Checksums were verified by Pillow."""
    found: dict[bytes, bytes] = {}
    position = len(_SIGNATURE)
    while position + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[position : position + 8])
        content = data[position + 8 : position + 8 + length]
        found[name] = found[name] + content if name == b"IDAT" and name in found else content
        position += 12 + length
    return found


def _unfilter(filters: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Undoes the row filters. A byte needs its left, upper and upper-left neighbours: whole diagonals go at once.

    Args:
        filters: (H,) 0 none, 1 left, 2 up, 3 mean of both, 4 Paeth.
        rows: (H, W, bytes per pixel) uint8.
    """
    height, width, step = rows.shape
    if filters.max() > 4:
        raise ValueError(f"unknown row filter {filters.max()}")
    plain = np.zeros((height + 1, width + 1, step), np.int32)
    for diagonal in range(height + width - 1):
        row = np.arange(max(0, diagonal - width + 1), min(height - 1, diagonal) + 1)
        column = diagonal - row
        left, up, corner = plain[row + 1, column], plain[row, column + 1], plain[row, column]
        guess = left + up - corner
        to_left, to_up, to_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
        paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
        kind = filters[row, None]
        predicted = np.select([kind == 1, kind == 2, kind == 3, kind == 4], [left, up, (left + up) // 2, paeth], 0)
        plain[row + 1, column + 1] = (rows[row, column] + predicted) & 255
    return plain[1:, 1:].astype(np.uint8)
