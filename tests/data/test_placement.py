"""Maps back on the stored picture: against torch's resize, and marks that must come back where they were."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scanfuse.data.transforms.placement import Placement, letterboxed, place, stretched


@pytest.mark.parametrize("source", [(64, 64), (37, 91), (5, 9)])
def test_the_whole_input_equals_a_bilinear_resize(source):
    values = np.random.default_rng(0).random((7, 5)).astype(np.float32)
    found = place(values, stretched(source, (224, 160)))
    if min(source) >= 7:
        expected = F.interpolate(torch.from_numpy(values)[None, None], source, mode="bilinear", align_corners=False)
        np.testing.assert_allclose(found, expected[0, 0], atol=1e-5)
    assert values.min() - 1e-6 <= found.min() and found.max() <= values.max() + 1e-6


def test_letterbox_geometry():
    wide = letterboxed((100, 200), (64, 64))
    assert wide.box == (16, 0, 32, 64)
    tall = letterboxed((300, 100), (96, 48), crop=(10, 20, 200, 50))
    assert tall.box == (0, 12, 96, 24)


@pytest.mark.parametrize("fit", [stretched, letterboxed])
@pytest.mark.parametrize("source", [(240, 120), (90, 200), (150, 150)])
@pytest.mark.parametrize("crop", [None, (30, 20, 50, 80)])
def test_a_mark_comes_back_to_its_place(fit, source, crop):
    """The picture goes through crop, resize and pad; a map of the input's own size goes back."""
    placement = fit(source, (64, 96), crop)
    top, left, height, width = placement.crop
    rng = np.random.default_rng(1)
    for _ in range(10):
        row, column = int(rng.integers(top + 5, top + height - 5)), int(rng.integers(left + 5, left + width - 5))
        picture = torch.zeros(source)
        picture[row - 5 : row + 6, column - 5 : column + 6] = 1
        shown = picture[top : top + height, left : left + width][None, None]
        box_top, box_left, rows, columns = placement.box
        small = F.interpolate(shown, (rows, columns), mode="area")[0, 0]
        given = torch.zeros(placement.size)
        given[box_top : box_top + rows, box_left : box_left + columns] = small
        heat = place(given, placement)
        assert heat.shape == source
        weights = heat / heat.sum()
        centre = (weights.sum(axis=1) @ np.arange(source[0]), weights.sum(axis=0) @ np.arange(source[1]))
        assert np.abs(np.subtract(centre, (row, column))).max() < 2.5  # input pixels are up to 2.6 source pixels
        outside = heat.copy()
        outside[top : top + height, left : left + width] = 0
        assert outside.sum() == 0


def test_values_on_the_padding_are_not_shown():
    values = np.zeros((8, 8), np.float32)
    values[0], values[-1] = 1, 1  # rows 0 and 7 lie wholly on the padding of a picture twice as wide as high
    assert place(values, letterboxed((40, 80), (64, 64))).max() == 0


def test_impossible_placements():
    with pytest.raises(ValueError, match="crop"):
        Placement((10, 10), (8, 8), (5, 5, 6, 5), (0, 0, 8, 8))
    with pytest.raises(ValueError, match="box"):
        Placement((10, 10), (8, 8), (0, 0, 10, 10), (0, 0, 9, 8))
    with pytest.raises(ValueError, match="expected rows and columns"):
        place(np.zeros((2, 3, 3)), stretched((4, 4), (4, 4)))
