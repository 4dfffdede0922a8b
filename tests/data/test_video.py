"""Frames of videos: their order, their depth, and videos that are no pair."""

from pathlib import Path

import numpy as np
import pytest

from scanfuse.data.boxed_videos import listed_videos
from scanfuse.data.readers import SliceChoice, read_image, video
from scanfuse.errors import UserError
from video_files import write_video

SIZE = (48, 64)


def grey_video(path: Path, count: int, *, rate: int = 10) -> Path:
    """Lossless: frame n is 5 n everywhere, but for one bright pixel in row n."""
    frames = [np.full(SIZE, 5 * number, np.uint8) for number in range(count)]
    for number, frame in enumerate(frames):
        frame[number % SIZE[0], 3] = 255
    return write_video(path, frames, rate=rate, codec="ffv1", pix_fmt="gray", given="gray")


def frame(path: Path, number: int) -> np.ndarray:
    """The pixels of a frame."""
    return read_image(path, slices=SliceChoice("frame", number)).pixels


def test_every_frame_is_the_one_that_was_written_in_any_order(tmp_path: Path) -> None:
    path = grey_video(tmp_path / "a.mkv", 45)
    assert video.count(path) == 45
    for number in (0, 1, 7, 44, 43, 20, 0, 44):  # forwards, back within what is kept, and back to the start
        pixels = frame(path, number)
        assert pixels.dtype == np.uint8 and pixels.shape == SIZE
        assert pixels[number, 3] == 255 and pixels[0 if number else 1, 0] == 5 * number


def test_deep_grey_keeps_its_counts(tmp_path: Path) -> None:
    counts = [np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE) + 21_000 + n for n in range(3)]
    path = write_video(tmp_path / "a.mkv", counts, codec="ffv1", pix_fmt="gray16le", given="gray16le")
    np.testing.assert_array_equal(frame(path, 2), counts[2])


def test_colour_is_rgb(tmp_path: Path) -> None:
    red = np.zeros((*SIZE, 3), np.uint8)
    red[..., 0] = 200
    path = write_video(tmp_path / "a.mp4", [red] * 3, codec="mpeg4", pix_fmt="yuv420p", given="rgb24")
    pixels = frame(path, 1).astype(int)
    assert pixels.shape == (*SIZE, 3)
    assert np.abs(pixels - red).max() < 12  # the video is lossy


def test_a_video_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = grey_video(tmp_path / "a.mkv", 4)
    assert frame(path, 2)[0, 0] == 10
    write_video(path, [np.full(SIZE, 77, np.uint8)] * 5, codec="ffv1", pix_fmt="gray", given="gray")
    assert frame(path, 2)[0, 0] == 77


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "holds 4 pictures: choose with --slice frame"), ("frame:4", "has slices 0 to 3|ends after 4 frames"),
     ("axial:middle", "is no volume"), ("frame:all", "which are not one picture")],
)  # fmt: skip
def test_no_frame_is_chosen_in_silence(tmp_path: Path, text: str | None, message: str) -> None:
    path = grey_video(tmp_path / "a.mkv", 4)
    with pytest.raises(UserError, match=message):
        read_image(path, slices=SliceChoice.parse(text) if text else None)


def test_middle_is_a_frame(tmp_path: Path) -> None:
    assert read_image(grey_video(tmp_path / "a.mkv", 4), slices=SliceChoice.parse("frame:middle")).pixels[0, 0] == 10


def test_two_videos_are_pairs_in_step(tmp_path: Path) -> None:
    rgb, ir = (grey_video(tmp_path / f"{name}.mkv", 12) for name in ("drive", "heat"))
    rows = list(listed_videos({"rgb": rgb, "ir": ir}).rows)
    assert [row.id for row in rows[:2]] == ["drive_0000", "drive_0001"] and len(rows) == 12
    assert {row.group for row in rows} == {"drive"} and [row.slice for row in rows][-1] == "frame:11"
    assert rows[0].paths == {"rgb": rgb, "ir": ir}
    assert list(listed_videos({"ir": ir}).rows)[3].paths == {"ir": ir}


def test_videos_that_are_not_in_step_are_refused(tmp_path: Path) -> None:
    long, short = grey_video(tmp_path / "long.mkv", 12), grey_video(tmp_path / "short.mkv", 9)
    with pytest.raises(UserError, match=r"short.mkv ends after 9 frames and .*long.mkv after 12"):
        listed_videos({"rgb": long, "ir": short})
    with pytest.raises(UserError, match=r"10.00 frames a second and .*slow.mkv 5.00"):
        listed_videos({"rgb": long, "ir": grey_video(tmp_path / "slow.mkv", 12, rate=5)})


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    good = grey_video(tmp_path / "a.mkv", 20)
    half = tmp_path / "half.mkv"
    half.write_bytes(good.read_bytes()[:500])
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    empty = tmp_path / "empty.avi"
    empty.touch()
    for path in (half, text, empty, tmp_path / "none.mp4"):
        with pytest.raises(UserError) as caught:
            read_image(path, slices=SliceChoice("frame", 15))
        assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_without_the_package_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = grey_video(tmp_path / "a.mkv", 2)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UserError, match=r'pip install "scanfuse\[video\]"'):
        video.count(path)
