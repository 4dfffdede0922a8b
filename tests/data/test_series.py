"""A patient's slices in every form: what is read, in which order, and what is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_files import write as write_dicom
from PIL import Image

from scanfuse.data.readers.dicom_series import read_dicom_series
from scanfuse.data.series import Series, files_of, packed, read_scan, read_series
from scanfuse.data.synthetic import copd
from scanfuse.data.transforms.chest import evenly, lung_mask, lung_slices
from scanfuse.errors import UserError

STEP = 4.0


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DICOM series of one made-up chest, 24 slices."""
    options = copd.Options(patients=10, slices=24, size=96, form="dicom")
    return copd.write(tmp_path_factory.mktemp("raw") / "data", options) / "ct_raw" / "P00001"


def ramp(folder: Path, *, order: list[int], row: str = "1 0 0", column: str = "0 1 0", **tags: object) -> Path:
    """Six slices whose value says where they lie, named in some order; 8 x 6 pixels with a corner marked."""
    for number, place in enumerate(order):
        pixels = np.full((8, 6), 1024 + 10 * place, np.uint16)
        pixels[0, 0] = 2024
        write_dicom(
            folder / f"IM{number}.dcm",
            pixels,
            RescaleSlope="1",
            RescaleIntercept="-1024",
            Modality="CT",
            SeriesInstanceUID="1.2.3",
            PixelSpacing=["0.5", "2"],
            ImageOrientationPatient=[*row.split(), *column.split()],
            ImagePositionPatient=["0", "0", str(STEP * place)],
            **tags,
        )
    return folder


def test_slices_lie_in_the_order_of_space_whatever_they_are_called(tmp_path: Path) -> None:
    scan = read_scan(ramp(tmp_path, order=[3, 0, 5, 1, 4, 2]))
    assert scan.hu.shape == (6, 8, 6) and scan.hu.dtype == np.int16
    assert scan.hu[:, 4, 4].tolist() == [0, 10, 20, 30, 40, 50]
    assert scan.spacing_mm == pytest.approx((STEP, 0.5, 2.0))
    assert (scan.hu[:, 0, 0] == 1000).all()


@pytest.mark.parametrize(
    ("row", "column", "corner"),
    [("-1 0 0", "0 1 0", (0, -1)), ("1 0 0", "0 -1 0", (-1, 0)), ("-1 0 0", "0 -1 0", (-1, -1))],
)
def test_pictures_are_turned_to_one_orientation(
    row: str, column: str, corner: tuple[int, int], tmp_path: Path
) -> None:
    """Row 0 is anterior, column 0 the patient's right, the first slice the lowest."""
    scan = read_scan(ramp(tmp_path, order=[0, 1, 2, 3, 4, 5], row=row, column=column))
    assert (scan.hu[:, corner[0], corner[1]] == 1000).all() and int((scan.hu == 1000).sum()) == 6
    assert (np.diff(scan.hu[:, 4, 3]) == 10).all()


def test_a_nifti_volume_of_a_series_is_the_same_scan(raw: Path, tmp_path: Path) -> None:
    scan = read_scan(raw)
    spacing = scan.spacing_mm
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1])
    nibabel.save(nibabel.Nifti1Image(scan.hu.transpose(2, 1, 0), affine), tmp_path / "chest.nii.gz")
    other = read_scan(tmp_path / "chest.nii.gz")
    assert np.array_equal(other.hu, scan.hu) and other.spacing_mm == pytest.approx(spacing)
    one, two = (read_series(path, count=9, size=48) for path in (raw, tmp_path / "chest.nii.gz"))
    assert np.array_equal(one.values, two.values) and one.is_hu and one.lung is not None


def test_the_lungs_are_those_that_were_drawn() -> None:
    """By what the phantom knows; the windpipe and the edge may differ."""
    from scanfuse.data.readers.dicom_series import Scan
    from scanfuse.data.synthetic._chest import LUNG_MM, draw_chest, render

    for severity in (0.0, 0.9):
        random = np.random.default_rng(3)
        heights = np.linspace(LUNG_MM[0] - 30, LUNG_MM[1] + 20, 30)
        hu, drawn = render(random, draw_chest(random, severity), z_mm=heights, size=128, field_mm=360)
        scan = Scan(hu, (heights[1] - heights[0], 360 / 128, 360 / 128), Path("chest"))
        mask, step = lung_mask(scan)
        assert step == (1, 1, 1)
        overlap = 2 * (mask & drawn).sum() / (mask.sum() + drawn.sum())
        assert overlap > 0.95, overlap
        values, lung, place = lung_slices(scan, count=8, size=64)
        assert values.shape == lung.shape == (8, 64, 64) and place[0] == 0 and place[-1] == 1
        assert (np.diff(place) > 0).all() and 0.2 < lung[3:6].mean() < 0.8
        assert -920 < np.median(values[lung]) < -780
        few, _, _ = lung_slices(scan, count=500, size=32)
        assert len(few) <= len(heights)  # each slice once, none invented


def test_the_patient_is_not_stretched() -> None:
    """A round lung stays round where pixels are not square."""
    from scanfuse.data.readers.dicom_series import Scan

    _, y, x = np.mgrid[:20, :100, :200]
    ball = np.hypot((y - 50) * 2.0, (x - 100) * 1.0) < 60
    body = np.hypot((y - 50) * 2.0, (x - 100) * 1.0) < 90
    hu = np.where(ball, -850, np.where(body, 40, -1000)).astype(np.int16)
    values, lung, _ = lung_slices(Scan(hu, (10.0, 2.0, 1.0), Path("ball")), count=5, size=70)
    rows, columns = (np.flatnonzero(lung[2].any(axis=axis)) for axis in (1, 0))
    assert abs(len(rows) - len(columns)) <= 2 and abs(len(rows) - 60) <= 3
    assert values[2, 35, 35] == -850


def test_no_lung_is_one_line(tmp_path: Path) -> None:
    from scanfuse.data.readers.dicom_series import Scan

    _, y, x = np.mgrid[:20, :60, :60]
    belly = np.where(np.hypot(y - 30, x - 30) < 25, 40, -1000).astype(np.int16)
    with pytest.raises(UserError, match="no lungs were found"):
        lung_mask(Scan(belly, (5.0, 5.0, 5.0), tmp_path))


def test_forms_hold_the_same_slices(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    hu = random.integers(-1000, 100, (12, 16, 16)).astype(np.int16)
    (tmp_path / "slices").mkdir()
    for number, each in enumerate(hu):
        np.save(tmp_path / "slices" / f"slice_{number}.npy", each)
    np.save(tmp_path / "stack.npy", hu)
    place = np.linspace(0, 1, 12, dtype=np.float32)
    (tmp_path / "packed.npz").write_bytes(packed(Series(hu, True, hu < -500, place, tmp_path)))
    for name in ("slices", "stack.npy", "packed.npz"):
        found = read_series(tmp_path / name)
        assert found.is_hu and np.array_equal(found.values, hu), name  # slice_10 after slice_9
        assert np.allclose(found.place, place)
    assert np.array_equal(read_series(tmp_path / "packed.npz").lung, hu < -500)
    for dtype, most in ((np.uint8, 255), (np.uint16, 65535)):
        folder = tmp_path / np.dtype(dtype).name
        folder.mkdir()
        pixels = random.integers(0, most, (3, 16, 16)).astype(dtype)
        for number, each in enumerate(pixels):
            Image.fromarray(each).save(folder / f"slice_{number:03d}.png")
        found = read_series(folder)
        assert not found.is_hu and np.allclose(found.values, pixels / most)


def test_evenly_spaced_numbers() -> None:
    assert evenly(5, 30).tolist() == [0, 1, 2, 3, 4]
    assert evenly(31, 4).tolist() == [0, 10, 20, 30]
    assert evenly(9, 1).tolist() == [0]


def _pipe(folder: Path) -> Path:
    return folder / "nothing"


def _array(value: np.ndarray) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.save(folder / "stack.npy", value, allow_pickle=value.dtype == object)
        return folder / "stack.npy"

    return make


def _mixed(folder: Path) -> Path:
    np.save(folder / "a.npy", np.zeros((4, 4), np.int16))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "b.png")
    return folder


def _sizes(folder: Path) -> Path:
    for number, side in enumerate((4, 5)):
        np.save(folder / f"{number}.npy", np.zeros((side, 4), np.int16))
    return folder


def _npz(**content: np.ndarray) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.savez(folder / "a.npz", **content)  # type: ignore[arg-type]
        return folder / "a.npz"

    return make


def _cut(folder: Path) -> Path:
    np.savez(folder / "a.npz", ct=np.zeros((3, 4, 4), np.int16))
    content = (folder / "a.npz").read_bytes()
    (folder / "a.npz").write_bytes(content[: len(content) // 2])
    return folder / "a.npz"


def _twice(folder: Path) -> Path:
    ramp(folder, order=[0, 1, 2, 3])
    ramp(folder, order=[0, 1, 2, 2])
    return folder


def _gap(folder: Path) -> Path:
    return ramp(folder, order=[0, 1, 2, 5, 6, 7])


def _two_series(folder: Path) -> Path:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    ramp(folder / "a", order=[0, 1, 2, 3, 4, 5])
    ramp(folder / "b", order=[0, 1, 2, 3, 4, 5])
    for file in (folder / "b").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = "1.2.4"
        dataset.save_as(file)
    return folder


def _magnet(folder: Path) -> Path:
    ramp(folder, order=[0, 1, 2, 3, 4, 5])
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.Modality = "MR"
        dataset.save_as(file)
    return folder


def _no_place(folder: Path) -> Path:
    for number in range(4):
        write_dicom(folder / f"{number}.dcm", np.zeros((4, 4), np.uint16))
    return folder


def _beside(folder: Path) -> Path:
    ramp(folder, order=[0, 1, 2, 3, 4, 5])
    (folder / "notes.txt").write_text("x")
    return folder


HOSTILE: list[tuple[Callable[[Path], Path], str]] = [
    (_pipe, "does not exist"),
    (lambda folder: folder, "holds no file"),
    (_array(np.zeros((4, 4), np.int16)), "expected \\(slices, rows, columns\\)"),
    (_array(np.full((2, 4, 4), 7.0)), "no HU, and not in 0 to 1"),
    (_array(np.full((2, 4, 4), np.nan)), "not finite"),
    (_array(np.array([[[1 + 2j]]])), "expected integers or floats"),
    (_array(np.array([{"a": 1}], object)), "is not an .npy file or is damaged"),
    (_mixed, "holds NPY and picture files"),
    (_sizes, "differs from 0.npy in size"),
    (_npz(image=np.zeros((2, 4, 4))), "has no array 'ct'"),
    (_npz(ct=np.zeros((2, 4, 4), np.int16), lung=np.zeros((2, 4, 4))), "expected bool of the shape of ct"),
    (_npz(ct=np.zeros((2, 4, 4), np.int16), place=np.array([0.0, 2.0])), "one number in 0 to 1"),
    (_cut, "is not an .npz file or is damaged"),
    (_twice, "two slices at one place"),
    (_gap, "lacks slices after IM2.dcm"),
    (_two_series, "holds 2 series of 6, 6 slices"),
    (_magnet, "holds a MR series, not CT"),
    (_no_place, "holds no series"),
    (_beside, "holds .txt and DICOM files"),
]


@pytest.mark.parametrize(("make", "says"), HOSTILE, ids=[says[:24] for _, says in HOSTILE])
def test_what_is_no_series_is_one_line(make: Callable[[Path], Path], says: str, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    with pytest.raises(UserError, match=says) as caught:
        read_series(make(folder))
    assert "\n" not in str(caught.value)


def test_an_overview_beside_the_series_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ramp(tmp_path, order=[0, 1, 2, 3, 4, 5])
    scout = tmp_path / "A_scout.dcm"
    scout.write_bytes((tmp_path / "IM0.dcm").read_bytes())
    dataset = pydicom.dcmread(scout)
    dataset.SeriesInstanceUID, dataset.Rows = "9.9", 4
    dataset.PixelData = dataset.PixelData[:48]
    dataset.save_as(scout)
    with caplog.at_level("INFO"):
        assert len(read_dicom_series(tmp_path, files_of(tmp_path)).hu) == 6
    assert "1 overview(s) left out" in caplog.text
