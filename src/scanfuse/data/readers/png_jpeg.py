"""PNG and JPEG through Pillow; 16-bit colour PNG, which Pillow narrows to 8 bit, through torchvision."""

import struct
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from scanfuse.data.readers.image import Image, check_size, finish, flatten_alpha
from scanfuse.errors import UserError

__all__ = ["SUFFIXES", "pillow_pixels", "read"]

SUFFIXES = (".png", ".jpg", ".jpeg")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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
                if picture.format == "PNG" and _is_deep_colour(path):
                    picture.load()
                    return finish(path, _read_deep_colour(path), stored=f"{stored};16", grey_if_equal=grey_if_equal)
                pixels = pillow_pixels(PIL.ImageOps.exif_transpose(picture))
    except UserError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise UserError(f"{path} is not a PNG or JPEG picture{_guess(path)}; export it again.") from error
    except PIL.Image.DecompressionBombError as error:
        raise UserError(f"{path} claims far more pixels than allowed; cut or shrink it first.") from error
    except (OSError, SyntaxError, ValueError, RuntimeError, struct.error) as error:
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


def _is_deep_colour(path: Path) -> bool:
    """True for 16 bits per channel and more than one channel, read from the PNG header."""
    with path.open("rb") as file:
        header = file.read(26)
    return header.startswith(_PNG_SIGNATURE) and header[24] == 16 and header[25] != 0


def _read_deep_colour(path: Path) -> np.ndarray:
    import torchvision.io  # type: ignore[import-untyped]  # slow to import, for this rare kind only

    mode = torchvision.io.ImageReadMode.UNCHANGED
    pixels = torchvision.io.decode_image(torchvision.io.read_file(str(path)), mode=mode).numpy()
    pixels = np.moveaxis(pixels, 0, -1)
    return flatten_alpha(pixels) if pixels.shape[-1] in (2, 4) else pixels


def _guess(path: Path) -> str:
    start = path.read_bytes()[:512]
    if not start:
        return " but an empty file"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return " but text"
    return ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
