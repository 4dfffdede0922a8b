"""Head phantoms: registered, complementary, continuous, reproducible, and read back by the adapter."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from opening import open_pairs
from scanfuse import config
from scanfuse.data import synthetic
from scanfuse.data.inputs.image_pairs import ImagePairDataset
from scanfuse.data.readers import read_image
from scanfuse.data.synthetic import harvard
from scanfuse.data.synthetic._head import draw_case, tissue_fractions
from scanfuse.errors import UserError


def test_listed_by_file_name() -> None:
    assert "harvard" in synthetic.names() and not any(name.startswith("_") for name in synthetic.names())
    assert synthetic.load("harvard") is harvard
    with pytest.raises(UserError, match=r"Unknown phantom 'no'; choose .*harvard"):
        synthetic.load("no")


def test_layout_is_read_back_and_split_by_case(tmp_path: Path) -> None:
    harvard.write(tmp_path / "a", harvard.Options(cases=7, slices=3, size=32))
    harvard.write(tmp_path / "b", harvard.Options(pair="mri-spect", cases=3, slices=1, size=32))
    manifest = open_pairs(tmp_path / "a", ("CT", "MRI"))
    assert manifest.table["id"].tolist()[:4] == ["1005", "1006", "1007", "2005"]
    assert len(manifest) == 21 and manifest.table["group"].nunique() == 7
    assert manifest.table.groupby("group")["split"].nunique().max() == 1
    assert open_pairs(tmp_path / "a", ("CT", "MRI"), split="published").is_leaky
    images = ImagePairDataset(open_pairs(tmp_path / "b", ("SPECT", "MRI")))[0]["meta"]["images"]
    assert images["mri"].pixels.shape == (32, 32) and images["spect"].pixels.shape == (32, 32, 3)
    assert all(image.pixels.dtype == np.uint8 for image in images.values())
    assert "no patients" in (tmp_path / "a" / "CT-MRI" / "ABOUT.txt").read_text()


def test_same_seed_same_bytes_other_seed_other_heads(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        harvard.write(tmp_path / name, harvard.Options(cases=2, slices=2, size=32, seed=seed))
    files = {
        name: {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.png")}
        for name in "abc"
    }
    assert files["a"] == files["b"] and len(files["a"]) == 8
    assert set(files["a"]) == set(files["c"])
    assert all(files["a"][name] != files["c"][name] for name in files["a"])
    assert len(set(files["a"].values())) == 8


def test_a_picture_does_not_depend_on_what_else_is_asked_for() -> None:
    alone = harvard.render(5, slices=2, size=32, modalities=["MRI"])
    with_others = harvard.render(5, slices=2, size=32)
    for one, other in zip(alone, with_others, strict=True):
        np.testing.assert_array_equal(one["MRI"], other["MRI"])


def inside_skull(mask: np.ndarray) -> np.ndarray:
    """What a closed ring encloses: the largest hole."""
    holes, count = ndimage.label(~mask)
    sizes = ndimage.sum_labels(np.ones_like(holes), holes, range(1, count + 1))
    border = set(np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])))
    best = max((size, label) for label, size in enumerate(sizes, start=1) if label not in border)
    return ndimage.binary_fill_holes(holes == best[1])


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    joint = np.histogram2d(a.ravel(), b.ravel(), bins=32)[0] / a.size
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / independent[filled])).sum())


@pytest.mark.parametrize("number", range(1, 8))
def test_registered_across_modalities(number: int) -> None:
    """CT and MRI share the most information where neither is shifted; the uptake lies in the brain."""
    picture = harvard.render(number, slices=3, size=128)[1]
    bone = picture["CT"] > 200
    steps = (-4, -2, -1, 0, 1, 2, 4)
    shifts = [(down, right) for down in steps for right in steps]
    shared = [mutual_information(np.roll(picture["CT"], shift, axis=(0, 1)), picture["MRI"]) for shift in shifts]
    assert np.hypot(*shifts[int(np.argmax(shared))]) <= 1
    brain = inside_skull(bone)
    uptake = picture["SPECT"].astype(float).sum(axis=-1)
    apart = np.subtract(ndimage.center_of_mass(uptake), ndimage.center_of_mass(brain))
    assert np.hypot(*apart) < 4
    assert uptake[brain].mean() > 12 * uptake[~ndimage.binary_dilation(brain, iterations=8)].mean()


@pytest.mark.parametrize("number", range(1, 7))
def test_tissues_add_up_and_bone_closes(number: int) -> None:
    case = draw_case(np.random.default_rng([0, number]), 4)
    for level in case.levels:
        shares = tissue_fractions(case, level, 128)
        total = np.sum(list(shares.values()), axis=0)
        np.testing.assert_allclose(total, 1, atol=1e-9)
        assert all(share.min() >= -1e-12 for share in shares.values())
        bone = shares["bone"] + shares.get("diploe", 0) > 0.5
        enclosed = inside_skull(bone).sum() * (240 / 128) ** 2 / 100
        assert 60 < enclosed < 220  # cm2; an adult's skull encloses about 90 to 190 in these slices
        brain = shares["grey"] + shares["white"]
        assert 0.3 < shares["grey"].sum() / brain.sum() < 0.8


def test_modalities_complement_each_other() -> None:
    """Bone is bright in CT and dark in MRI; grey and white matter differ more in MRI than CT noise allows."""
    for number in range(1, 9):
        case = draw_case(np.random.default_rng([0, number]), 3)
        shares = tissue_fractions(case, case.levels[1], 128)
        picture = harvard.render(number, slices=3, size=128)[1]
        grey, white = shares["grey"] > 0.9, shares["white"] > 0.9
        bone = shares["bone"] + shares["diploe"] > 0.8
        assert picture["CT"][bone].mean() > 240
        assert picture["MRI"][bone].mean() < 0.8 * picture["MRI"][grey].mean()
        apart = {}
        for name in ("CT", "MRI"):
            pixels = picture[name].astype(float)
            apart[name] = abs(pixels[grey].mean() - pixels[white].mean()) / pixels[white].std()
        assert apart["MRI"] > 1.2 * apart["CT"]
        uptake = picture["SPECT"].astype(float).sum(axis=-1)
        assert uptake[grey].mean() > 1.15 * uptake[white].mean()


def test_neighbouring_slices_resemble_each_other_more_than_other_heads() -> None:
    heads = [[slices["MRI"].astype(float) for slices in harvard.render(n, slices=3, size=64)] for n in range(1, 9)]

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    within = [correlation(head[0], head[1]) for head in heads]
    between = [correlation(heads[i][0], heads[j][0]) for i in range(8) for j in range(i)]
    assert np.mean(within) > np.mean(between) + 0.08
    assert max(between) < 0.97 and min(within) > 0.6


def test_lesions_show_in_one_modality_more_than_in_the_other() -> None:
    """Contrast to white matter: fresh blood and calcium stand out in CT, infarcts and plaques in MRI."""
    better = {"haemorrhage": "CT", "calcification": "CT", "infarct": "MRI", "plaque": "MRI"}
    tissue = {"haemorrhage": "blood", "calcification": "calcium", "infarct": "infarct", "plaque": "oedema"}
    seen: dict[str, int] = {}
    for number in range(1, 60):
        case = draw_case(np.random.default_rng([0, number]), 3)
        kind = case.lesions[0].kind if case.lesions else "none"
        seen[kind] = seen.get(kind, 0) + 1
        if kind not in better or seen[kind] > 3:
            continue
        pictures = harvard.render(number, slices=3, size=128, modalities=["CT", "MRI"])
        contrast = {"CT": 0.0, "MRI": 0.0}
        for level, picture in zip(case.levels, pictures, strict=True):
            shares = tissue_fractions(case, level, 128)
            lesion, white = shares.get(tissue[kind], np.zeros(1)) > 0.7, shares["white"] > 0.9
            if lesion.any():
                for name, pixels in picture.items():
                    apart = abs(float(pixels[lesion].mean()) - float(pixels[white].mean()))
                    contrast[name] = max(contrast[name], apart)
        if max(contrast.values()) > 0:  # a small one can miss every pixel
            assert max(contrast, key=lambda name: contrast[name]) == better[kind], (number, kind, contrast)
    assert set(seen) == {*better, "tumour", "none"}


def test_bad_requests() -> None:
    for options, text in (
        (
            {"pair": "CT-US"},
            "The setting 'pair' cannot be 'CT-US': value error, phantoms come as two of CT, MRI",
        ),
        ({"cases": 0}, "The setting 'cases' cannot be 0: input should be greater than or equal to 1."),
        ({"size": 16}, "The setting 'size' cannot be 16: input should be greater than or equal to 32."),
    ):
        with pytest.raises(UserError) as caught:
            config.build(harvard.Options, options)
        assert str(caught.value).startswith(text)


def test_false_colours_climb_in_brightness() -> None:
    """The luminance of the colour table rises wherever uptake is not faint, so that fusing Y keeps the order."""
    table = harvard._COLOURS
    luminance = table[:, 1:] @ [0.299, 0.587, 0.114]
    bright = luminance[table[:, 0] >= 0.35]
    assert (np.diff(bright) > 0).all() and luminance[0] == 0


@pytest.mark.data
def test_grey_levels_resemble_real_slices(real_data: Path) -> None:
    """Means over many slices of brain CT and MRI lie near each other, real and made up."""
    for name, low, high in (("CT", 0.5, 2.0), ("MRI", 0.5, 2.0)):
        files = sorted((real_data / "harvard/CT-MRI/train" / name).iterdir())[::6]
        real = np.mean([read_image(path).pixels.mean() for path in files])
        made = np.mean(
            [harvard.render(n, slices=1, size=64, modalities=[name])[0][name].mean() for n in range(1, 13)]
        )
        assert low < made / real < high
