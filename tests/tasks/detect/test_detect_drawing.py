"""Pictures of detections: what is drawn where, at which size, and in colours that everybody can tell apart."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from scanfuse.tasks.detect.detections import Detections, detections_of, truth_of
from scanfuse.tasks.detect.drawing import COLOURS, draw, draw_pair, write_picture

NAMES = ("person", "car")
# What a colour looks like without one kind of cones, linear RGB (Machado, Oliveira, Fernandes 2009, severity 1).
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def one_box(size: tuple[int, int] = (480, 640), **options: object) -> Detections:
    height, width = size
    box = [0.25 * width, 0.5 * height, 0.75 * width, 0.9 * height]
    return detections_of([box], [0.87], [1], class_names=NAMES, size=size, id="scene/12", **options)


def has_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((pixels == colour).all(axis=-1).any())


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_a_box_is_a_line_of_its_colour_with_a_dark_rim_on_any_ground(ground: int) -> None:
    picture = draw(np.full((480, 640), ground, np.uint8), one_box())
    assert picture.shape == (480, 640, 3)
    row = picture[340]  # through the middle of the box
    of_colour = np.flatnonzero((row == COLOURS[1]).all(axis=-1))
    assert {160, 480} <= set(of_colour.tolist()) and len(of_colour) == 4
    assert not row[158].any() or not row[159].any()
    inside, outside = np.r_[170:470], np.r_[0:150, 490:640]
    assert (row[inside] == ground).all() and (row[outside] == ground).all()


def test_words_stand_above_the_box_on_a_patch_of_its_colour() -> None:
    picture = draw(np.zeros((480, 640), np.uint8), one_box())
    above = picture[240 - 17 : 240 - 3, 162:200]
    share = (above == COLOURS[1]).all(axis=-1).mean()
    assert 0.4 < share < 0.95  # the rest are letters
    other = detections_of([[160, 240, 480, 432]], [0.37], [1], class_names=NAMES, size=(480, 640), id="a")
    assert (draw(np.zeros((480, 640), np.uint8), other)[:240] != picture[:240]).any()  # another score, other words


@pytest.mark.parametrize("box", [[0, 0, 640, 480], [-50, -50, 900, 900], [600, 440, 640, 480], [100, 0, 130, 8]])
def test_boxes_at_the_edge_keep_their_lines_and_words(box: list[float]) -> None:
    sample = detections_of([box], [0.5], [0], class_names=NAMES, size=(480, 640), id="a")
    picture = draw(np.zeros((480, 640), np.uint8), sample)
    count = (picture == COLOURS[0]).all(axis=-1).sum()
    assert count > 500  # the patch of the words alone is about 900 pixels
    if box == [0, 0, 640, 480]:
        for edge in (picture[0, 300:], picture[-1], picture[100:, 0], picture[:, -1]):
            assert has_colour(edge, COLOURS[0])


def test_the_truth_is_dashed_and_stays_visible_under_a_detection_that_fits() -> None:
    box = [[160, 240, 480, 432]]
    alone = detections_of([], [], [], class_names=NAMES, size=(480, 640), id="a", truth=truth_of(box, [0]))
    ground = np.full((480, 640), 200, np.uint8)
    line = draw(ground, alone)[430:440].reshape(-1, 3)
    coloured, dark = ((line == colour).all(axis=-1).sum() for colour in (COLOURS[0], (0, 0, 0)))
    assert coloured > 200 and dark > 200
    both = draw(ground, one_box(truth=truth_of(box, [0])))
    assert has_colour(both[435:439], COLOURS[0]) and has_colour(both[428:435], COLOURS[1])
    ignored = detections_of([], [], [], class_names=NAMES, size=(480, 640), id="a", truth=truth_of(box, [0], [True]))
    assert not has_colour(draw(ground, ignored), COLOURS[0])


def test_low_scores_are_left_out() -> None:
    ground = np.full((480, 640), 200, np.uint8)
    assert np.array_equal(draw(ground, one_box(), min_score=0.9)[..., 0], ground)
    assert not np.array_equal(draw(ground, one_box(), min_score=0.8)[..., 0], ground)


@pytest.mark.parametrize(
    ("size", "drawn"), [((64, 64), (448, 448)), ((480, 640), (480, 640)), ((20, 800), (40, 1600))]
)
def test_small_images_are_enlarged_so_that_words_fit(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    picture = draw(np.full(size, 90, np.uint8), one_box(size))
    assert picture.shape[:2] == drawn
    assert has_colour(picture[:, drawn[1] // 4 - 3 : drawn[1] // 4 + 3], COLOURS[1])


def test_words_of_crowded_boxes_do_not_hide_each_other() -> None:
    boxes = [[100, 100, 200, 200], [102, 101, 205, 203], [98, 103, 204, 207]]
    sample = detections_of(boxes, [0.9, 0.8, 0.7], [0, 1, 2], class_names=(*NAMES, "bus"), size=(480, 640), id="a")
    picture = draw(np.zeros((480, 640), np.uint8), sample)
    for colour in COLOURS[:3]:
        assert (picture == colour).all(axis=-1).sum() > 700  # what is left of the lines of the last has 300


def test_pairs_side_by_side_with_a_legend() -> None:
    thermal = np.linspace(20000, 21000, 480 * 640).reshape(480, 640).astype(np.uint16)
    pictures = {"RGB": np.full((480, 640, 3), 90, np.uint8), "infrared": thermal}
    sample = one_box(truth=truth_of([[10, 10, 60, 60]], [0]))
    panel = draw_pair(pictures, sample)
    assert panel.shape[1] == 2 * 640 + 6 and panel.shape[0] > 480 + 40
    left, right = panel[:, :640], panel[:, -640:]
    assert has_colour(left, COLOURS[1]) and has_colour(right, COLOURS[1])
    legend = panel[-24:]
    assert has_colour(legend, COLOURS[0]) and has_colour(legend, COLOURS[1])
    assert draw_pair(pictures, sample, title="").shape[0] < panel.shape[0]
    only = draw_pair(pictures, one_box())[-24:]
    assert not has_colour(only, COLOURS[0])
    with pytest.raises(ValueError, match="no picture"):
        draw_pair({}, sample)
    with pytest.raises(ValueError, match=r"the image is \(48, 64\), the detections are of one of \(480, 640\)"):
        draw(np.zeros((48, 64), np.uint8), sample)


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_colours_can_be_told_apart(kind: str) -> None:
    linear = (np.array(COLOURS) / 255) ** 2.2
    seen = np.clip(linear @ np.array(DEFICIENCIES[kind]).T, 0, 1) ** (1 / 2.2)
    lab = rgb2lab(seen[None])[0]
    least = min(np.linalg.norm(a - b) for a, b in combinations(lab, 2))
    assert least > 12  # 2.3 is a just noticeable difference


def test_a_picture_is_written_whole(tmp_path: Path) -> None:
    picture = draw(np.zeros((480, 640), np.uint8), one_box())
    write_picture(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), picture)
    write_picture(tmp_path / "a.jpg", picture)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "JPEG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "a.png"]
