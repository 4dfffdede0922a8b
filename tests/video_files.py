"""Videos that tests write."""

from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path, frames: list[np.ndarray], *, rate: int = 10, codec: str, pix_fmt: str, given: str
) -> Path:
    """Writes frames through PyAV; `given` is the format of the arrays."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=given)))
        out.mux(stream.encode(None))
    return path
