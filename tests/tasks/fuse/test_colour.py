"""Colour and value range of a source: the split into luminance and chrominance, and the stretch."""

import numpy as np
import PIL.Image
import torch
from fusing import PAIR, batch_of, colour, grey, rgb_tensor

from scanfuse.tasks.fuse.colour import blend, join_colour, split_colour, stretch, to_plane
from scanfuse.tasks.fuse.images import Images


def test_colour_split_agrees_with_pillow_and_join_is_its_inverse() -> None:
    """Pillow cuts to whole numbers, in fixed point; its grey is 128."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    luminance, chroma = split_colour(rgb_tensor(pixels))
    pillow = np.asarray(PIL.Image.fromarray(pixels).convert("YCbCr")).astype(float)
    ours = [luminance[0, 0] * 255, *((chroma[0] - 0.5) * 255 + 128)]
    for plane, cut in zip(ours, np.moveaxis(pillow, 2, 0), strict=True):
        lost = plane.numpy() - cut
        assert -0.1 < lost.min() < lost.max() < 1.1
    assert 0 <= float(chroma.min()) < float(chroma.max()) <= 1
    torch.testing.assert_close(join_colour(luminance, chroma), rgb_tensor(pixels), atol=1e-12, rtol=0)


def test_joined_colours_outside_the_gamut_are_clipped() -> None:
    white_luminance, _ = split_colour(torch.ones(1, 3, 1, 1))
    _, red = split_colour(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1))
    joined = join_colour(white_luminance, red)
    # Red has luminance 0.299; at luminance 1 it is (1, 0, 0) + 0.701, of which R is too much.
    torch.testing.assert_close(joined.flatten(), torch.tensor([1.0, 0.701, 0.701]), atol=1e-6, rtol=0)


def test_opposite_tints_of_two_sources_weigh_by_their_distance_from_grey() -> None:
    """Cb of +0.3 and -0.1 from grey, weights 0.3 and 0.1: (0.3 * 0.3 - 0.1 * 0.1) / 0.4 = 0.2."""
    chromas = [torch.full((1, 2, 1, 1), 0.8), torch.full((1, 2, 1, 1), 0.4)]
    torch.testing.assert_close(blend(chromas), torch.full((1, 2, 1, 1), 0.7), atol=1e-5, rtol=0)


def test_a_crop_is_stretched_as_its_whole_image() -> None:
    a, b = grey("uint8", 20, 220), colour(4)
    b[0, 0], b[0, 1] = 3, 250
    batch = batch_of((a, b))
    whole = {name: to_plane(batch[name]).stretched for name in PAIR}
    for name in PAIR:
        assert torch.equal(stretch(batch, name), whole[name])
        batch[name] = batch[name][..., 4:10, 5:13]
        cut = stretch(batch, name)
        torch.testing.assert_close(cut, whole[name][..., 4:10, 5:13], atol=1e-6, rtol=0)
        assert float(cut.max() - cut.min()) < 0.999  # its own range would have filled [0, 1]


def test_every_sample_of_a_batch_has_its_own_stretch() -> None:
    """A grey sample that shares a batch with a coloured one has three equal channels."""
    pairs = [(grey("uint8", 0, 99), grey("uint8", 5, 50)), (colour(5), grey("uint8", 100, 255, seed=2))]
    batch = batch_of(*pairs)
    assert batch["a"].shape[1] == 3
    for name in PAIR:
        alone = torch.cat([stretch(batch_of(pair), name) for pair in pairs])
        torch.testing.assert_close(stretch(batch, name), alone, atol=1e-6, rtol=0)
    constant = batch_of((np.full((8, 8), 9, np.uint8), np.zeros((8, 8), np.float32)))
    assert not stretch(constant, "a").any()
    assert not stretch(constant, "b").any()


def test_a_pair_that_is_stretched_together_keeps_its_ratio_and_comes_back_on_its_scale() -> None:
    dim, bright = grey("uint8", 30, 130), grey("uint8", 10, 250, seed=1)
    medium = Images("pair")
    batch = batch_of((dim, bright))
    a, b = medium.sources(batch, PAIR)
    torch.testing.assert_close(a[0, 0] * 240 + 10, torch.from_numpy(dim).float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(b[0, 0] * 240 + 10, torch.from_numpy(bright).float(), atol=1e-3, rtol=0)
    for index, source in enumerate((dim, bright)):
        (result,) = medium.results((a, b)[index], batch, PAIR, learned=True)
        assert np.array_equal(result.pixels, source)


def test_colour_of_a_pair_that_is_stretched_together_may_get_as_bright_as_the_other_source() -> None:
    tinted = colour(4)
    dark = (tinted // 3).astype(np.uint8)
    bright = grey("uint8", 0, 255, shape=dark.shape[:2])
    found = []
    for mode in ("each", "pair"):
        medium = Images(mode)
        batch = batch_of((dark, bright))
        _, other = medium.sources(batch, PAIR)
        found.append(medium.results(other, batch, PAIR, learned=True)[0].luminance.max())
    assert found[0] < 100 < found[1]
