"""Volumes in and out: orientation, affine, data type, scaling, range, boxes, grids; NIfTI files made by hand."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from scanfuse.data.readers.volume import (
    box_of,
    foreground,
    from_unit,
    mismatch,
    read_volume,
    resampled,
    to_unit,
    write_volume,
)
from scanfuse.errors import UserError

SPACING = (1.0, 2.0, 3.0)  # x, y, z in mm


def patient(dtype: str = "int16") -> np.ndarray:
    """(x to the left, y to the back, z up): value 100 x + 10 y + z + 1 within a frame of zeros."""
    x, y, z = np.meshgrid(np.arange(4), np.arange(5), np.arange(6), indexing="ij")
    inner = (100 * x + 10 * y + z + 1).astype(dtype)
    return np.pad(inner, 2)


def stored(path: Path, codes: str, dtype: str = "int16") -> Path:
    """The same patient in a file of another orientation."""
    array, affine = patient(dtype), np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = (7.0, -3.0, 11.0)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    image = nibabel.Nifti1Image(apply_orientation(array, turn), affine @ inv_ornt_aff(turn, array.shape))
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LAS", "PSR", "IRA"])
def test_every_orientation_is_seen_alike_and_goes_back_as_it_came(codes: str, tmp_path: Path) -> None:
    """Slices upwards, row 0 anterior, column 0 right: the patient's axes z, y, x as they are in `patient`."""
    path = stored(tmp_path / "a.nii.gz", codes)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.voxels, patient().transpose(2, 1, 0))
    assert volume.frame.orientation == codes
    assert volume.frame.spacing_mm == pytest.approx((3.0, 2.0, 1.0))
    changed = volume.voxels.copy()
    changed[4, 3, 5] = 777
    write_volume(tmp_path / "b.nii.gz", changed, volume)
    before, after = nibabel.load(path), nibabel.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(before.affine, after.affine)
    assert after.get_data_dtype() == before.get_data_dtype()
    assert after.header.get_xyzt_units() == before.header.get_xyzt_units()
    assert int(after.header["sform_code"]) == int(before.header["sform_code"])
    different = np.argwhere(np.asarray(before.dataobj) != np.asarray(after.dataobj))
    assert len(different) == 1 and np.asarray(after.dataobj)[tuple(different[0])] == 777
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii.gz").voxels, changed)


def test_two_orientations_of_one_patient_are_on_one_grid(tmp_path: Path) -> None:
    first, second = (read_volume(stored(tmp_path / f"{codes}.nii", codes)) for codes in ("LPS", "RAS"))
    assert mismatch(first, second) == ""


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_data_types_come_back(dtype: str, tmp_path: Path) -> None:
    volume = read_volume(stored(tmp_path / "a.nii.gz", "LPS", "int16" if dtype == "uint8" else dtype))
    image = nibabel.Nifti1Image((patient("int16") % 256).astype(dtype), np.eye(4))
    nibabel.save(image, tmp_path / "b.nii.gz")
    volume = read_volume(tmp_path / "b.nii.gz")
    write_volume(tmp_path / "c.nii.gz", volume.voxels, volume)
    again = nibabel.load(tmp_path / "c.nii.gz")
    assert again.get_data_dtype() == np.dtype(dtype)
    np.testing.assert_array_equal(np.asarray(again.dataobj), np.asarray(image.dataobj))


def test_scaled_integers_stay_integers_with_their_scaling(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.eye(4))
    image.header.set_data_dtype(np.int16)
    raw = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nibabel.Nifti1Image(raw, np.eye(4))
    image.header.set_slope_inter(0.5, -3.0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj).max() == 59 * 0.5 - 3
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.voxels.dtype == np.float32 and volume.voxels.max() == 26.5
    write_volume(tmp_path / "b.nii.gz", volume.voxels, volume)
    again = nibabel.load(tmp_path / "b.nii.gz")
    assert again.get_data_dtype() == np.int16
    assert (again.dataobj.slope, again.dataobj.inter) == (0.5, -3.0)
    np.testing.assert_array_equal(np.asarray(again.dataobj.get_unscaled()), raw)


def test_equal_voxels_are_equal_bytes(tmp_path: Path) -> None:
    volume = read_volume(stored(tmp_path / "a.nii.gz", "RAS"))
    for name in "bc":
        write_volume(tmp_path / f"{name}.nii.gz", volume.voxels, volume)
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()


def write(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def test_range_is_that_of_the_foreground_and_comes_back(tmp_path: Path) -> None:
    """Background 0, values -50 to 150 inside, one outlier: percentiles cut it, background stays background."""
    array = np.zeros((12, 12, 12), np.int16)
    inner = np.linspace(-50, 150, 512).round().astype(np.int16)
    inner[inner == 0] = 1
    array[2:10, 2:10, 2:10] = inner.reshape(8, 8, 8)
    array[5, 5, 5] = 30_000
    volume = read_volume(write(tmp_path / "a.nii.gz", array), percentiles=(1, 99))
    low, high = np.percentile(array[array != 0], (1, 99))
    assert (volume.low, volume.high, volume.background) == (pytest.approx(low), pytest.approx(high), 0.0)
    unit = to_unit(volume)
    assert unit.dtype == np.float32 and unit.min() == 0 and unit.max() == 1
    assert not unit[volume.voxels == 0].any()
    inside = foreground(volume)
    back = from_unit(unit, volume, inside)
    assert back.dtype == np.int16 and (back[~inside] == 0).all()
    kept = inside & (volume.voxels > low) & (volume.voxels < high)
    np.testing.assert_array_equal(back[kept], volume.voxels[kept])
    assert box_of(inside) == (slice(2, 10),) * 3
    with pytest.raises(ValueError, match="not finite"):
        from_unit(np.full(unit.shape, np.nan), volume)


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_volume_is_zero_and_its_box_the_whole(value: int, tmp_path: Path) -> None:
    volume = read_volume(write(tmp_path / "a.nii.gz", np.full((3, 4, 5), value, np.int16)))
    assert not to_unit(volume).any() and volume.background is None
    assert box_of(foreground(volume)) == (slice(0, 5), slice(0, 4), slice(0, 3))
    assert (from_unit(to_unit(volume), volume) == value).all()


def test_a_volume_without_a_background_keeps_its_borders(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 1000, (6, 7, 8)).astype(np.int16)
    volume = read_volume(write(tmp_path / "a.nii.gz", array))
    assert volume.background is None and foreground(volume).all()


def test_not_a_number_becomes_zero(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((5, 5, 5)).astype(np.float32)
    array[0, 0, 0], array[1, 1, 1] = np.nan, np.inf
    unit = to_unit(read_volume(write(tmp_path / "a.nii.gz", array)))
    assert np.isfinite(unit).all() and unit[0, 4, 4] == 0  # the affine is RAS: x and y are turned


def test_different_grids_are_told_by_how_much(tmp_path: Path) -> None:
    array = np.pad(np.random.default_rng(0).integers(1, 9, (4, 4, 4)), 2).astype(np.int16)
    first = read_volume(write(tmp_path / "a.nii.gz", array))
    shifted = np.eye(4)
    shifted[0, 3] = 2.5
    other = read_volume(write(tmp_path / "b.nii.gz", array, shifted))
    assert mismatch(first, other) == "the affines put the same voxel up to 2.5 mm apart"
    nearly = np.eye(4)
    nearly[0, 3] = 0.001
    assert mismatch(first, read_volume(write(tmp_path / "c.nii.gz", array, nearly))) == ""
    smaller = read_volume(write(tmp_path / "d.nii.gz", array[:-1]))
    assert "8 x 8 x 8 and 8 x 8 x 7 voxels" in mismatch(first, smaller)


def test_resampling_puts_a_shifted_volume_back(tmp_path: Path) -> None:
    """Shifted by two voxels: without interpolation, what is in both comes to lie where the first has it."""
    array = np.pad(np.random.default_rng(0).integers(1, 900, (6, 6, 6)), 3).astype(np.int16)
    first = read_volume(write(tmp_path / "a.nii.gz", array))
    affine = np.eye(4)
    affine[2, 3] = -2.0
    moved = read_volume(write(tmp_path / "b.nii.gz", np.roll(array, 2, axis=2), affine))
    found = resampled(moved, first)
    assert mismatch(first, found) == "" and found.voxels.dtype == np.int16
    np.testing.assert_array_equal(found.voxels, first.voxels)


def test_what_is_no_volume_is_refused_in_one_line(tmp_path: Path) -> None:
    array = np.zeros((4, 4, 4), np.int16)
    cases = {
        "series.nii.gz": ("holds 3 volumes", np.zeros((4, 4, 4, 3), np.int16), None),
        "flat.nii.gz": ("which way its axes point", array, np.diag([1, 1, 1e-12, 1])),
    }
    for name, (message, content, affine) in cases.items():
        path = write(tmp_path / name, content, affine)
        with pytest.raises(UserError, match=message) as caught:
            read_volume(path)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(gzip.compress(b"nothing of the kind" * 50))
    for path in (broken, tmp_path / "absent.nii.gz", tmp_path):
        with pytest.raises(UserError) as caught:
            read_volume(path)
        assert "\n" not in str(caught.value)
    picture = tmp_path / "a.png"
    picture.write_bytes(b"x")
    with pytest.raises(UserError, match=r"give a \.nii or \.nii\.gz"):
        read_volume(picture)


@pytest.mark.data
def test_the_real_case_comes_back_as_it_was(real_data: Path, tmp_path: Path) -> None:
    for path in sorted((real_data / "brats").rglob("*_t1ce.nii.gz")):
        volume = read_volume(path)
        assert volume.size == (155, 240, 240) and volume.frame.orientation == "LPS" and volume.background == 0
        assert volume.voxels.min() < 0
        depth, height, width = box_of(foreground(volume))
        assert (depth.stop - depth.start) * (height.stop - height.start) * (width.stop - width.start) < 4_500_000
        write_volume(tmp_path / "again.nii.gz", volume.voxels, volume)
        before, after = nibabel.load(path), nibabel.load(tmp_path / "again.nii.gz")
        np.testing.assert_array_equal(before.affine, after.affine)
        np.testing.assert_array_equal(np.asarray(before.dataobj), np.asarray(after.dataobj))
        assert before.get_data_dtype() == after.get_data_dtype()
