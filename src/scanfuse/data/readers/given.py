"""One picture, however a program gives it: as a file, as an image of Pillow, or as an array."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from scanfuse.data.readers import SliceChoice, read_image
from scanfuse.data.readers.image import Image, check_size, finish
from scanfuse.data.readers.png_jpeg import pillow_pixels
from scanfuse.errors import UserError
from scanfuse.foreign import one_line

__all__ = ["image_of"]


def image_of(name: str, value: Any, slices: SliceChoice | None = None) -> Image:
    """The picture that was given for an input.

    Args:
        name: of the input; what has no file is called so.
        value: a path; an image of Pillow, of any mode; or an array (H, W) or (H, W, 3). uint8 and uint16 arrays have
            their full range, other integers and floats range from their own smallest to their largest finite value.
        slices: of a file that is a volume or a stack: which one.

    Raises:
        UserError: something else, a file that cannot be read, or an array that is no picture.
    """
    if isinstance(value, str | os.PathLike):
        return read_image(Path(value), slices=slices)
    if isinstance(value, PIL.Image.Image):
        source = Path(getattr(value, "filename", "") or name)
        check_size(source, value.height, value.width)
        try:
            pixels = pillow_pixels(PIL.ImageOps.exif_transpose(value))
        except (OSError, SyntaxError, ValueError) as error:  # opened, and not decoded before now
            raise UserError(f"The picture that was given as {name} cannot be decoded ({one_line(error)}).") from error
        return finish(source, pixels, stored=value.mode)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "uif":
            raise UserError(f"The array that was given as {name} holds {value.dtype}; give integers or floats.")
        return finish(Path(name), value, stored="array")
    raise UserError(
        f"The input {name!r} is of the type {type(value).__name__}; give a path, a PIL image or a numpy array (H, W) "
        "or (H, W, 3), or for several samples lists of these."
    )
