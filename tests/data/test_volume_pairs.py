"""Pairs of volumes as samples: patches, boxes, grids that differ, volumes given by hand."""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch

from scanfuse.data.inputs.volumes import VolumePairs, VolumeSettings
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError


def write(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1, 1, 1]) if affine is None else affine), path)
    return path


def ramp(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) + 1).astype(np.int16)


def kind(**settings: object) -> VolumePairs:
    return VolumePairs(VolumeSettings(**{"pair": "A-B", "percentiles": (0, 100), **settings}), seed=3)


def manifest_of(a: Path, b: Path, rows: int = 1) -> Manifest:
    table = pd.DataFrame(
        {"id": [str(n) for n in range(rows)], "group": "g", "split": "train", "target": "", "a": str(a), "b": str(b)}
    )
    return Manifest(table, ("a", "b"))


def test_patches_are_cut_from_both_at_one_place_around_the_foreground(tmp_path: Path) -> None:
    """b = 2 a + 5: after scaling both patches are equal, whatever was cut; all voxels of a differ, so places show."""
    array = np.pad(ramp(9, 8, 7), 4)
    other = np.where(array > 0, 2 * array + 5, 0).astype(np.int16)
    manifest = manifest_of(write(tmp_path / "a.nii.gz", array), write(tmp_path / "b.nii.gz", other), 2)
    data = kind(patch=4, patches=20).dataset(manifest, train=True)
    assert len(data) == 40 and data.row(19).id == "0" and data.row(20).id == "1"
    places = set()
    for index in range(20):
        sample = data[index]
        assert sample["a"].shape == (1, 4, 4, 4) and sample["meta"]["volumes"] == {}
        torch.testing.assert_close(sample["a"], sample["b"], rtol=0, atol=2e-3)
        assert (sample["a"] > 0).any()
        places.add(float(sample["a"].sum()))
    assert len(places) > 15
    data.set_epoch(1)
    assert not torch.equal(data[0]["a"], kind(patch=4, patches=20).dataset(manifest, train=True)[0]["a"])


@pytest.mark.parametrize("cache_mb", [0.0, 100.0])
def test_the_cache_changes_no_value(cache_mb: float, tmp_path: Path) -> None:
    manifest = manifest_of(*(write(tmp_path / f"{n}.nii", np.pad(ramp(9, 8, 7), 2)) for n in "ab"))
    data, without = (
        kind(patch=6, cache_mb=size, flips=True).dataset(manifest, train=True) for size in (cache_mb, 0.0)
    )
    for index in (0, 1, 0):
        assert torch.equal(data[index]["a"], without[index]["a"])


def test_a_patch_larger_than_the_brain_is_extended_by_zeros(tmp_path: Path) -> None:
    array = np.pad(ramp(3, 4, 5), 2)
    manifest = manifest_of(*(write(tmp_path / f"{n}.nii", array) for n in "ab"))
    sample = kind(patch=8).dataset(manifest, train=True)[0]
    assert sample["a"].shape == (1, 8, 8, 8)
    assert int((sample["a"] > 0).sum()) == 3 * 4 * 5 - 1  # the smallest value maps to 0


def test_flips_are_left_right_and_of_both(tmp_path: Path) -> None:
    array = ramp(8, 8, 8)
    manifest = manifest_of(*(write(tmp_path / f"{n}.nii", array) for n in "ab"))
    plain, flipped = (kind(patch=8, patches=30, flips=flips).dataset(manifest, train=True) for flips in (False, True))
    turned = 0
    for index in range(30):
        one, two = plain[index], flipped[index]
        assert torch.equal(two["a"], two["b"])
        if not torch.equal(one["a"], two["a"]):
            assert torch.equal(one["a"].flip(3), two["a"])
            turned += 1
    assert 5 < turned < 25


def test_whole_volumes_have_their_box_and_keep_their_volumes(tmp_path: Path) -> None:
    """The box holds what either volume has: x (columns) from the first, z (slices) from the second."""
    first, second = np.zeros((9, 9, 9), np.int16), np.zeros((9, 9, 9), np.int16)
    first[2:4, 3, 3], second[3, 3, 2:7] = 5, 6
    first[2, 3, 3] = second[3, 3, 2] = 4
    manifest = manifest_of(write(tmp_path / "a.nii", first), write(tmp_path / "b.nii", second))
    sample = kind().dataset(manifest, train=False)[0]
    assert sample["meta"]["box"] == (slice(2, 7), slice(3, 4), slice(2, 4))
    assert sample["a"].shape == (1, 9, 9, 9)
    assert sample["meta"]["volumes"]["b"].source.name == "b.nii"


def test_other_grids_are_refused_with_a_number_or_resampled(tmp_path: Path) -> None:
    array = np.pad(ramp(6, 6, 6), 3)
    moved = np.diag([-1.0, -1, 1, 1])
    moved[2, 3] = -2
    a, b = write(tmp_path / "a.nii", array), write(tmp_path / "b.nii", np.roll(array, 2, axis=2), moved)
    with pytest.raises(
        UserError, match=r"a\.nii and .*b\.nii are not on one grid: .* up to 2 mm apart; .*--resample"
    ):
        kind().dataset(manifest_of(a, b), train=False)[0]
    found, *copies = kind().check(_folders(tmp_path / "pairs", a, b))
    assert found.severity == "error" and "2 mm apart" in found.message
    assert {finding.kind for finding in copies} == {"duplicate"}
    sample = kind(resample=True).dataset(manifest_of(a, b), train=False)[0]
    assert torch.equal(sample["a"], sample["b"])
    smaller = write(tmp_path / "c.nii", array[1:])
    with pytest.raises(UserError, match="12 x 12 x 12 and 12 x 12 x 11 voxels"):
        kind().dataset(manifest_of(a, smaller), train=False)[0]


def _folders(root: Path, a: Path, b: Path) -> Path:
    for name, path in (("A", a), ("B", b)):
        for number in "123":
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / f"{number}.nii").write_bytes(path.read_bytes())
    for number in "23":
        (root / "B" / f"{number}.nii").write_bytes(a.read_bytes())
    return root


def test_arrays_and_nibabel_images_are_samples_too(tmp_path: Path) -> None:
    array = np.pad(ramp(4, 5, 6), 1)
    path = write(tmp_path / "a.nii.gz", array)
    by_path = kind().sample({"a": path, "b": path})
    by_image = kind().sample({"a": nibabel.load(path), "b": nibabel.load(path)})
    by_array = kind().sample({"a": array.transpose(2, 1, 0), "b": array.transpose(2, 1, 0)})
    assert torch.equal(by_path["a"], by_image["a"]) and torch.equal(by_path["a"], by_array["a"])
    assert by_path["meta"]["id"] == "a"
    with pytest.raises(UserError, match=r"shape \(4, 5\)"):
        kind().sample({"a": np.zeros((4, 5)), "b": path})
    with pytest.raises(UserError, match="is a int"):
        kind().sample({"a": 5, "b": path})


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"pair": "T1"}, {"percentiles": (60, 40)}, {"layout": "harvard"}, {"patch": 3}):
        with pytest.raises(ValueError):
            VolumeSettings(**wrong)


def test_volumes_of_different_size_cannot_be_one_batch(tmp_path: Path) -> None:
    pairs = kind()
    samples = [pairs.sample({"a": x, "b": x}) for x in (ramp(4, 5, 6), ramp(4, 5, 7))]
    with pytest.raises(UserError, match="4 x 5 x 6 and 4 x 5 x 7 voxels"):
        pairs.collate(samples)
