"""Overlays: what is transparent, what is coloured, and the files."""

import numpy as np
import pytest
from PIL import Image as PillowImage

from scanfuse.explain.overlay import overlay, panel, to_picture, write_overlay, write_panel


def test_pictures_of_any_depth():
    deep = np.array([[100, 1100], [600, 2100]], np.uint16)
    assert to_picture(deep)[..., 0].tolist() == [[0, 128], [64, 255]]
    assert to_picture(np.array([[np.nan, 1.0], [2.0, 3.0]]))[..., 1].tolist() == [[0, 0], [128, 255]]
    eight = np.array([[3, 7]], np.uint8)
    assert to_picture(eight)[..., 2].tolist() == [[3, 7]]  # not stretched
    assert to_picture(np.full((2, 2, 1), 4.0)).max() == 0
    colour = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_picture(colour), colour)
    with pytest.raises(ValueError, match="expected"):
        to_picture(np.zeros((2, 2, 4)))


def test_no_heat_no_change_and_full_heat_is_red():
    pixels = np.full((4, 6), 100, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[0, 0] = 1
    picture = overlay(pixels, heat, strongest=1.0)
    assert (picture[1:] == 100).all()
    red, green, blue = picture[0, 0].astype(int)
    assert red > 200 and green < 80 and blue < 30
    half = overlay(pixels, heat, strongest=0.5)[0, 0]
    np.testing.assert_allclose(half, (picture[0, 0].astype(float) + 100) / 2, atol=1)


def test_sizes_and_ranges_must_fit():
    with pytest.raises(ValueError, match="place the map first"):
        overlay(np.zeros((4, 4), np.uint8), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"scale it to 0\.\.1"):
        overlay(np.zeros((2, 2), np.uint8), np.full((2, 2), 3.0))
    with pytest.raises(ValueError, match="no picture"):
        panel({}, {})


def test_files_keep_the_size_of_the_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (90, 61), dtype=np.uint16)
    heat = np.linspace(0, 1, 90 * 61, dtype=np.float32).reshape(90, 61)
    write_overlay(tmp_path / "view.png", pixels, heat)
    with PillowImage.open(tmp_path / "view.png") as image:
        np.testing.assert_array_equal(np.asarray(image), overlay(pixels, heat))
    assert [file.name for file in tmp_path.iterdir()] == ["view.png"]


def test_the_panel_keeps_the_aspect_of_each_view(tmp_path):
    pictures = {"frontal": np.zeros((200, 100), np.uint8), "lateral": np.full((50, 100), 200, np.uint8)}
    heats = {view: {"view": np.zeros(p.shape), "fused": np.zeros(p.shape)} for view, p in pictures.items()}
    write_panel(tmp_path / "panel.png", pictures, heats, captions={"frontal": "frontal: +0.42"}, height=80)
    with PillowImage.open(tmp_path / "panel.png") as image:
        shown = np.asarray(image)
    row = 22 + 80
    assert shown.shape[0] == 2 * row + 6  # a caption over each row, a gap between them
    assert shown.shape[1] == 3 * 160 + 2 * 6  # the wide view twice as wide as high, three times
    assert (shown[row + 6 + 22 + 5, 5] == 200).all() and (shown[row + 6 + 22 + 5, 160 + 2] == 255).all()
