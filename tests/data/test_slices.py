"""Slices of a volume: only when asked for, axial by the patient whatever the storage, and with little memory."""

import gzip
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
import tifffile
from dicom_files import write as write_dicom

from scanfuse.data.readers import SliceChoice, from_unit, list_slices, read_image, to_unit
from scanfuse.errors import UserError

# x to the patient's right, y to the front, z to the head
HEAD = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5) * 7 - 100
ZOOMS = (2.0, 3.0, 4.0)


def refusal(path: Path, text: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path, slices=None if text is None else SliceChoice.parse(text))
    assert str(caught.value).startswith(f"{path} ") and str(caught.value).isprintable()
    return str(caught.value).removeprefix(f"{path} ")


def stored(path: Path, order: tuple[int, int, int], signs: tuple[int, int, int], zooms: tuple[float, ...]) -> Path:
    """HEAD with its axes in another order and direction, and the affine that says so."""
    volume = HEAD.transpose(order)
    volume = volume[tuple(slice(None, None, sign) for sign in signs)].copy()
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for place, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        affine[axis, place] = sign * zooms[axis]
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
    return path


# --- the choice ---------------------------------------------------------------------------------------------------


def test_a_choice_is_read_and_written() -> None:
    for text in ("axial:middle", "sagittal:all", "coronal:40", "frame:0"):
        assert str(SliceChoice.parse(text)) == text
    assert SliceChoice.parse(" Axial:Middle ") == SliceChoice("axial", "middle")


@pytest.mark.parametrize("text", ["", "axial", "axial:", "axial:-1", "axial:1.5", "middle", "z:3", "axial:99999999"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"names no slice: write axial, .* such as axial:middle\."):
        SliceChoice.parse(text)


# --- NIfTI --------------------------------------------------------------------------------------------------------


def test_a_volume_is_no_picture(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.nii.gz", (0, 1, 2), (1, 1, 1), ZOOMS)
    assert refusal(path) == (
        "is a volume of 3 x 4 x 5 voxels, not a picture: choose slices of it, such as --slice axial:middle or "
        "--slice axial:all, or use a system for volumes."
    )
    assert refusal(path, "axial:all") == "has 5 slices axial:all, which are not one picture; name one."
    assert refusal(path, "axial:5") == "has slices 0 to 4; axial:5 was asked for."
    assert refusal(path, "frame:0") == "is a volume and has no frames; choose with --slice axial:middle."


@pytest.mark.parametrize(
    ("order", "signs"),
    [
        ((0, 1, 2), (1, 1, 1)),
        ((0, 1, 2), (-1, 1, -1)),
        ((1, 2, 0), (1, -1, 1)),
        ((2, 0, 1), (-1, -1, -1)),
        ((2, 1, 0), (1, 1, -1)),
        ((0, 2, 1), (-1, -1, 1)),
    ],
)
def test_slices_are_the_patients_whatever_the_storage(
    tmp_path: Path, order: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    path = stored(tmp_path / "a.nii", order, signs, ZOOMS)
    for axis, number, expected, spacing_mm in (
        ("axial", 1, HEAD[::-1, ::-1, 1].T, (3, 2)),  # row 0 in front, column 0 right
        ("coronal", 3, HEAD[::-1, 3, ::-1].T, (4, 2)),  # row 0 on top, column 0 right
        ("sagittal", 0, HEAD[0, ::-1, ::-1].T, (4, 3)),  # row 0 on top, column 0 in front
    ):
        image = read_image(path, slices=SliceChoice.parse(f"{axis}:{number}"))
        np.testing.assert_array_equal(image.pixels, expected)
        assert image.pixels.dtype == np.int16 and image.spacing_mm == spacing_mm
        assert (image.low, image.high) == (HEAD.min(), HEAD.max())  # of the whole volume
        np.testing.assert_array_equal(from_unit(to_unit(image), image), image.pixels)
    middle = read_image(path, slices=SliceChoice("axial", "middle"))
    np.testing.assert_array_equal(middle.pixels, HEAD[::-1, ::-1, 2].T)


def test_all_slices_one_by_one(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.nii.gz", (2, 0, 1), (-1, 1, 1), ZOOMS)
    found = [read_image(path, slices=one).pixels for one in list_slices(path, SliceChoice("coronal", "all"))]
    np.testing.assert_array_equal(found, [HEAD[::-1, number, ::-1].T for number in range(4)])
    assert list_slices(path, SliceChoice("coronal", 2)) == (SliceChoice("coronal", 2),)
    assert list_slices(path, None) == (None,)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("code", ["<i2", ">i2", ">f4", "<f8", "<u1"])
def test_many_blocks_agree_with_nibabel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axis: str, code: str
) -> None:
    """Read in blocks of a few columns, with a scaled header, against the whole array as nibabel reads it."""
    monkeypatch.setattr("scanfuse.data.readers.nifti._BLOCK_BYTES", 400)
    random = np.random.default_rng(0)
    volume = (random.random((17, 11, 9)) * 200).astype(np.dtype(code))
    header = nibabel.Nifti2Header(endianness=code[0])
    header.set_data_dtype(volume.dtype)
    image = nibabel.Nifti2Image(volume, np.diag([1, 1, 1, 1]), header)
    image.header.set_slope_inter(0.37, -3.25)
    nibabel.save(image, tmp_path / "a.nii.gz")
    whole = np.asanyarray(nibabel.load(tmp_path / "a.nii.gz").dataobj).astype(np.float32)
    read = read_image(tmp_path / "a.nii.gz", slices=SliceChoice.parse(f"{axis}:6"))
    place = ("sagittal", "coronal", "axial").index(axis)
    np.testing.assert_array_equal(read.pixels, np.take(whole, 6, place)[::-1, ::-1].T)
    assert read.pixels.dtype == np.float32 and (read.low, read.high) == (whole.min(), whole.max())


def test_a_slice_needs_little_memory(tmp_path: Path) -> None:
    volume = np.zeros((320, 256, 256), np.int16)  # 42 MB, some 40 KB compressed
    volume[5, 6, 7] = 9
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii.gz")
    del volume
    for text in ("axial:7", "coronal:6", "sagittal:5"):
        tracemalloc.start()
        image = read_image(tmp_path / "a.nii.gz", slices=SliceChoice.parse(text))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert image.pixels.max() == 9 and (image.low, image.high) == (0, 9)
        assert peak < 16e6


def test_one_slice_is_a_picture(tmp_path: Path) -> None:
    flat = HEAD[:, :, :1]
    nibabel.save(nibabel.Nifti1Image(flat, np.eye(4)), tmp_path / "a.nii")
    for text in (None, "axial:0", "axial:middle", "axial:all"):
        choice = None if text is None else SliceChoice.parse(text)
        np.testing.assert_array_equal(read_image(tmp_path / "a.nii", slices=choice).pixels, flat[::-1, ::-1, 0].T)
    assert refusal(tmp_path / "a.nii", "coronal:0") == "is one axial slice and has no coronal ones."
    nibabel.save(nibabel.Nifti1Image(HEAD[1:2], np.eye(4)), tmp_path / "b.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii").pixels, HEAD[1, ::-1, ::-1].T)
    nibabel.save(nibabel.Nifti1Image(HEAD[..., 0], np.eye(4)), tmp_path / "c.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "c.nii").pixels, flat[::-1, ::-1, 0].T)


def raw(path: Path, shape: tuple[int, ...], body: bytes = b"", **fields: object) -> Path:
    """A NIfTI-1 file of which only the header is as it should be, if that."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["dim"][: len(shape) + 1] = (len(shape), *shape)
    header["pixdim"][1:4] = 1
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    for name, value in fields.items():
        header[name] = value
    content = header.binaryblock + bytes(4) + body
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("shape", "fields", "said"),
    [
        ((8, 8, 0), {}, "has no voxels (shape (8, 8, 0))"),
        ((8, -8, 2), {}, "has no voxels (shape (8, -8, 2))"),
        ((8000, 8000, 30), {}, "claims 8000 x 8000 x 30 voxels of 2 bytes; at most 1000 million, 4 GB"),
        ((8000, 8000, 9), {"datatype": 64, "bitpix": 64}, "claims 8000 x 8000 x 9 voxels of 8 bytes"),
        ((32767, 32767, 32767), {}, "claims 32767 x 32767 x 32767 voxels"),
        ((8, 8, 3), {}, "is cut short: its header claims 736 bytes"),
        ((8, 8, 3, 7), {}, "holds 7 volumes"),
        ((8, 8, 2), {"datatype": 32}, "is not a grey volume"),  # complex
        ((8, 8, 2), {"datatype": 128}, "is not a grey volume"),  # RGB
        ((8, 8, 2), {"datatype": 999}, "is not a NIfTI volume or is damaged"),
        ((8, 8, 2), {"scl_slope": 1.0, "scl_inter": np.inf}, "is not a NIfTI volume or is damaged"),
        ((8, 8, 2), {"sform_code": 1, "srow_x": np.nan}, "does not say which way its axes point"),
        ((8, 8, 2), {"sform_code": 1}, "does not say which way its axes point"),  # a matrix of zeros
        ((8, 8, 2), {"vox_offset": 3e9}, "is cut short"),
        ((8, 8, 2), {"vox_offset": np.nan}, "is not a NIfTI volume or is damaged"),
        ((8, 8, 2), {"magic": b"ni1"}, "is a header without voxels"),
        ((8, 8, 2), {"magic": b""}, "is not a NIfTI volume or is damaged"),
        ((8, 8, 2), {"dim": [40, 8, 8, 2, 8, 8, 8, 8]}, "is not a NIfTI volume or is damaged"),
    ],
)
def test_a_header_that_makes_no_sense_is_one_line(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], fields: dict[str, object], said: str
) -> None:
    path = raw(tmp_path / f"a{suffix}", shape, bytes(8 * 8 * 2 * 2), **fields)
    if suffix == ".nii.gz" and said.startswith("is cut short: its"):
        said = "is damaged or cut short"  # only unpacking shows how much there is
    assert said in refusal(path, "axial:0")


# --- frames -------------------------------------------------------------------------------------------------------


def test_frames_and_pages_are_taken_only_when_asked_for(tmp_path: Path) -> None:
    stack = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    write_dicom(tmp_path / "a.dcm", stack)
    pages = [PIL.Image.fromarray(page) for page in stack]
    pages[0].save(tmp_path / "a.png", save_all=True, append_images=pages[1:])
    for name in ("a.tif", "a.dcm", "a.png"):
        path = tmp_path / name
        assert refusal(path) == "holds 3 pictures: choose with --slice frame:middle, frame:0 or frame:all."
        assert refusal(path, "axial:0") == "is no volume and has no axial slices; choose with --slice frame:middle."
        found = [read_image(path, slices=one).pixels for one in list_slices(path, SliceChoice("frame", "all"))]
        np.testing.assert_array_equal(found, stack)


def test_one_picture_needs_no_choice(tmp_path: Path) -> None:
    picture = np.arange(20, dtype=np.uint8).reshape(4, 5)
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="minisblack")
    write_dicom(tmp_path / "a.dcm", picture)
    PIL.Image.fromarray(picture).save(tmp_path / "a.png")
    for name in ("a.tif", "a.dcm", "a.png"):
        path = tmp_path / name
        for choice in (None, SliceChoice("frame", 0), SliceChoice("frame", "middle"), SliceChoice("frame", "all")):
            np.testing.assert_array_equal(read_image(path, slices=choice).pixels, picture)
            assert len(list_slices(path, choice)) == 1
        assert refusal(path, "axial:middle") == "is no volume and has no axial slices; leave --slice out."


def test_a_thumbnail_is_no_page(tmp_path: Path) -> None:
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(picture, photometric="minisblack")
        file.write(picture[::4, ::4], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, picture)
