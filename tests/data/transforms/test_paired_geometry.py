"""Boxes follow their objects: pictures of bright rectangles are moved, and found again by thresholding."""

import math

import numpy as np
import pytest
from scipy import ndimage

from scanfuse.data.boxes import Boxes
from scanfuse.data.transforms.mosaic import mosaic
from scanfuse.data.transforms.pair import FILL, Pair, kept
from scanfuse.data.transforms.paired_affine import PairMovement, move_boxes, move_pair
from scanfuse.data.transforms.paired_letterbox import letterbox, place_in, to_input, to_picture
from scanfuse.errors import UserError

CLASSES = tuple("abcdefgh")


def scene(height: int = 96, width: int = 128, *, seed: int = 0, count: int = 4, first: int = 0) -> Pair:
    """Rectangles apart from each other on black, the same in both sensors, each of its own class."""
    random = np.random.default_rng(seed)
    rgb, ir = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.float32)
    edges = []
    cells = random.permutation([(row, column) for row in range(2) for column in range(3)])[:count]
    for row, column in cells:
        h, w = height // 2, width // 3
        high, wide = random.integers(h // 3, h - 6), random.integers(w // 3, w - 6)
        top, left = row * h + random.integers(3, h - high - 2), column * w + random.integers(3, w - wide - 2)
        rgb[top : top + high, left : left + wide] = 255
        ir[top : top + high, left : left + wide] = 1
        edges.append([left, top, left + wide, top + high])
    return Pair(rgb, ir, Boxes.of(edges, first + np.arange(count), CLASSES))


def regions(pair: Pair) -> list[list[float]]:
    """The boxes around the bright connected parts, after checking that both sensors show the same."""
    bright = pair.ir > 0.72
    grey = pair.rgb.astype(float).mean(axis=2) / 255
    assert np.abs(grey - pair.ir).max() < 2 / 255
    parts, _ = ndimage.label(bright)
    return sorted([s[1].start, s[0].start, s[1].stop, s[0].stop] for s in ndimage.find_objects(parts))


def assert_on_their_objects(pair: Pair, tolerance: float) -> None:
    found = regions(pair)
    assert len(found) == len(pair.boxes)
    apart = np.abs(np.array(found)[:, None] - pair.boxes.xyxy[None]).max(axis=2)
    assert sorted(apart.argmin(axis=1)) == list(range(len(found))) and apart.min(axis=1).max() <= tolerance


# --- letterbox ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [(96, 128), (128, 96), (97, 131), (64, 64), (480, 640)])
@pytest.mark.parametrize(("size", "stride"), [(64, None), (160, None), (96, 32), (160, 16)])
def test_letterboxed_boxes_lie_on_their_objects(source: tuple[int, int], size: int, stride: int | None) -> None:
    pair = scene(*source)
    placement = place_in(source, size, stride=stride)
    fitted = letterbox(pair, placement)
    assert max(fitted.size) == size == max(placement.size)
    assert fitted.size == (size, size) if stride is None else all(side % stride == 0 for side in fitted.size)
    if stride is not None:
        assert min(fitted.size) - min(placement.box[2:]) < stride
    assert fitted.boxes.labels.tolist() == pair.boxes.labels.tolist()
    # A pixel of the result where the picture grows (bilinear edges), half of one where it shrinks.
    assert_on_their_objects(fitted, 1.0 if size > max(source) else 0.75)


def test_the_way_back_undoes_the_way_there() -> None:
    random = np.random.default_rng(0)
    for source in ((480, 640), (37, 201), (512, 100)):
        boxes = random.uniform(0, 100, (50, 2, 2))
        xyxy = np.concatenate([boxes.min(axis=1), boxes.max(axis=1)], axis=1)
        for stride in (None, 32):
            placement = place_in(source, 96, stride=stride)
            np.testing.assert_allclose(to_picture(to_input(xyxy, placement), placement, cut=False), xyxy, atol=1e-10)
            whole = to_input(np.array([[0.0, 0, source[1], source[0]]]), placement)
            top, left, height, width = placement.box
            np.testing.assert_allclose(whole, [[left, top, left + width, top + height]], atol=1e-10)


def test_predictions_on_padding_are_cut_to_the_picture() -> None:
    placement = place_in((50, 100), 100)  # 25 rows of padding above and below
    back = to_picture(np.array([[10.0, 0, 20, 40], [-5, 60, 300, 90], [0, 0, 10, 20]]), placement)
    np.testing.assert_allclose(back, [[10, 0, 20, 15], [0, 35, 100, 50], [0, 0, 10, 0]])


def test_padding_is_grey_and_the_picture_unchanged_where_it_fits() -> None:
    pair = scene(96, 128)
    fitted = letterbox(pair, place_in((96, 128), 128))
    assert (fitted.rgb[:16] == FILL).all() and (fitted.rgb[112:] == FILL).all()
    np.testing.assert_allclose(fitted.ir[:16], FILL / 255)
    assert (fitted.rgb[16:112] == pair.rgb).all() and (fitted.ir[16:112] == pair.ir).all()


def test_impossible_sizes_are_refused() -> None:
    for size, stride in ((4, None), (100, 32), (64, 0)):
        with pytest.raises(UserError, match="must be 8 pixels or more and a multiple of the stride"):
            place_in((96, 128), size, stride=stride)
    with pytest.raises(ValueError, match="a placement for"):
        letterbox(scene(96, 128), place_in((128, 96), 64))
    with pytest.raises(UserError, match=r"128 x 96 pixels, the infrared one 96 x 96; register them"):
        Pair(scene().rgb, scene().ir[:, :96], scene().boxes)


# --- affine -------------------------------------------------------------------------------------------------------


MOVEMENTS = {
    "straight": PairMovement(scale=0.4, shift=0.1, flip=0.5),
    "turned": PairMovement(scale=0.3, shift=0.05, flip=0.5, rotate_degrees=180),
    "sheared": PairMovement(scale=0.3, shift=0.05, flip=0.5, rotate_degrees=20, shear_degrees=15),
}


@pytest.mark.parametrize("name", list(MOVEMENTS))
def test_moved_boxes_lie_on_their_objects(name: str) -> None:
    movement, random = MOVEMENTS[name], np.random.default_rng(5)
    compared = 0
    for seed in range(12):
        pair = scene(seed=seed)
        matrix = movement.draw(random, source=pair.size, size=(140, 150))
        moved = move_pair(pair, matrix, (140, 150), min_share=0, min_side=0)
        if not np.array_equal(move_boxes(pair.boxes.xyxy, matrix), moved.boxes.xyxy):
            continue  # some object is cut: then the box around its corners is not that around what is left of it
        # A slanted corner covers only part of its last pixel.
        assert_on_their_objects(moved, 1.0 if name == "straight" else 2.0)
        compared += 1
    assert compared >= 4


def test_objects_cut_by_straight_movements_have_their_boxes_cut() -> None:
    random = np.random.default_rng(2)
    cut = 0
    for seed in range(30):
        pair = scene(seed=seed)
        matrix = PairMovement(scale=0.3, shift=0.4).draw(random, source=pair.size, size=(96, 128))
        moved = move_pair(pair, matrix, (96, 128), min_share=0, min_side=1.5)
        inside = [box for box in regions(moved) if min(box[2] - box[0], box[3] - box[1]) > 2]
        assert len(inside) <= len(moved.boxes)
        for box in inside:
            assert np.abs(moved.boxes.xyxy - box).max(axis=1).min() <= 1.0
        cut += int(np.isin(moved.boxes.xyxy, [0, 96, 128]).any())
    assert cut > 10


def test_straight_and_slanted_movements_agree() -> None:
    """Two ways to compute the same: a slant of 1e-9 takes the other one."""
    pair = scene(seed=1)
    for matrix in ([[1, 0, 0], [0, 1, 0]], [[-0.8, 0, 120], [0, 0.8, 3.3]], [[1.3, 0, -20.25], [0, 1.3, 4]]):
        straight = move_pair(pair, np.array(matrix, float), (96, 128))
        slight = np.array(matrix, float)
        slight[0, 1] = 1e-9
        slanted = move_pair(pair, slight, (96, 128))
        np.testing.assert_allclose(straight.boxes.xyxy, slanted.boxes.xyxy, atol=1e-6)
        # They differ along edges, by the filter; hardly anywhere else.
        assert np.mean(np.abs(straight.ir - slanted.ir) > 0.02) < 0.12
        assert np.mean(np.abs(straight.ir - slanted.ir) > 0.55) < 0.01


def test_no_movement_changes_nothing() -> None:
    pair = scene(seed=4)
    still = PairMovement(scale=0, shift=0, flip=0).draw(np.random.default_rng(0), source=pair.size, size=pair.size)
    np.testing.assert_array_equal(still, [[1, 0, 0], [0, 1, 0]])
    moved = move_pair(pair, still, pair.size)
    assert (moved.rgb == pair.rgb).all() and (moved.ir == pair.ir).all()
    assert (moved.boxes.xyxy == pair.boxes.xyxy).all()
    flipped = move_pair(pair, np.array([[-1.0, 0, 128], [0, 1, 0]]), pair.size)
    assert (flipped.rgb == pair.rgb[:, ::-1]).all() and (flipped.ir == pair.ir[:, ::-1]).all()
    np.testing.assert_array_equal(flipped.boxes.xyxy[:, 0], 128 - pair.boxes.xyxy[:, 2])


def test_matrices_by_hand() -> None:
    class Fixed:
        """Draws the given values."""

        def __init__(self, *values: float, mirror: float) -> None:
            self.values, self.mirror = np.array(values), mirror

        def uniform(self, low: float, high: float, count: int) -> np.ndarray:
            assert (low, high, count) == (-1, 1, 6)
            return self.values

        def random(self) -> float:
            return self.mirror

    def draw(values: tuple[float, ...], mirror: float, **ranges: float) -> np.ndarray:
        movement = PairMovement(**ranges)
        return movement.draw(Fixed(*values, mirror=mirror), source=(40, 60), size=(20, 30))  # type: ignore[arg-type]

    # Half the size about the centre (30, 20) -> (15, 10), plus a tenth of 30 and minus a twentieth of 20.
    np.testing.assert_allclose(draw((-1, 1, -0.5, 0, 0, 0), 0.9), [[0.5, 0, 3], [0, 0.5, -1]])
    # A quarter turn takes right (30, 0) from the centre to down (0, 30).
    turned = draw((0, 0, 0, 0.5, 0, 0), 0.9, rotate_degrees=180)
    np.testing.assert_allclose(turned @ [60, 20, 1], [15, 40], atol=1e-12)
    # A slant of 30 degrees: what lies one lower moves tan 30 to the right.
    sheared = draw((0, 0, 0, 0, 1, 0), 0.9, shear_degrees=30)
    np.testing.assert_allclose(sheared[:, :2], [[1, math.tan(math.pi / 6)], [0, 1]], atol=1e-12)
    np.testing.assert_allclose(draw((0, 0, 0, 0, 0, 0), 0.1) @ [60, 20, 1], [-15, 10])


def test_ranges_are_kept_and_an_option_changes_no_other_draw() -> None:
    random, drawn = np.random.default_rng(0), []
    for _ in range(400):
        drawn.append(PairMovement(scale=0.25, shift=0.2, flip=0.3).draw(random, source=(10, 10), size=(10, 10)))
    factors = np.array([matrix[1, 1] for matrix in drawn])
    mirrored = np.array([matrix[0, 0] < 0 for matrix in drawn])
    centres = np.array([matrix @ [5, 5, 1] for matrix in drawn])
    assert 0.75 < factors.min() < 0.77 and 1.23 < factors.max() < 1.25
    assert 0.22 < mirrored.mean() < 0.38
    assert 2.99 < centres.min() < 3.1 and 6.9 < centres.max() < 7.01
    one = PairMovement().draw(np.random.default_rng(7), source=(10, 10), size=(10, 10))
    other = PairMovement(shear_degrees=10).draw(np.random.default_rng(7), source=(10, 10), size=(10, 10))
    np.testing.assert_allclose(one @ [5, 5, 1], other @ [5, 5, 1])


def test_too_little_left_is_dropped() -> None:
    moved = np.array([[-8.0, 0, 2, 10], [-8, 0, 2.1, 10], [0, 0, 1.9, 10], [50, 50, 60, 60], [90, 90, 110, 110]])
    cut, stays = kept(moved, (0, 0, 100, 100), min_share=0.2, min_side=2)
    assert stays.tolist() == [True, True, False, True, True]
    np.testing.assert_allclose(cut[[0, 4]], [[0, 0, 2, 10], [90, 90, 100, 100]])
    assert kept(moved, (0, 0, 100, 100), min_share=0.3, min_side=0)[1].tolist() == [False, False, True, True, False]
    assert not kept(moved, (200, 200, 300, 300), min_share=0, min_side=0)[1].any()


@pytest.mark.parametrize(
    "ranges",
    [{"scale": 1.0}, {"scale": -0.1}, {"flip": 1.2}, {"shift": 1.0}, {"rotate_degrees": 200}, {"shear_degrees": 45}],
)
def test_impossible_ranges_are_refused(ranges: dict[str, float]) -> None:
    with pytest.raises(UserError, match="must be 0"):
        PairMovement(**ranges)


# --- mosaic -------------------------------------------------------------------------------------------------------


def test_a_mosaic_keeps_each_box_on_its_object() -> None:
    random = np.random.default_rng(3)
    sizes = [(96, 128), (128, 96), (64, 64), (150, 200)]
    shown = 0
    for seed in range(10):
        pairs = [scene(*size, seed=seed * 4 + n, count=2, first=2 * n) for n, size in enumerate(sizes)]
        whole = mosaic(pairs, size=80, random=random, min_share=0, min_side=1.5)
        assert whole.size == (160, 160)
        found = [box for box in regions(whole) if min(box[2] - box[0], box[3] - box[1]) > 2]
        for box in found:
            assert np.abs(whole.boxes.xyxy - box).max(axis=1).min() <= 1.0
        shown += len(found)
        # Labels 0, 1 lie left above, 2, 3 right above, 4, 5 left below, 6, 7 right below of where the pairs meet.
        middle = [(label // 2 % 2, label // 4) for label in whole.boxes.labels]
        for edge in (0, 1):
            low = [box[edge + 2] for box, place in zip(whole.boxes.xyxy, middle, strict=True) if place[edge] == 0]
            high = [box[edge] for box, place in zip(whole.boxes.xyxy, middle, strict=True) if place[edge] == 1]
            assert not low or not high or max(low) <= min(high)
    assert shown > 40


def test_a_mosaic_scales_each_pair_to_its_longer_side() -> None:
    pair = Pair(
        np.full((40, 80, 3), 200, np.uint8), np.ones((40, 80), np.float32), Boxes.of([[0, 0, 80, 40]], [0], CLASSES)
    )
    whole = mosaic([pair] * 4, size=40, random=np.random.default_rng(1), min_share=0)
    x, y = whole.boxes.xyxy[3, :2]
    assert 20 <= x <= 60 and 20 <= y <= 60
    expected = [[max(0, x - 40), y - 20, x, y], [x, y - 20, min(80, x + 40), y],
                [max(0, x - 40), y, x, y + 20], [x, y, min(80, x + 40), y + 20]]  # fmt: skip
    np.testing.assert_allclose(whole.boxes.xyxy, expected)
    assert (whole.ir == 1).sum() == whole.boxes.areas.sum()
    with pytest.raises(ValueError, match="takes four pairs, not 3"):
        mosaic([pair] * 3, size=40, random=np.random.default_rng(1))


def test_the_same_generator_gives_the_same_pair() -> None:
    pairs = [scene(seed=n) for n in range(4)]
    results = []
    for seed in (5, 5, 6):
        random = np.random.default_rng(seed)
        whole = mosaic(pairs, size=64, random=random)
        results.append(move_pair(whole, PairMovement().draw(random, source=whole.size, size=(64, 64)), (64, 64)))
    first, again, other = results
    assert (first.rgb == again.rgb).all() and (first.boxes.xyxy == again.boxes.xyxy).all()
    assert (first.rgb != other.rgb).any()
