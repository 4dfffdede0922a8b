"""The shift between RGB and infrared: found where it is known, doubted where there is none, and on real pairs."""

import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from scanfuse.data.alignment import CONFIDENT, Shift, find_shift
from scanfuse.data.annotations import yolo
from scanfuse.data.boxes import ClassMap, iou
from scanfuse.data.synthetic._road import Frame, render
from scanfuse.errors import UserError


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [render(number, size=(240, 320), misalign=10.0, seed=5)[0] for number in range(12)]


def test_known_shifts_are_found(frames: list[Frame]) -> None:
    for frame in frames:
        found = find_shift(frame.rgb, frame.ir)
        assert np.hypot(found.right - frame.shift[0], found.down - frame.shift[1]) < 0.6
        # A shift of 3 percent is a lot; some street lies outside one of the pictures.
        assert found.confidence > 0.3
    assert np.median([find_shift(frame.rgb, frame.ir).confidence for frame in frames]) > 0.6


def test_shifts_are_in_pixels_of_the_pictures() -> None:
    """Larger pictures are shrunk for the search."""
    largest = 0.0
    for number in (2, 3, 4):
        frame = render(number, size=(480, 640), misalign=12.0, seed=5)[0]
        found = find_shift(frame.rgb, frame.ir)
        np.testing.assert_allclose([found.right, found.down], frame.shift, atol=0.8)
        largest = max(largest, abs(frame.shift[0]))
    assert largest > 5


def test_the_sign_and_scale_of_either_sensor_do_not_matter(frames: list[Frame]) -> None:
    frame = frames[0]
    plain = find_shift(frame.rgb, frame.ir)
    for ir in (255 - frame.ir, frame.ir.astype(np.uint16) * 50 + 7000, frame.ir.astype(float) / 255):
        other = find_shift(frame.rgb, ir)
        np.testing.assert_allclose([other.right, other.down], [plain.right, plain.down], atol=0.02)
    grey = frame.rgb.astype(float) @ [0.299, 0.587, 0.114]
    assert find_shift(grey, frame.ir).right == pytest.approx(plain.right, abs=0.01)


def test_a_picture_moved_by_hand() -> None:
    random = np.random.default_rng(0)
    scene = PIL.Image.fromarray(random.random((24, 30)).astype(np.float32)).resize(
        (340, 280), PIL.Image.Resampling.BICUBIC
    )
    whole = np.asarray(scene)
    # What is at (x, y) of the first is at (x + 7, y - 4) of the second.
    first, second = whole[20:260, 20:320], whole[24:264, 13:313]
    found = find_shift(first, 1 - second)
    np.testing.assert_allclose([found.right, found.down], [7, -4], atol=0.1)
    assert found.confidence > 0.6
    beyond = find_shift(first, second, largest=0.01)
    assert beyond.confidence < CONFIDENT or max(abs(beyond.right), abs(beyond.down)) <= 4.5


def test_unrelated_pictures_are_doubted(frames: list[Frame]) -> None:
    sure = [find_shift(frames[k].rgb, frames[(k + step) % 12].ir).confidence for k in range(12) for step in (1, 3)]
    assert np.mean(np.array(sure) < CONFIDENT) > 0.9 and np.median(sure) < 0.25
    noise = np.random.default_rng(1).random((2, 120, 160))
    assert find_shift(noise[0], noise[1]).confidence < CONFIDENT
    for first, second in ((np.zeros((64, 64)), noise[0, :64, :64]), (np.ones((64, 64)), np.ones((64, 64)))):
        assert find_shift(first, second) == Shift(0.0, 0.0, 0.0)


def test_a_pair_takes_milliseconds(frames: list[Frame]) -> None:
    start = time.process_time()
    for frame in frames:
        find_shift(frame.rgb, frame.ir)
    assert (time.process_time() - start) / len(frames) < 0.15  # 0.03 s measured


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"two pictures of one size from 32 x 32 pixels; got \(40, 50\) and \(50, 40\)"
    ):
        find_shift(np.zeros((40, 50)), np.zeros((50, 40)))
    with pytest.raises(UserError, match="two pictures of one size"):
        find_shift(np.zeros((20, 50)), np.zeros((20, 50)))
    with pytest.raises(UserError, match=r"must be 0.01 to 0.25 of the longer side, not 0.5"):
        find_shift(np.zeros((40, 50)), np.zeros((40, 50)), largest=0.5)


# --- real pairs ---------------------------------------------------------------------------------------------------


def opened(rgb: Path, ir: Path) -> Shift:
    return find_shift(np.asarray(PIL.Image.open(rgb).convert("RGB")), np.asarray(PIL.Image.open(ir).convert("L")))


@pytest.mark.data
def test_the_m3fd_pairs_are_off_by_three_or_four_rows(real_data: Path) -> None:
    for name in ("00000.png", "00001.png"):
        found = opened(real_data / "m3fd/Vis" / name, real_data / "m3fd/Ir" / name)
        assert found.confidence > CONFIDENT and abs(found.right) < 1 and -5 < found.down < -2


@pytest.mark.data
def test_the_msrs_pairs_are_off_as_their_boxes_are(real_data: Path) -> None:
    """Boxes were drawn on either sensor by hand: where both show an object, their centres tell the shift."""
    root, classes = real_data / "msrs", ClassMap(("person", "bicycle", "car"))
    found, apart = [], []
    for path in sorted((root / "vi").glob("*.png")):
        found.append(opened(path, root / "ir" / path.name))
        seen, felt = (
            yolo.read(
                root / "labels" / name / f"{path.stem}.txt", size=(480, 640), classes=classes, names=classes.classes
            ).boxes.xyxy
            for name in ("visible", "infrared")
        )
        for box, overlap in zip(seen, iou(seen, felt), strict=True):
            if len(overlap) and overlap.max() > 0.5:
                partner = felt[overlap.argmax()]
                apart.append((partner[:2] + partner[2:] - box[:2] - box[2:]) / 2)
    sure = [shift for shift in found if shift.confidence > CONFIDENT]
    assert len(sure) >= 5
    by_edges = np.median([[shift.right, shift.down] for shift in sure], axis=0)
    by_boxes, error = np.mean(apart, axis=0), np.std(apart, axis=0) / np.sqrt(len(apart))
    assert by_boxes[1] > 2 * error[1] and by_edges[1] > 1
    assert np.abs(by_edges - by_boxes).max() < 3 * error.max()
