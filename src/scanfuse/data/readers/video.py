"""Frames of videos through PyAV, an optional package: pip install "scanfuse[video]"."""

import os
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scanfuse.data.readers.image import Image, check_size, finish
from scanfuse.data.readers.slices import SliceChoice, pick_frame
from scanfuse.errors import UserError
from scanfuse.foreign import check_file, foreign, shown

if TYPE_CHECKING:
    import av

__all__ = ["SUFFIXES", "count", "rate", "read"]

SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".m4v", ".webm")

_SAYS = ("cannot be read as a video", "export it again, such as to MP4 with H.264")
_RECENT = 32
"""Frames that are kept: the batch that was just read is drawn on next."""


def read(path: Path, *, slices: SliceChoice | None = None, grey_if_equal: bool = True) -> Image:
    """Reads one frame: uint8 grey or RGB; uint16 grey where the video is grey and deeper than 8 bits.

    Frames in rising order cost one decoding each; to go back further than 32 frames is to start again.

    Raises:
        UserError: PyAV is not there, no video, damaged, rotated by its header, several frames without `slices`, or a
            frame that is not there.
    """
    number = slices.index if slices is not None and isinstance(slices.index, int) else None
    if number is None or slices is None or slices.axis != "frame":
        number = pick_frame(path, slices, count(path, slices))
    status = path.stat()
    video = _opened(path.absolute(), status.st_mtime_ns, status.st_size, os.getpid())
    pixels, stored = video.frame(number)
    return finish(path, pixels, stored=stored, grey_if_equal=grey_if_equal)


def count(path: Path, slices: SliceChoice | None = None) -> int:
    """How many frames the video holds: its packets are counted, for headers guess."""
    with _container(path) as container, foreign(path, *_SAYS):
        number = sum(packet.size > 0 for packet in container.demux(_stream(path, container)))
    if not number:
        raise UserError(f"{shown(path)} holds no frame; export it again.")
    return number


def rate(path: Path) -> float:
    """Frames a second; nan where the video does not say."""
    with _container(path) as container:
        found = _stream(path, container).average_rate
    return float(found) if found else float("nan")


class _Video:
    """A video that is read from its beginning towards its end, and the frames that were read last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._recent: OrderedDict[int, tuple[np.ndarray, str]] = OrderedDict()
        self._next = 0
        self._frames: Iterator[Any] = iter(())
        self._container: av.container.InputContainer | None = None

    def frame(self, number: int) -> tuple[np.ndarray, str]:
        """Pixels and the name of their format."""
        if number in self._recent:
            return self._recent[number]
        if self._container is None or number < self._next:
            self._rewind()
        while self._next <= number:
            with foreign(self.path, *_SAYS):
                found = next(self._frames, None)
                if found is None:
                    raise UserError(
                        f"{shown(self.path)} ends after {self._next} frames; frame {number} is not there."
                    )
                self._recent[self._next] = self._pixels(found)
            self._next += 1
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        return self._recent[number]

    def _rewind(self) -> None:
        if self._container is not None:
            self._container.close()
        self._recent.clear()
        self._container, self._next = _container(self.path), 0
        stream = _stream(self.path, self._container)
        stream.thread_type = "AUTO"
        self._frames = self._container.decode(stream)

    def _pixels(self, frame: "av.VideoFrame") -> tuple[np.ndarray, str]:
        check_size(self.path, frame.height, frame.width, pixel_bytes=3)
        if frame.rotation:
            raise UserError(
                f"{shown(self.path)} is to be rotated by {frame.rotation} degrees by its player; export it upright."
            )
        name = str(frame.format.name)
        if name.startswith("gray"):
            return frame.to_ndarray(format="gray" if frame.format.components[0].bits <= 8 else "gray16le"), name
        return frame.to_ndarray(format="rgb24"), name


@lru_cache(maxsize=4)  # both sensors of a pair, and the pair before it
def _opened(path: Path, modified: int, size: int, process: int) -> _Video:
    return _Video(path)


def _container(path: Path) -> "av.container.InputContainer":
    try:
        import av
    except ModuleNotFoundError:  # one that is there and broken shows its own fault
        raise UserError(f'{shown(path)} is a video, which needs PyAV: pip install "scanfuse[video]".') from None
    check_file(path, "video")
    with foreign(path, *_SAYS):
        return av.open(str(path))


def _stream(path: Path, container: "av.container.InputContainer") -> "av.VideoStream":
    if not container.streams.video:
        container.close()
        raise UserError(f"{shown(path)} holds no pictures, only sound or data.")
    return container.streams.video[0]
