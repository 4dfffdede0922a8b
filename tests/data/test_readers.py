"""Readers against independently written files: every depth, orientation and kind of damage."""

import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
import tifffile

from scanfuse.data.readers import SliceChoice, from_unit, read_image, stem, suffix_for, to_unit, write_image
from scanfuse.errors import UserError


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


def message(path: Path, **options: SliceChoice) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(256, 256), (256, 256, 3)])
def test_unit_and_back_is_exact(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    top = np.iinfo(dtype).max
    pixels = np.resize(np.arange(top + 1, dtype=dtype), shape)  # every value of uint8 and of uint16 (256 * 256)
    if len(shape) == 3:
        pixels[..., 1] = pixels[::-1, :, 1]
    write_image(tmp_path / "a.png", pixels)
    image = read_image(tmp_path / "a.png")
    assert image.pixels.dtype == dtype and (image.low, image.high) == (0, top)
    np.testing.assert_array_equal(image.pixels, pixels)
    unit = to_unit(image)
    assert unit.dtype == np.float32 and unit.min() == 0 and unit.max() == 1
    np.testing.assert_array_equal(from_unit(unit, image), pixels)
    assert suffix_for(image) == ".png"


def test_pillow_reads_what_we_write(tmp_path: Path, random: np.random.Generator) -> None:
    grey = random.integers(0, 65536, (9, 7), dtype=np.uint16)
    write_image(tmp_path / "grey.png", grey)
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "grey.png")), grey)
    deep = random.integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    write_image(tmp_path / "deep.png", deep)
    # Pillow keeps the upper byte of 16-bit colour
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "deep.png")), (deep >> 8).astype(np.uint8))


def test_float_png_is_scaled_rounded_and_clipped(tmp_path: Path) -> None:
    array = np.array([[-0.5, 0.0, 0.5, 1.0, 1.5]], np.float32)
    write_image(tmp_path / "8.png", array)
    write_image(tmp_path / "16.png", array, bits=16)
    assert read_image(tmp_path / "8.png").pixels.tolist() == [[0, 0, 128, 255, 255]]
    assert read_image(tmp_path / "16.png").pixels.tolist() == [[0, 0, 32768, 65535, 65535]]


def test_signed_range_comes_back(tmp_path: Path) -> None:
    values = np.array([[-1000, 0], [500, 3000]], np.int16)
    nibabel.save(nibabel.Nifti1Image(values[..., None], np.eye(4)), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    assert image.pixels.dtype == np.int16 and (image.low, image.high) == (-1000, 3000)
    assert to_unit(image).max() == 1 and to_unit(image).min() == 0
    np.testing.assert_array_equal(from_unit(to_unit(image), image), image.pixels)
    assert suffix_for(image) == ".tif"


def test_not_a_number_becomes_zero_and_does_not_count(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.array([[np.nan, 2.0], [np.inf, 4.0]], np.float32), photometric="minisblack"
    )
    image = read_image(tmp_path / "a.tif")
    assert (image.low, image.high) == (2, 4)
    assert image.unit.tolist() == [[0, 0], [1, 1]]
    with pytest.raises(ValueError, match="not finite"):
        from_unit(np.array([[np.nan]]), image)


def test_constant_picture(tmp_path: Path) -> None:
    write_image(tmp_path / "grey.png", np.full((4, 4), 51, np.uint8))
    np.testing.assert_allclose(read_image(tmp_path / "grey.png").unit, 0.2)
    write_image(tmp_path / "flat.tif", np.full((4, 4), -3.5))
    image = read_image(tmp_path / "flat.tif")
    assert not image.unit.any()
    np.testing.assert_array_equal(from_unit(image.unit, image), image.pixels)


# --- PNG and JPEG modes -------------------------------------------------------------------------------------------


def test_rgba_opaque_is_dropped_and_other_alpha_is_on_black(tmp_path: Path, random: np.random.Generator) -> None:
    colour = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    opaque = np.dstack([colour, np.full((5, 6), 255, np.uint8)])
    PIL.Image.fromarray(opaque).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png").pixels, colour)
    half = np.dstack([colour, np.full((5, 6), 51, np.uint8)])
    PIL.Image.fromarray(half).save(tmp_path / "fifth.png")
    np.testing.assert_array_equal(read_image(tmp_path / "fifth.png").pixels, np.rint(colour / 5).astype(np.uint8))


def deep_png(path: Path, rows: list[bytes], width: int, kind: int) -> None:
    header = struct.pack(">IIBBBBB", width, len(rows), 16, kind, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")):
        body += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(body)


def test_sixteen_bit_colour_with_every_row_filter(tmp_path: Path, random: np.random.Generator) -> None:
    """Rows filtered here byte by byte, as the specification words it."""
    pixels = random.integers(0, 65536, (10, 6, 3), dtype=np.uint16)
    plain = [list(row.astype(">u2").tobytes()) for row in pixels]
    rows = []
    for y, row in enumerate(plain):
        kind, filtered = y % 5, []
        for x, value in enumerate(row):
            a = row[x - 6] if x >= 6 else 0
            b = plain[y - 1][x] if y else 0
            c = plain[y - 1][x - 6] if y and x >= 6 else 0
            nearest = min((a, b, c), key=lambda other: abs(a + b - c - other))
            filtered.append((value - [0, a, b, (a + b) // 2, nearest][kind]) % 256)
        rows.append(bytes([kind, *filtered]))
    deep_png(tmp_path / "a.png", rows, 6, 2)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, pixels)
    deep_png(tmp_path / "short.png", rows[:-1], 6, 2)
    whole = (tmp_path / "short.png").read_bytes()
    taller = struct.pack(">IIBBBBB", 6, 10, 16, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + b"IHDR" + taller + struct.pack(">I", zlib.crc32(b"IHDR" + taller))
    (tmp_path / "short.png").write_bytes(whole[:8] + header + whole[33:])
    assert "is damaged or cut short" in message(tmp_path / "short.png")


def test_sixteen_bit_rgba(tmp_path: Path) -> None:
    pixels = np.array([[[60000, 300, 7, 65535], [60000, 300, 7, 0]]], ">u2")
    deep_png(tmp_path / "a.png", [b"\0" + pixels.tobytes()], 2, 6)
    image = read_image(tmp_path / "a.png")
    assert image.pixels.dtype == np.uint16
    assert image.pixels.tolist() == [[[60000, 300, 7], [0, 0, 0]]]


def test_palette_bilevel_and_grey_with_alpha(tmp_path: Path) -> None:
    colour = np.array([[[255, 0, 0], [0, 128, 255]]], np.uint8)
    PIL.Image.fromarray(colour).quantize(2).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png").pixels, colour)
    PIL.Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "bilevel.png")
    assert read_image(tmp_path / "bilevel.png").pixels.tolist() == [[0, 255]]
    PIL.Image.fromarray(np.array([[[200, 255], [200, 0]]], np.uint8), "LA").save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png").pixels.tolist() == [[200, 0]]


def test_equal_channels_are_grey_unless_kept(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.dstack([np.array([[1, 2]], np.uint8)] * 3))
    assert read_image(tmp_path / "a.png").pixels.tolist() == [[1, 2]]
    assert read_image(tmp_path / "a.png", grey_if_equal=False).pixels.shape == (1, 2, 3)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :16] = 200
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    PIL.Image.fromarray(np.rot90(upright)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    pixels = read_image(tmp_path / "a.jpg").pixels
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() < 12


# --- TIFF ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_depths_and_pages(tmp_path: Path, random: np.random.Generator, dtype: type) -> None:
    stack = (random.random((3, 8, 5)) * 200).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    image = read_image(tmp_path / "a.tif", slices=SliceChoice("frame", "middle"))
    assert image.pixels.dtype == dtype
    np.testing.assert_array_equal(image.pixels, stack[1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", slices=SliceChoice("frame", 2)).pixels, stack[2])
    assert message(tmp_path / "a.tif", slices=SliceChoice("frame", 3)) == (
        f"{tmp_path}/a.tif has slices 0 to 2; frame:3 was asked for."
    )


def test_tiff_colour_palette_white_is_zero_and_lzw(tmp_path: Path, random: np.random.Generator) -> None:
    colour = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "planar.tif", np.moveaxis(colour, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image(tmp_path / "planar.tif").pixels, colour)
    tifffile.imwrite(tmp_path / "white.tif", colour[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "white.tif").pixels, 255 - colour[..., 0])
    PIL.Image.fromarray(colour[..., 0]).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_image(tmp_path / "lzw.tif").pixels, colour[..., 0])
    PIL.Image.fromarray(colour).quantize(8).save(tmp_path / "palette.tif")
    expected = np.asarray(PIL.Image.open(tmp_path / "palette.tif").convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "palette.tif").pixels, expected)


def test_float_tiff_round_trip(tmp_path: Path, random: np.random.Generator) -> None:
    array = random.normal(size=(7, 4)).astype(np.float32) * 1000
    write_image(tmp_path / "a.tiff", array)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tiff").pixels, array)


# --- NIfTI --------------------------------------------------------------------------------------------------------


def test_nifti_series_and_rubbish_are_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3, 2), np.int16), np.eye(4)), tmp_path / "a.nii")
    assert "holds 2 volumes" in message(tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes(b"not gzip at all")
    assert message(tmp_path / "b.nii.gz") == f"{tmp_path}/b.nii.gz is not a NIfTI volume; copy or export it again."
    nibabel.save(nibabel.Nifti1Image(np.ones((32, 32, 9), np.float32), np.eye(4)), tmp_path / "c.nii.gz")
    whole = (tmp_path / "c.nii.gz").read_bytes()
    (tmp_path / "c.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.nii.gz").write_bytes(whole[:30])
    assert "c.nii.gz is damaged or cut short" in message(tmp_path / "c.nii.gz", slices=SliceChoice("axial", 8))
    assert "d.nii.gz is not a NIfTI volume or is damaged" in message(tmp_path / "d.nii.gz")


# --- bad files ----------------------------------------------------------------------------------------------------


def test_missing_folder_unknown_and_empty(tmp_path: Path) -> None:
    assert message(tmp_path / "no.png") == f"{tmp_path}/no.png does not exist; check the path."
    assert message(tmp_path) == f"{tmp_path} is a folder, not a picture."
    (tmp_path / "a.xyz").write_bytes(b"abc")
    assert message(tmp_path / "a.xyz").startswith(
        f"{tmp_path}/a.xyz is of an unknown type; ScanFuse reads .png, .jpg"
    )
    (tmp_path / "e.png").write_bytes(b"")
    assert message(tmp_path / "e.png") == f"{tmp_path}/e.png is an empty file; copy or export it again."


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_text_named_as_a_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("this is a note, not a picture\n")
    assert message(path) == f"{path} is not a PNG or JPEG picture but text; export it again."


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(tmp_path: Path, random: np.random.Generator, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    PIL.Image.fromarray(random.integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    text = message(path)
    assert text.startswith(str(path)) and text.endswith((" it again.", "TIFF or PNG."))


def test_truncated_png_says_so(tmp_path: Path, random: np.random.Generator) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(random.integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert message(path).startswith(f"{path} is damaged or cut short (")


def bomb(path: Path, width: int, height: int) -> None:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
        body += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(body)


@pytest.mark.parametrize("side", [11_000, 40_000])
def test_decompression_bomb(tmp_path: Path, side: int) -> None:
    bomb(tmp_path / "a.png", side, side)
    assert "pixels" in message(tmp_path / "a.png") and "cut or shrink it first" in message(tmp_path / "a.png")


def test_no_pixels_and_no_finite_value(tmp_path: Path) -> None:
    bomb(tmp_path / "a.png", 0, 5)
    assert message(tmp_path / "a.png").startswith(f"{tmp_path}/a.png ")
    tifffile.imwrite(tmp_path / "n.tif", np.full((3, 3), np.nan, np.float32), photometric="minisblack")
    assert message(tmp_path / "n.tif") == (
        f"{tmp_path}/n.tif holds no finite value (all not-a-number or infinite); export it again."
    )


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path, np.zeros((2, 2), np.uint8))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not finite"):
        write_image(path, np.array([[np.nan]]))
    with pytest.raises(ValueError, match="int32"):
        write_image(path, np.zeros((2, 2), np.int32))
    with pytest.raises(UserError, match=r"\.bmp is not supported; use \.png or \.tif"):
        write_image(tmp_path / "a.bmp", np.zeros((2, 2), np.uint8))
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_stem() -> None:
    assert [stem(name) for name in ("16003.png", "a.b.NII.GZ", "scan", "p.1")] == ["16003", "a.b", "scan", "p"]
