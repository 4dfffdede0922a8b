"""Pictures whose headers lie: refused by the header, without allocating what it claims, in one line."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pydicom
import pytest
import tifffile
from dicom_files import write as write_dicom
from pydicom.uid import DeflatedExplicitVRLittleEndian

from scanfuse.data.readers import read_image
from scanfuse.errors import UserError

RAW = np.array([[0, 100], [1000, 2000]], np.int16)


def refusal(path: Path) -> str:
    tracemalloc.start()
    with pytest.raises(UserError) as caught:
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
    text = str(caught.value)
    assert text.startswith(f"{path} ") and text.isprintable() and len(text) < 500
    return text.removeprefix(f"{path} ")


# --- DICOM --------------------------------------------------------------------------------------------------------


def set_raw(path: Path, keyword: str, value: bytes) -> None:
    """Puts bytes into a header that pydicom would not write, and leaves the rest as it is."""
    dataset = pydicom.dcmread(path)
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None
    representation = pydicom.datadict.dictionary_VR(tag)
    dataset.pop(tag, None)
    dataset[tag] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(tag), representation, len(value), value, 0, False, True
    )
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("PixelSpacing", b"1 ", "has the PixelSpacing '1"),
        ("PixelSpacing", b"1\\2\\3 ", "has the PixelSpacing '[1, 2, 3"),
        ("PixelSpacing", b"abc\\de", "has a PixelSpacing that cannot be read"),
        ("RescaleSlope", b"1\\2 ", "has the RescaleSlope '[1, 2"),
        ("RescaleSlope", b"x ", "has a RescaleSlope that cannot be read"),
        ("RescaleSlope", b"", "has one of RescaleSlope and RescaleIntercept without the other"),
        ("RescaleIntercept", b"inf ", "RescaleIntercept"),
        ("Rows", b"\xff\xff", "is damaged or cut short"),
        ("Rows", b"\0\0", "has no pixels (0 x 2)"),
        ("Rows", b"", "has no pixels (0 x 2)"),
        ("BitsStored", struct.pack("<H", 17), "has the BitsStored '17'; expected a whole number from 1 to 16."),
        ("BitsStored", b"\0\0", "has the BitsStored '0'"),
        ("BitsAllocated", struct.pack("<H", 4096), "has the BitsAllocated '4096'"),
        ("SamplesPerPixel", b"\xff\xff", "has the SamplesPerPixel '65535'"),
        ("NumberOfFrames", b"-3", "has the NumberOfFrames '-3'"),
        ("NumberOfFrames", b"1\\2 ", "has the NumberOfFrames '[1, 2"),
        ("NumberOfFrames", b"x ", "has the NumberOfFrames 'x'"),
        ("PixelRepresentation", b"\x07\0", "is damaged or cut short"),
    ],
)
def test_dicom_header_values_that_make_no_sense(tmp_path: Path, keyword: str, value: bytes, said: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAW, RescaleSlope=1, RescaleIntercept=0, PixelSpacing=[1, 1])
    set_raw(path, keyword, value)
    assert said in refusal(path)


def test_dicom_that_claims_what_it_does_not_hold(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAW)
    set_raw(path, "Rows", b"\xff\xff")
    set_raw(path, "Columns", b"\xff\xff")
    assert refusal(path).startswith("claims 65535 x 65535 pixels, more than the 100 million allowed")
    set_raw(path, "Rows", struct.pack("<H", 9000))
    set_raw(path, "Columns", struct.pack("<H", 9000))
    assert refusal(path).startswith("is damaged or cut short")


@pytest.mark.parametrize(
    ("syntax", "said"),
    [
        (None, "does not say how its pixels are packed (no transfer syntax)"),
        ("1.2.3.4.5", "has the unknown transfer syntax '1.2.3.4.5'"),
    ],
)
def test_dicom_without_a_known_transfer_syntax(tmp_path: Path, syntax: str | None, said: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAW)
    dataset = pydicom.dcmread(path)
    if syntax is None:
        del dataset.file_meta.TransferSyntaxUID
    else:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.save_as(path, enforce_file_format=False, implicit_vr=False, little_endian=True)
    assert said in refusal(path)


def test_dicom_entries_that_are_empty_or_zero_say_nothing(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAW, RescaleSlope="", RescaleIntercept="", PixelSpacing=[0, 0])
    image = read_image(path)
    assert image.spacing_mm is None and image.pixels.tolist() == RAW.tolist()


def test_deflated_dicom_is_unpacked_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.arange(400, dtype=np.int16).reshape(20, 20)
    path = write_dicom(tmp_path / "a.dcm", pixels, syntax=DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(read_image(path).pixels, pixels)
    monkeypatch.setattr("scanfuse.data.readers.dicom.MAX_BYTES", 500)
    assert "unpacks to more than" in refusal(path)


# --- TIFF ---------------------------------------------------------------------------------------------------------


def tiff(path: Path, body: bytes, **tags: int) -> Path:
    """A TIFF of one strip, with the tags as given."""
    known = {
        "width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offset": 273,
        "samples": 277, "rows": 278, "size": 279, "tile_width": 322, "tile_height": 323, "tile_offset": 324,
        "tile_size": 325, "format": 339,
    }  # fmt: skip
    values = {"width": 8, "height": 8, "bits": 8, "compression": 1, "photometric": 1, "samples": 1, **tags}
    if "tile_width" in values:
        values |= {"tile_offset": 8, "tile_size": len(body)}
    else:
        values |= {"offset": 8, "size": len(body), "rows": values["height"]}
    entries = sorted((known[name], value) for name, value in values.items())
    start = 8 + len(body)
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries) + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + body + directory)
    return path


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"width": 40_000, "height": 40_000}, "claims 40000 x 40000 pixels"),
        ({"width": 2**31, "height": 2**31}, "claims 2147483648 x 2147483648 pixels"),
        ({"width": 9_000, "height": 9_000, "bits": 64, "samples": 4}, "of 32 bytes, more than the 1000 MB allowed"),
        ({"samples": 65_535}, "has 65535 channels"),
        ({"samples": 0}, "has 0 channels"),
        ({"height": 0}, ""),
        ({"width": 0}, ""),
        ({"tile_width": 60_000, "tile_height": 60_000}, "claims 60000 x 60000 pixels"),
        ({"bits": 3}, ""),
        ({"compression": 7}, ""),
        ({"compression": 50_000}, ""),
        ({"compression": 65_000}, ""),
        ({"photometric": 77}, ""),
        ({"format": 5, "bits": 64}, ""),
        ({"format": 6, "bits": 128}, ""),
    ],
)
def test_tiff_headers_that_make_no_sense(tmp_path: Path, tags: dict[str, int], said: str) -> None:
    path = tiff(tmp_path / "a.tif", bytes(64), **tags)
    if tags == {"photometric": 77}:
        assert read_image(path).size == (8, 8)
    else:
        assert said in refusal(path)


def test_tiff_strip_that_unpacks_to_more_than_its_picture(tmp_path: Path) -> None:
    pixels = bytes(range(64))
    path = tiff(tmp_path / "a.tif", zlib.compress(pixels), compression=8)
    assert read_image(path).pixels.tobytes() == pixels
    path = tiff(tmp_path / "b.tif", zlib.compress(bytes(200_000_000), 1), compression=8)
    assert path.stat().st_size < 1_000_000
    assert refusal(path) == "unpacks to more than its header claims; export it again."


def test_tiff_complex_and_extreme_values(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "c.tif", np.ones((4, 4), np.complex64), photometric="minisblack")
    assert refusal(tmp_path / "c.tif").startswith("holds values of the type complex64")
    tifffile.imwrite(tmp_path / "e.tif", np.array([[-1.7e308, 1.7e308]]), photometric="minisblack")
    assert refusal(tmp_path / "e.tif").startswith("has values from -1.7e+308 to 1.7e+308, which are damaged")


def test_tiff_pages_that_lead_in_a_circle(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", bytes(64))
    content = bytearray(path.read_bytes())
    content[-4:] = content[4:8]  # the next page is this one
    path.write_bytes(content)
    try:
        assert read_image(path).size == (8, 8)
    except UserError:
        refusal(path)


# --- PNG ----------------------------------------------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(path: Path, pixels: np.ndarray, *, interlaced: bool = False, rows: int | None = None) -> Path:
    """A PNG without filters, 8 or 16 bits; `rows` of it, of which the header says nothing."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    plain = pixels.astype(pixels.dtype.newbyteorder(">"))
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [plain[top::down, left::across] for left, top, across, down in passes]
    lines = [b"\0" + line.tobytes() for part in parts if part.size for line in part][:rows]
    header = struct.pack(">IIBBBBB", width, height, pixels.dtype.itemsize * 8, kind, 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_of_any_depth_interlaced_or_not(tmp_path: Path, dtype: type, channels: int, interlaced: bool) -> None:
    random = np.random.default_rng(3)
    pixels = random.integers(0, np.iinfo(dtype).max, (11, 9, channels), dtype, endpoint=True)
    if channels in (2, 4):
        pixels[..., -1] = np.iinfo(dtype).max
    colour = pixels[..., : channels - 1 + channels % 2]
    read = read_image(png(tmp_path / "a.png", pixels, interlaced=interlaced)).pixels
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, colour[..., 0] if colour.shape[-1] == 1 else colour)
    # One row short: Pillow by itself shows it as black.
    assert "bytes are missing" in refusal(png(tmp_path / "b.png", pixels, interlaced=interlaced, rows=10))


def test_sixteen_bit_grey_with_alpha_is_put_on_black(tmp_path: Path) -> None:
    pixels = np.array([[[60_001, 65_535], [60_001, 0]]], np.uint16)
    assert read_image(png(tmp_path / "a.png", pixels)).pixels.tolist() == [[60_001, 0]]


def test_animated_sixteen_bit_colour_is_refused(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", np.ones((4, 4, 3), np.uint16))
    content = path.read_bytes()
    control = struct.pack(">IIIIIHHBB", 0, 4, 4, 0, 0, 1, 10, 0, 0)
    further = struct.pack(">IIIIIHHBB", 1, 4, 4, 0, 0, 1, 10, 0, 0)
    body = content[content.index(b"IDAT") + 4 : content.index(b"IEND") - 8]
    start = content.index(b"IDAT") - 4
    extra = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", control)
    tail = chunk(b"fcTL", further) + chunk(b"fdAT", struct.pack(">I", 2) + body) + chunk(b"IEND", b"")
    path.write_bytes(content[:start] + extra + content[start : content.index(b"IEND") - 4] + tail)
    assert "holds 2 pictures" in refusal(path)


@pytest.mark.parametrize("change", [lambda data: data[:20], lambda data: data[:40], lambda data: data[:-30]])
def test_jpeg_cut_anywhere(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    random: Any = np.random.default_rng(0)
    PIL.Image.fromarray(random.integers(0, 256, (40, 40), dtype=np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(change((tmp_path / "a.jpg").read_bytes()))
    assert "is damaged or cut short" in refusal(tmp_path / "a.jpg")
