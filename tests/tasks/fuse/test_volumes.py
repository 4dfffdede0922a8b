"""Volumes as a medium of fusion: windows, pictures, metrics, and results in the range of their reference."""

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from scanfuse.data.inputs.volumes import VolumePairs, VolumeSettings
from scanfuse.metrics.fusion import METRICS, score
from scanfuse.metrics.fusion.volume import MOST_SLICES, score_volume
from scanfuse.tasks.fuse import Fusion
from scanfuse.tasks.fuse.loss import FusionLoss, fusion_loss
from scanfuse.tasks.fuse.planes import disagreement, planes
from scanfuse.tasks.fuse.sliding import sliding, starts
from scanfuse.tasks.fuse.volumes import FusedVolume, Volumes

PAIR = ("a", "b")
PAIRS = VolumePairs(VolumeSettings(pair="A-B", percentiles=(0, 100)), seed=0)
TASK = Fusion(PAIR, loss=FusionLoss(), medium=Volumes())


def brain(seed: int, low: int, high: int, dtype: str = "int16", sides: tuple[int, ...] = (13, 14, 15)) -> np.ndarray:
    """(D, H, W): random values that reach both ends, within a frame of two zeros."""
    values = np.random.default_rng(seed).integers(low, high + 1, sides)
    values[values == 0] = 1
    values.flat[:2] = low, high
    return np.pad(values, 2).astype(dtype)


def batch_of(a: Any, b: Any) -> dict[str, Any]:
    return PAIRS.collate([PAIRS.sample({"a": a, "b": b}, id="case/1")])


def run(a: Any, b: Any, fuser: Any) -> FusedVolume:
    batch = batch_of(a, b)
    (found,) = TASK.results(lambda each: fuser(each["a"], each["b"]), batch)
    return found


@pytest.mark.parametrize(
    ("side", "window", "shared"), [(100, 40, 10), (41, 40, 0), (40, 40, 20), (7, 4, 2), (1, 8, 4)]
)
def test_windows_cover_every_side_and_overlap_as_asked(side: int, window: int, shared: int) -> None:
    found = starts(side, window, shared)
    assert found[0] == 0 and found[-1] == max(0, side - window)
    assert all(later - earlier <= window - shared for earlier, later in itertools.pairwise(found))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("sides", [(9, 20, 33), (40, 8, 8)], ids=str)
def test_what_acts_on_single_voxels_comes_out_as_from_the_whole(sides: tuple[int, ...], overlap: float) -> None:
    a, b = torch.rand(2, 1, 1, *sides, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen: list[tuple[int, ...]] = []

    def function(x: Tensor, y: Tensor) -> Tensor:
        seen.append(tuple(x.shape[2:]))
        return x * y + 1

    torch.testing.assert_close(sliding(function, (a, b), window=16, overlap=overlap), a * b + 1)
    assert len(seen) > 1 and all(max(shape) <= 16 for shape in seen)


def test_neighbours_are_cross_faded() -> None:
    """Windows that disagree (each gives its number): the result goes from one to the other in small steps."""
    numbers = iter(range(100))
    volume = torch.zeros(1, 1, 1, 1, 28)
    found = sliding(lambda x: torch.full_like(x, next(numbers)), (volume,), window=16, overlap=0.25).flatten()
    steps = found.diff()
    assert found[0] == 0 and found[-1] == 1
    assert (steps >= 0).all() and steps.max() < 0.4 and int((steps > 0).sum()) >= 4


def test_windows_that_cannot_be_are_refused() -> None:
    volume = torch.zeros(1, 1, 4, 4, 4)
    for window, overlap in ((0, 0.2), (4, 0.6)):
        with pytest.raises(ValueError, match="window is"):
            sliding(lambda x: x, (volume,), window=window, overlap=overlap)


def test_a_result_has_the_range_of_its_reference_and_its_background() -> None:
    a, b = brain(0, -40, 900), brain(1, 5, 80)
    assert np.array_equal(run(a, b, lambda x, y: x).voxels, a)
    by_other = run(a, b, lambda x, y: y)
    inside = a != 0
    expected = np.rint(-40 + (b[inside].astype(float) - 5) / 75 * 940)
    assert np.abs(by_other.voxels[inside] - expected).max() <= 1
    assert not by_other.voxels[~inside].any()
    assert by_other.voxels.dtype == np.int16 and by_other.box == (slice(2, 15), slice(2, 16), slice(2, 17))
    # The deeper one is the reference, whichever comes first.
    assert run(b.astype("uint8"), a, lambda x, y: y).voxels.dtype == np.int16


def test_the_background_of_both_stays_whatever_a_network_says() -> None:
    found = run(brain(0, 1, 9), brain(1, 1, 9), lambda x, y: torch.full_like(x, 0.5))
    assert not found.voxels[:2].any() and (found.voxels[2:15, 2:16, 2:17] == 5).all()


def test_plain_methods_are_plain_arithmetic() -> None:
    """On values scaled to [0, 1] each; both volumes have one range here."""
    a, b = brain(0, 1, 101), brain(1, 1, 101)
    found = {name: results[0].voxels for name, results in TASK.baselines(batch_of(a, b)).items()}
    assert list(found) == ["average", "maximum", "laplacian"]
    assert np.array_equal(found["maximum"], np.maximum(a, b))
    assert np.abs(found["average"] - (a.astype(float) + b) / 2).max() <= 0.5
    assert np.array_equal(TASK.baselines(batch_of(a, a))["laplacian"][0].voxels, a)


def test_the_loss_of_one_sample_is_that_within_its_box() -> None:
    batch = batch_of(brain(0, 1, 90), brain(1, 1, 90))
    outputs = torch.rand(batch["a"].shape, generator=torch.Generator().manual_seed(0))
    box = (..., *batch["meta"][0]["box"])
    expected = fusion_loss(outputs[box], batch["a"][box], batch["b"][box], FusionLoss())
    for name, value in TASK.loss(outputs, batch).items():
        assert torch.equal(value, expected[name]), name


def test_metrics_of_equal_slices_are_those_of_the_slice() -> None:
    random = np.random.default_rng(0)
    fused, a, b = random.integers(0, 256, (3, 24, 26)).astype(float)
    deep = [np.repeat(image[None], 12, axis=0) for image in (fused, a, b)]
    found, expected = score_volume(*deep), score(fused, a, b)
    assert list(found) == list(METRICS)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, nan_ok=True), name


def test_metrics_are_means_over_slices_that_hold_something() -> None:
    random = np.random.default_rng(1)
    fused, a, b = random.integers(0, 256, (3, 4, 20, 20)).astype(float)
    empty = np.zeros((9, 20, 20))
    found = score_volume(*(np.concatenate([empty, volume]) for volume in (fused, a, b)))
    each = [score(fused[index], a[index], b[index]) for index in range(4)]
    for name in ("qabf", "en", "sf", "fmi"):
        assert found[name] == pytest.approx(np.mean([row[name] for row in each])), name
    error = 4 / 13 * (np.mean((fused - a) ** 2) + np.mean((fused - b) ** 2)) / 2
    assert found["psnr"] == pytest.approx(10 * np.log10(255**2 / error))
    with pytest.raises(ValueError, match="one shape"):
        score_volume(fused, a, b[1:])


def test_slices_with_next_to_nothing_do_not_count() -> None:
    """Five voxels of three grey levels, as resampling leaves them beside a brain, weighed as much as its middle."""
    random = np.random.default_rng(2)
    fused, a, b = random.integers(1, 256, (3, 4, 20, 20)).astype(float)
    specks = np.zeros((2, 20, 20))
    specks[:, 3, 3:8] = 3
    nothing = np.zeros_like(specks)
    whole = score_volume(fused, a, b)
    grown = [np.concatenate([top, volume]) for top, volume in ((nothing, fused), (specks, a), (nothing, b))]
    found = score_volume(*grown)
    for name in METRICS.keys() - {"psnr", "ssim"}:
        assert found[name] == pytest.approx(whole[name], nan_ok=True), name
    # A twentieth of the fullest slice is enough: here 20 of 400 positions.
    specks[:, 4, :15] = 3
    grown = [np.concatenate([top, volume]) for top, volume in ((nothing, fused), (specks, a), (nothing, b))]
    assert score_volume(*grown)["qabf"] == pytest.approx(whole["qabf"] * 4 / 6, rel=0.01)
    # What counts is content, not brightness: alone they are all there is.
    assert score_volume(specks, specks, specks)["qabf"] > 0.97


def test_many_slices_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counted(fused: np.ndarray, *rest: Any) -> dict[str, float]:
        seen.append(int(fused[0, 0]))
        return dict.fromkeys(METRICS, 1.0)

    monkeypatch.setattr("scanfuse.metrics.fusion.volume.score", counted)
    volume = np.repeat(np.arange(1, 101.0), 16).reshape(100, 4, 4)
    assert score_volume(volume, volume, volume)["psnr"] == float("inf")
    assert len(seen) == MOST_SLICES and seen[0] == 1 and seen[-1] == 100
    assert {*np.diff(seen)} <= {4, 5}


def test_constant_and_thin_volumes_have_no_made_up_numbers() -> None:
    flat = np.full((12, 12, 12), 7.0)
    assert np.isnan(score_volume(flat, flat, flat)["cc"])
    thin = np.random.default_rng(0).integers(0, 256, (5, 30, 30)).astype(float)
    found = score_volume(thin, thin, thin)
    assert np.isnan(found["ssim"]) and found["psnr"] == float("inf")


def test_planes_show_the_patient_as_radiologists_do() -> None:
    """A bright voxel low, in front, at the patient's right: left in axial and coronal, low in the upright ones."""
    volume = np.zeros((6, 8, 10))
    volume[1, 2, 3] = 255
    box = (slice(0, 6), slice(0, 8), slice(0, 10))
    picture = planes(volume, [(1, 2, 3)], box=box, spacing_mm=(1.0, 1.0, 1.0))[..., 0]
    assert picture.shape == (8, 10 + 2 + 10 + 2 + 8)
    bright = [tuple(int(x) for x in place) for place in np.argwhere(picture)]
    # Heights 8, 6, 6: the lower two are centred, one row above and one below.
    assert sorted(bright) == sorted([(2, 3), (1 + 4, 12 + 3), (1 + 4, 24 + 2)])


def test_thick_slices_are_drawn_true_to_scale_and_the_box_is_cut() -> None:
    volume = np.ones((4, 6, 8)) * 100
    box = (slice(1, 3), slice(0, 6), slice(2, 8))
    picture = planes(volume, [(1, 1, 3), (2, 2, 2)], box=box, spacing_mm=(3.0, 1.0, 1.0))
    assert picture.shape == (6 + 2 + 6, 6 + 2 + 6 + 2 + 6, 3)
    assert (picture[:6, :6] == 100).all()


def test_the_largest_disagreement_is_found_beside_noise() -> None:
    a = np.random.default_rng(0).random((20, 20, 20)) * 50
    b = a.copy()
    b[12:16, 4:8, 9:13] += 120
    b[2, 2, 2] += 200
    depth, row, column = disagreement(a, b)
    assert 12 <= depth < 16 and 4 <= row < 8 and 9 <= column < 13


def test_files_of_a_result(tmp_path: Path) -> None:
    a, b = brain(0, -40, 900), brain(1, 5, 80)
    result = run(a, b, torch.maximum)
    main, picture = TASK.save(result, tmp_path)
    assert main.name.startswith("case_1-") and main.name.endswith(".nii.gz") and picture.name.endswith("_planes.png")
    image = nibabel.load(main)
    np.testing.assert_array_equal(np.asarray(image.dataobj), result.voxels.transpose(2, 1, 0))
    np.testing.assert_array_equal(image.affine, np.diag([-1.0, -1, 1, 1]))
    with PIL.Image.open(picture) as opened:
        assert opened.width > 3 * 13
    assert list(result.views) == ["a", "b", "fused"]
    assert not np.array_equal(result.views["a"], result.views["b"])
