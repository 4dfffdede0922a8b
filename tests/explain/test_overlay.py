"""Overlays: what is transparent, what is coloured, and the files."""

import matplotlib
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


def test_colours_are_those_of_the_equation():
    random = np.random.default_rng(0)
    pixels, heat = random.integers(0, 256, (9, 7), dtype=np.uint8), random.random((9, 7)).astype(np.float32)
    colour = matplotlib.colormaps["turbo"](0.88 * heat)[..., :3] * 255
    expected = pixels[..., None] + 0.6 * heat[..., None] * (colour - pixels[..., None])
    assert np.abs(overlay(pixels, heat) - expected).max() < 3  # 256 steps of colour
    assert pixels.dtype == np.uint8 and (to_picture(pixels)[..., 0] == pixels).all()


def test_a_picture_in_colour_is_not_painted_on():
    pixels = np.full((3, 4, 3), 90, np.uint8)
    overlay(pixels, np.ones((3, 4), np.float32))
    assert (pixels == 90).all()


def test_the_panel_keeps_the_aspect_of_each_view_and_its_columns_stand_in_line(tmp_path):
    pictures = {"frontal": np.full((200, 100), 10, np.uint8), "lateral": np.full((50, 100), 200, np.uint8)}
    heats = {view: {"view": np.zeros(p.shape), "fused": np.zeros(p.shape)} for view, p in pictures.items()}
    write_panel(tmp_path / "panel.png", pictures, heats, captions={"frontal": "frontal: +0.42"}, height=80)
    with PillowImage.open(tmp_path / "panel.png") as image:
        shown = np.asarray(image)
    row = 22 + 80
    assert shown.shape[0] == 2 * (row + 6) + 22  # a caption over each row, a gap below, the scale of colours
    assert shown.shape[1] == 3 * 160 + 2 * 6  # the wide view twice as wide as high, three times
    lateral, frontal = shown[row + 6 + 22 + 5], shown[22 + 5]
    assert (lateral[5] == 200).all() and (lateral[160 + 2] == 255).all()
    for column in range(3):
        left = column * 166
        assert (lateral[left : left + 160] == 200).all()
        assert (frontal[left + 61 : left + 99] == 10).all()  # 40 wide, in the middle of its column
        assert (frontal[left : left + 58] == 255).all() and (frontal[left + 102 : left + 160] == 255).all()


def test_the_panel_shows_each_map_where_it_is_and_says_that_a_map_is_zero():
    pixels = np.full((400, 400), 100, np.uint8)
    heat = np.zeros((400, 400), np.float32)
    heat[:, 200:] = 1
    nothing = np.zeros_like(heat)
    shown = panel({"a": pixels}, {"a": {"own": heat, "joint": nothing}}, titles={"own": "own"}, height=100)
    own = shown[22:122, 106:206].astype(int)
    assert (own[:, :48] == 100).all()
    assert (own[:, 52:, 0] > 160).all() and (own[:, 52:, 2] < 60).all()  # red where the heat is
    assert (shown[22:122, 212:312] == 100).all()
    said = panel({"a": pixels}, {"a": {"own": heat, "joint": heat}}, height=100)
    assert (shown[:22, 212:312] != said[:22, 212:312]).any() and (shown[:22, :206] == said[:22, :206]).all()
    scale = shown[128:].astype(int)
    assert scale.shape[0] == 22 and (scale.max(axis=-1) - scale.min(axis=-1)).max() > 100  # in colour
    assert panel({"a": pixels}, {}, height=100).shape == (122, 100, 3)  # no map, no scale
    with pytest.raises(ValueError, match="place the map first"):
        panel({"a": pixels}, {"a": {"own": heat[:100]}})
