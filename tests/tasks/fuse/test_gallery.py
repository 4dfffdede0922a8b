"""Pictures of fused images."""

import numpy as np
from fusing import first, grey, run, second

from scanfuse.data.synthetic import harvard
from scanfuse.tasks.fuse.gallery import gallery, side_by_side


def test_side_by_side_holds_each_view_under_its_caption() -> None:
    views = {name: np.full((30, 60, 3), value, np.uint8) for name, value in (("ct", 10), ("mri", 90), ("", 200))}
    picture = side_by_side(views)
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
    narrow, wide = (side_by_side({name: np.zeros((9, width, 3), np.uint8)}) for width in (20, 200))
    assert (narrow[22:].min(axis=(0, 2)) == 0).sum() == 20
    assert (narrow[22:, [0, -1]] == 255).all()
    ink = [(picture[:22] < 128).all(axis=2).any(axis=0) for picture in (narrow, wide)]
    lengths = [int(np.ptp(np.nonzero(columns)[0])) for columns in ink]
    assert abs(lengths[0] - lengths[1]) <= 1


def test_gallery_has_a_row_per_pair_and_small_pictures_are_doubled() -> None:
    heads = harvard.render(1, slices=1, size=64)[0]
    wide = run(first, heads["CT"], heads["MRI"])
    narrow = run(second, heads["SPECT"][:, :40], heads["MRI"][:, :40])
    picture = gallery([{"ours": wide, "plain": narrow}, {"ours": narrow}])
    assert picture.shape == (2 * (22 + 128 + 4), (128 * 3 + 80) + 3 * 4, 3)

    def doubled(view: np.ndarray) -> np.ndarray:
        return view.repeat(2, axis=0).repeat(2, axis=1)

    assert np.array_equal(picture[22:150, :128], doubled(wide.views["a"]))
    assert np.array_equal(picture[22:150, 264:392], doubled(wide.views["fused"]))
    assert np.array_equal(picture[22:150, 396:476], doubled(narrow.views["fused"]))
    assert np.array_equal(picture[176:304, 168:248], doubled(narrow.views["fused"]))
    assert (picture[154:, 248:] == 255).all()


def test_large_pictures_stay_as_they_are() -> None:
    large = run(first, *(grey("uint8", 0, 255, seed=seed, shape=(120, 130)) for seed in (0, 1)))
    picture = gallery([{"ours": large}])
    assert np.array_equal(picture[22:142, :130], large.views["a"])
