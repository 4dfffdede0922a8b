"""Pictures in an HDF5 container: one data set each, the encoded bytes of a JPEG or PNG, as ISIC 2024 has them."""

import io
import os
from pathlib import Path

import h5py
import numpy as np
import PIL.Image
import PIL.ImageOps

from scanfuse.data.readers.image import Image, check_size, finish
from scanfuse.data.readers.png_jpeg import pillow_pixels
from scanfuse.errors import UserError
from scanfuse.foreign import check_file, foreign, shown

__all__ = ["SUFFIXES", "Container"]

SUFFIXES = (".hdf5", ".h5")


class Container:
    """An HDF5 file of pictures, opened when the first one is read, and again in every process that reads.

    A handle that a forked worker inherits shares its file position and locks with the parent's: so a handle is used
    by the process alone that opened it, and never travels to another one.

    Args:
        path: the file.

    Raises:
        UserError: it cannot be opened, holds no such picture, or one that is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._process = -1

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_file": None, "_process": -1}

    def names(self) -> set[str]:
        """The names of all pictures; 400,000 take a second or two."""
        with foreign(self.path):
            return {name.decode() for name in self._opened().id}  # the plain iteration takes twice as long

    def read(self, name: str, *, grey_if_equal: bool = True) -> Image:
        """One picture by name, of at most 8 bits a channel."""
        place = self.path / name
        with foreign(self.path):
            file = self._opened()
            if name not in file:
                raise UserError(f"{shown(self.path)} holds no picture {name!r}; complete the download.")
            content = file[name][()]
        data = content.tobytes() if isinstance(content, np.generic | np.ndarray) else bytes(content)
        with foreign(place), PIL.Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            check_size(place, picture.height, picture.width)
            stored = picture.mode
            pixels = pillow_pixels(PIL.ImageOps.exif_transpose(picture))
        return finish(place, pixels, stored=stored, grey_if_equal=grey_if_equal)

    def _opened(self) -> h5py.File:
        if self._file is None or self._process != os.getpid():
            check_file(self.path, "container of pictures")
            self._file, self._process = h5py.File(self.path, "r"), os.getpid()
        return self._file
