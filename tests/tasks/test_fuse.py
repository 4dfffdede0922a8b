"""Image fusion around the network: colour, value range, files, pictures and scores."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from scanfuse.data.inputs.image_pairs import PairSettings, collate_pairs, pair_sample
from scanfuse.data.readers import read_image
from scanfuse.data.synthetic import harvard
from scanfuse.errors import UserError
from scanfuse.metrics.fusion import METRICS
from scanfuse.tasks import fuse
from scanfuse.tasks.fuse import FusedImage

PAIR = ("a", "b")
DTYPES = ["uint8", "uint16", "int16", "float32", "float64"]


def first(a: Tensor, b: Tensor) -> Tensor:
    return a


def second(a: Tensor, b: Tensor) -> Tensor:
    return b


def run(fuser: fuse.Fuser, a: np.ndarray, b: np.ndarray, *, stretched: bool = True) -> FusedImage:
    return fuse.fuse_images(fuser, collate_pairs([pair_sample({"a": a, "b": b})]), PAIR, stretched=stretched)[0]


def grey(dtype: str, low: float, high: float, seed: int = 0, shape: tuple[int, int] = (12, 17)) -> np.ndarray:
    """Random values of a dtype that reach both ends of a range."""
    unit = np.random.default_rng(seed).random(shape)
    unit.flat[:2] = 0, 1
    values = low + unit * (high - low)
    return (np.rint(values) if np.issubdtype(np.dtype(dtype), np.integer) else values).astype(dtype)


def colour(seed: int, dtype: str = "uint8") -> np.ndarray:
    """Random colours away from the ends of the range, so that a small change of brightness clips nothing."""
    top = np.iinfo(dtype).max
    values = np.random.default_rng(seed).uniform(0.3, 0.7, (12, 17, 3)) * top
    return np.rint(values).astype(dtype)


def rgb_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float64) / np.iinfo(pixels.dtype).max).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def heads() -> dict[str, np.ndarray]:
    return harvard.render(1, slices=1, size=64)[0]


# ---- colour


def test_colour_split_agrees_with_pillow_and_join_is_its_inverse() -> None:
    """Pillow cuts to whole numbers, in fixed point; its grey is 128."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    luminance, chroma = fuse.split_colour(rgb_tensor(pixels))
    pillow = np.asarray(PIL.Image.fromarray(pixels).convert("YCbCr")).astype(float)
    ours = [luminance[0, 0] * 255, *((chroma[0] - 0.5) * 255 + 128)]
    for plane, cut in zip(ours, np.moveaxis(pillow, 2, 0), strict=True):
        lost = plane.numpy() - cut
        assert -0.1 < lost.min() < lost.max() < 1.1
    assert 0 <= float(chroma.min()) < float(chroma.max()) <= 1
    torch.testing.assert_close(fuse.join_colour(luminance, chroma), rgb_tensor(pixels), atol=1e-12, rtol=0)


def test_joined_colours_outside_the_gamut_are_clipped() -> None:
    white_luminance, _ = fuse.split_colour(torch.ones(1, 3, 1, 1))
    _, red = fuse.split_colour(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1))
    joined = fuse.join_colour(white_luminance, red)
    # Red has luminance 0.299; at luminance 1 it is (1, 0, 0) + 0.701, of which R is too much.
    torch.testing.assert_close(joined.flatten(), torch.tensor([1.0, 0.701, 0.701]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("colour_first", [True, False])
def test_a_colour_source_comes_back_exactly_when_its_luminance_does(dtype: str, colour_first: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (12, 17, 3), dtype=dtype, endpoint=True)
    other = grey("float32", -5, 3)
    result = run(first, pixels, other) if colour_first else run(second, other, pixels)
    assert result.pixels.dtype == pixels.dtype
    assert np.array_equal(result.pixels, pixels)


def test_a_colour_source_keeps_its_chrominance_when_its_luminance_changes() -> None:
    pixels = colour(2)
    result = run(lambda a, b: 0.9 * a + 0.1 * b, pixels, grey("uint8", 0, 255))
    _, before = fuse.split_colour(rgb_tensor(pixels))
    luminance, after = fuse.split_colour(rgb_tensor(result.pixels))
    # Rounding moves each channel by at most 0.5 / 255, and Cb, Cr by no more than that.
    torch.testing.assert_close(after, before, atol=0.5 / 255 + 1e-6, rtol=0)
    assert float((luminance - fuse.split_colour(rgb_tensor(pixels))[0]).abs().max()) > 0.02


def test_two_coloured_sources_share_their_chrominance() -> None:
    """Where one is grey the other's colour counts; equal sources give themselves; the order does not matter."""
    tinted = colour(3)
    mixed = tinted.copy()
    mixed[:, :8] = mixed[:, :8, :1]
    both = run(lambda a, b: a / 2 + b / 2, tinted, mixed)
    _, expected = fuse.split_colour(rgb_tensor(tinted))
    _, found = fuse.split_colour(rgb_tensor(both.pixels))
    torch.testing.assert_close(found, expected, atol=0.6 / 255, rtol=0)
    assert np.array_equal(run(first, tinted, tinted).pixels, tinted)
    assert np.array_equal(run(first, tinted, mixed).pixels, run(second, mixed, tinted).pixels)


def test_opposite_tints_of_two_sources_weigh_by_their_distance_from_grey() -> None:
    """Cb of +0.3 and -0.1 from grey, weights 0.3 and 0.1: (0.3 * 0.3 - 0.1 * 0.1) / 0.4 = 0.2."""
    chromas = [torch.full((1, 2, 1, 1), 0.8), torch.full((1, 2, 1, 1), 0.4)]
    torch.testing.assert_close(fuse._blend(chromas), torch.full((1, 2, 1, 1), 0.7), atol=1e-5, rtol=0)


# ---- value range


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("low", "high"), [(0, 255), (17, 90)])
def test_a_fuser_that_returns_a_source_gives_its_values_back(dtype: str, low: int, high: int) -> None:
    """Stretch and range are undone: exactly for integers, to single precision for floats."""
    if dtype == "int16":
        low, high = low - 1024, 30 * high
    source = grey(dtype, low, high)
    result = run(first, source, source)
    assert result.pixels.dtype == source.dtype
    if source.dtype.kind == "f":
        np.testing.assert_allclose(result.pixels, source, rtol=0, atol=3e-7 * (high - low))
    else:
        assert np.array_equal(result.pixels, source)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_source_that_spans_the_other_comes_back_exactly(dtype: str) -> None:
    """The other is 8 bit with values inside the range: the deeper source sets the dtype."""
    low, high = (0, np.iinfo(dtype).max) if dtype.startswith("uint") else (-900, 3000)
    source, narrow = grey(dtype, low, high), grey("uint8", 40, 200, seed=1)
    for result in (run(first, source, narrow), run(second, narrow, source)):
        assert result.pixels.dtype == source.dtype
        np.testing.assert_allclose(result.pixels, source, rtol=0, atol=1e-3 if source.dtype.kind == "f" else 0)


def test_a_grey_result_spans_both_sources() -> None:
    """Sources of 50..100 and 90..200: a fuser's 0 becomes 50 and its 1 becomes 200."""
    a, b = grey("uint8", 50, 100), grey("uint8", 90, 200, seed=1)
    result = run(first, a, b)
    assert (result.pixels.min(), result.pixels.max()) == (50, 200)
    expected = np.rint(50 + (a.astype(float) - 50) / 50 * 150)
    assert np.abs(result.pixels - expected).max() <= 1
    assert np.array_equal(run(second, b, a).pixels, result.pixels)


def test_what_the_fuser_sees() -> None:
    """A network gets luminances that fill [0, 1]; a plain method gets them as they are."""
    seen: list[Tensor] = []

    def spy(a: Tensor, b: Tensor) -> Tensor:
        seen.extend((a, b))
        return a

    a, b = grey("uint8", 51, 102), grey("uint16", 0, 13107, seed=1)
    run(spy, a, b)
    run(spy, a, b, stretched=False)
    ranges = [(round(float(x.min()), 6), round(float(x.max()), 6)) for x in seen]
    assert ranges == [(0, 1), (0, 1), (0.2, 0.4), (0, 0.2)]
    assert all(x.shape == (1, 1, 12, 17) for x in seen)


def test_baselines_are_plain_arithmetic_on_the_values() -> None:
    a, b = grey("uint8", 30, 120), grey("uint8", 0, 200, seed=1)
    results = {name: run(method, a, b, stretched=False).pixels for name, method in fuse.BASELINES.items()}
    assert np.array_equal(results["maximum"], np.maximum(a, b))
    assert np.abs(results["average"] - (a.astype(float) + b) / 2).max() <= 0.5
    assert np.array_equal(run(fuse.BASELINES["laplacian"], a, a, stretched=False).pixels, a)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_source_is_harmless(dtype: str) -> None:
    flat = np.full((12, 17), 77, dtype)
    assert np.array_equal(run(first, flat, flat).pixels, flat)
    assert not fuse.to_plane(pair_sample({"a": flat})["a"][None]).stretched.any()
    varied = grey("uint8", 0, 255)
    for result in (run(second, flat, varied), run(first, varied, flat)):
        assert np.isfinite(result.pixels).all()
        assert result.sources["a"].shape == result.luminance.shape == (12, 17)
    if dtype == "uint8":
        assert np.array_equal(run(second, flat, varied).pixels, varied)


def test_what_a_fuser_returns_beyond_the_range_is_clipped() -> None:
    source = grey("uint8", 0, 255)
    result = run(lambda a, b: 3 * a - 1, source, source)
    expected = np.clip(3 * source.astype(float) - 255, 0, 255)
    assert np.array_equal(result.pixels, expected)


# ---- stretch in training


def test_a_crop_is_stretched_as_its_whole_image() -> None:
    a, b = grey("uint8", 20, 220), colour(4)
    b[0, 0], b[0, 1] = 3, 250
    batch = collate_pairs([pair_sample({"a": a, "b": b})])
    whole = {name: fuse.to_plane(batch[name]).stretched for name in PAIR}
    for name in PAIR:
        assert torch.equal(fuse.stretch(batch, name), whole[name])
        batch[name] = batch[name][..., 4:10, 5:13]
        cut = fuse.stretch(batch, name)
        torch.testing.assert_close(cut, whole[name][..., 4:10, 5:13], atol=1e-6, rtol=0)
        assert float(cut.max() - cut.min()) < 0.999  # its own range would have filled [0, 1]


def test_every_sample_of_a_batch_has_its_own_stretch() -> None:
    """A grey sample that shares a batch with a coloured one has three equal channels."""
    pairs = [(grey("uint8", 0, 99), grey("uint8", 5, 50)), (colour(5), grey("uint8", 100, 255, seed=2))]
    samples = [pair_sample({"a": a, "b": b}) for a, b in pairs]
    batch = collate_pairs(samples)
    assert batch["a"].shape[1] == 3
    for name in PAIR:
        alone = torch.cat([fuse.stretch(collate_pairs([sample]), name) for sample in samples])
        torch.testing.assert_close(fuse.stretch(batch, name), alone, atol=1e-6, rtol=0)
    constant = collate_pairs([pair_sample({"a": np.full((8, 8), 9, np.uint8), "b": np.zeros((8, 8), np.float32)})])
    assert not fuse.stretch(constant, "a").any()
    assert not fuse.stretch(constant, "b").any()


def test_a_batch_gives_the_results_of_its_samples() -> None:
    samples = [pair_sample({"a": grey("uint8", 0, 9 * k, k), "b": grey("uint8", k, 200, k + 1)}) for k in (5, 20)]
    together = fuse.fuse_images(first, collate_pairs(samples), PAIR, stretched=True)
    for result, sample in zip(together, samples, strict=True):
        alone = fuse.fuse_images(first, collate_pairs([sample]), PAIR, stretched=True)[0]
        assert np.array_equal(result.pixels, alone.pixels)


# ---- files and pictures


@pytest.mark.parametrize(
    ("pixels", "suffix"),
    [
        (grey("uint8", 0, 255), ".png"),
        (grey("uint16", 0, 65535), ".png"),
        (colour(6), ".png"),
        (colour(6, "uint16"), ".png"),
        (grey("int16", -1024, 3071), ".tif"),
        (grey("float32", -2.5, 0.25), ".tif"),
    ],
    ids=["uint8", "uint16", "rgb8", "rgb16", "int16", "float32"],
)
def test_saved_files_hold_the_values(pixels: np.ndarray, suffix: str, tmp_path: Path) -> None:
    result = run(first, pixels, pixels)
    main, picture = fuse.save(result, tmp_path)
    assert (main.name, picture.name) == (f"a{suffix}", "a_side_by_side.png")
    assert sorted(os.listdir(tmp_path)) == sorted([main.name, picture.name])
    back = read_image(main).pixels
    assert back.dtype == (pixels.dtype if suffix == ".png" else np.float32)
    assert back.shape == pixels.shape
    np.testing.assert_allclose(back, pixels, rtol=0, atol=1e-6)
    with PIL.Image.open(picture) as opened:
        assert opened.size[1] == 12 + 22


def test_an_id_with_slashes_is_one_file(tmp_path: Path) -> None:
    result = run(first, grey("uint8", 0, 255), grey("uint8", 0, 255))
    odd = FusedImage(**{**vars(result), "id": "../case/1\\2"})
    main, _ = fuse.save(odd, tmp_path / "out")
    assert main.parent == tmp_path / "out" and main.name.startswith("_case_1_2-")
    assert main.is_file()
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("written", [0, 1])
def test_a_failure_while_saving_leaves_no_half_file(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the first or at the second of the two files; both were there before."""
    source = grey("uint8", 0, 255)
    old = fuse.save(run(first, source, source), tmp_path)
    before = [path.read_bytes() for path in old]
    original = PIL.Image.Image.save
    left = written

    def full_disk(self: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            original(self, file, *args, **kwargs)
        else:
            Path(file).write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(PIL.Image.Image, "save", full_disk)
    other = run(first, source[::-1], source)
    with pytest.raises(UserError, match="No space left"):
        fuse.save(other, tmp_path)
    with pytest.raises(UserError, match="No space left"):
        fuse.gallery([{"x": other}], tmp_path / "gallery.png")
    unchanged = [path.read_bytes() == content for path, content in zip(old, before, strict=True)]
    assert unchanged == [written == 0, True]
    assert sorted(path.name for path in old) == sorted(os.listdir(tmp_path))


def test_side_by_side_holds_each_view_under_its_caption() -> None:
    views = {name: np.full((30, 60, 3), value, np.uint8) for name, value in (("ct", 10), ("mri", 90), ("", 200))}
    picture = fuse.side_by_side(views)
    assert picture.shape == (22 + 30, 3 * 60 + 2 * 4, 3)
    captions = []
    for index, value in enumerate((10, 90, 200)):
        left = index * 64
        assert (picture[22:, left : left + 60] == value).all()
        captions.append(picture[:22, left : left + 60])
    assert (picture[:, 60:64] == 255).all()
    assert captions[0].min() < 100  # black letters
    assert not np.array_equal(captions[0], captions[1])
    assert (captions[2] == 255).all()
    ink = np.nonzero((captions[1] < 128).any(axis=(0, 2)))[0]
    assert abs((ink[0] + ink[-1]) / 2 - 29.5) < 2  # centred


def test_a_long_caption_is_not_cut() -> None:
    """A picture of 20 pixels gets white borders; the letters are those of a picture with room."""
    name = "without_cmca"
    narrow, wide = (fuse.side_by_side({name: np.zeros((9, width, 3), np.uint8)}) for width in (20, 200))
    assert (narrow[22:].min(axis=(0, 2)) == 0).sum() == 20
    assert (narrow[22:, [0, -1]] == 255).all()
    ink = [(picture[:22] < 128).all(axis=2).any(axis=0) for picture in (narrow, wide)]
    lengths = [int(np.ptp(np.nonzero(columns)[0])) for columns in ink]
    assert abs(lengths[0] - lengths[1]) <= 1


def test_views_show_the_sources_and_the_result(heads: dict[str, np.ndarray]) -> None:
    deep = grey("uint16", 0, 65535, shape=(64, 64))
    result = run(first, heads["SPECT"], deep)
    assert list(result.views) == ["a", "b", "fused"]
    assert np.array_equal(result.views["a"], heads["SPECT"])
    assert np.array_equal(result.views["fused"], result.pixels)
    for channel in range(3):
        assert np.array_equal(result.views["b"][..., channel], np.rint(deep / 257).astype(np.uint8))


def test_gallery_has_a_row_per_pair(heads: dict[str, np.ndarray], tmp_path: Path) -> None:
    wide = run(first, heads["CT"], heads["MRI"])
    narrow = run(second, heads["SPECT"][:, :40], heads["MRI"][:, :40])
    fuse.gallery([{"ours": wide, "plain": narrow}, {"ours": narrow}], tmp_path / "new" / "g.png")
    with PIL.Image.open(tmp_path / "new" / "g.png") as opened:
        picture = np.asarray(opened)
    assert picture.shape == (2 * (22 + 64 + 4), (64 * 3 + 40) + 3 * 4, 3)
    assert np.array_equal(picture[22:86, :64], wide.views["a"])
    assert np.array_equal(picture[22:86, 136:200], wide.views["fused"])
    assert np.array_equal(picture[22:86, 204:244], narrow.views["fused"])
    assert np.array_equal(picture[112:176, 88:128], narrow.views["fused"])
    assert (picture[90:, 128:] == 255).all()
    with pytest.raises(UserError, match="no pair"):
        fuse.gallery([], tmp_path / "empty.png")


# ---- scores


@pytest.mark.parametrize("pair", [("CT", "MRI"), ("SPECT", "MRI")])
def test_scores_are_those_of_the_stored_pixels(pair: tuple[str, str], tmp_path: Path) -> None:
    """For grey pairs to the last bit; the luminance of a colour picture, in whole thousandths, nearly so."""
    heads = harvard.render(2, slices=1, size=176)[0]  # five scales of the multi-scale SSIM need 161 pixels
    result = run(fuse.BASELINES["maximum"], heads[pair[0]], heads[pair[1]])
    main, _ = fuse.save(result, tmp_path)
    with PIL.Image.open(main) as opened:
        stored = np.asarray(opened).astype(np.float64)

    def luminance(pixels: np.ndarray) -> np.ndarray:
        values = pixels.astype(np.float64)
        return values if values.ndim == 2 else values @ np.array([299.0, 587.0, 114.0]) / 1000

    scores = fuse.score(result)
    assert list(scores) == list(METRICS) == list(fuse.metrics())
    assert {name: metric.better for name, metric in METRICS.items()} == fuse.metrics()
    for name, metric in METRICS.items():
        expected = metric.function(luminance(stored), luminance(heads[pair[0]]), luminance(heads[pair[1]]))
        tolerance = 0 if pair[0] == "CT" else 1e-4
        assert scores[name] == pytest.approx(expected, rel=tolerance, abs=0), name


# ---- settings


def test_fractions_must_leave_something_to_train_on() -> None:
    assert PairSettings(val_fraction=0.2, test_fraction=0.3).fractions == pytest.approx(
        {"train": 0.5, "val": 0.2, "test": 0.3}
    )
    with pytest.raises(UserError, match="nothing to train on"):
        _ = PairSettings(val_fraction=0.5, test_fraction=0.5).fractions


@pytest.mark.parametrize("pair", ["CT", "CT-", "-MRI", "CT-MRI-PET", "CT--MRI", ""])
def test_a_pair_is_two_names(pair: str) -> None:
    with pytest.raises(ValueError, match="two modalities"):
        PairSettings(pair=pair)
    assert PairSettings(pair="SPECT-MRI").modalities == ("spect", "mri")
