"""PNG and JPEG through Pillow; 16-bit colour PNG, which Pillow narrows to 8 bit, through `deep_png`."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from scanfuse.data.readers import deep_png
from scanfuse.data.readers.image import Image, check_size, finish, flatten_alpha
from scanfuse.errors import UserError

__all__ = ["SUFFIXES", "pillow_pixels", "read"]

SUFFIXES = (".png", ".jpg", ".jpeg")


def read(path: Path, *, grey_if_equal: bool = True) -> Image:
    """Reads a PNG or JPEG of any mode; the content decides, not the name.

    Bilevel becomes 0 and 255; a palette becomes RGB; alpha is dropped or composited on black
    (`flatten_alpha`); CMYK becomes RGB; the EXIF orientation of a camera is applied.

    Raises:
        UserError: not a picture, damaged, too large, or without pixels.
    """
    try:
        with warnings.catch_warnings():
            # The size is checked below against a limit of our own, with a message that names the file.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=("PNG", "JPEG")) as picture:
                check_size(path, picture.height, picture.width)
                stored = picture.mode
                if picture.format == "PNG" and deep_png.is_deep(path):
                    picture.load()
                    return finish(path, deep_png.decode(path), stored=f"{stored};16", grey_if_equal=grey_if_equal)
                pixels = pillow_pixels(PIL.ImageOps.exif_transpose(picture))
    except UserError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise UserError(f"{path} is not a PNG or JPEG picture{_guess(path)}; export it again.") from error
    except PIL.Image.DecompressionBombError as error:
        raise UserError(f"{path} claims far more pixels than allowed; cut or shrink it first.") from error
    except (OSError, SyntaxError, ValueError, KeyError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is damaged or cut short ({_first_line(error)}); copy or export it again.") from error
    return finish(path, pixels, stored=stored, grey_if_equal=grey_if_equal)


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


def _guess(path: Path) -> str:
    start = path.read_bytes()[:512]
    if not start:
        return " but an empty file"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return " but text"
    return ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
