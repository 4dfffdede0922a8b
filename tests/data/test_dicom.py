"""DICOM files written by hand: rescale, inversion, bits stored, frames, padding, compression."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import write
from pydicom.uid import JPEGLSLossless, RLELossless

from scanfuse.data.readers import SliceChoice, read_image
from scanfuse.errors import UserError

RAW = np.array([[0, 100], [1000, 2000]], np.int16)


def test_rescale_gives_hounsfield_units_as_integers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAW, RescaleSlope=1, RescaleIntercept=-1024, PixelSpacing=[0.5, 0.7], HighBit=15)
    image = read_image(path)
    assert image.pixels.tolist() == [[-1024, -924], [-24, 976]] and image.pixels.dtype == np.int32
    assert (image.low, image.high) == (-1024, 976)
    assert image.spacing_mm == (0.5, 0.7)
    half = read_image(write(tmp_path / "b.dcm", RAW, RescaleSlope=0.25, RescaleIntercept=0.1))
    assert half.pixels.dtype == np.float32
    np.testing.assert_allclose(half.pixels, RAW * 0.25 + 0.1, rtol=1e-6)


def test_monochrome1_is_inverted_in_its_range(tmp_path: Path) -> None:
    image = read_image(write(tmp_path / "a.dcm", RAW.astype(np.uint16), PhotometricInterpretation="MONOCHROME1"))
    assert image.pixels.tolist() == [[2000, 1900], [1000, 0]]
    np.testing.assert_allclose(image.unit, 1 - RAW / 2000, atol=1e-6)


def test_bits_above_bits_stored_do_not_count(tmp_path: Path) -> None:
    dirty = np.array([[0xF123, 0x0FFF]], np.uint16)  # an overlay in the upper four bits
    image = read_image(write(tmp_path / "a.dcm", dirty, BitsStored=12, HighBit=11))
    assert image.pixels.tolist() == [[0x123, 0xFFF]]
    negative = np.array([[0x0FFF, 0x07FF]], np.uint16).view(np.int16)  # -1 and 2047 in 12 bits, sign not extended
    image = read_image(write(tmp_path / "b.dcm", negative, BitsStored=12, HighBit=11))
    assert image.pixels.tolist() == [[-1, 2047]]


def test_padding_does_not_set_the_range(tmp_path: Path) -> None:
    padded = np.array([[-2000, 10], [30, 50]], np.int16)
    image = read_image(write(tmp_path / "a.dcm", padded, PixelPaddingValue=-2000))
    assert (image.low, image.high) == (10, 50)
    assert image.unit.tolist() == [[0, 0], [0.5, 1]]


def test_frames_by_index(tmp_path: Path) -> None:
    frames = np.stack([RAW, RAW + 1, RAW + 2, RAW + 3])
    path = write(tmp_path / "a.dcm", frames)
    np.testing.assert_array_equal(read_image(path, slices=SliceChoice("frame", "middle")).pixels, frames[2])
    np.testing.assert_array_equal(read_image(path, slices=SliceChoice("frame", 3)).pixels, frames[3])
    with pytest.raises(UserError, match="has slices 0 to 3; frame:4 was asked for"):
        read_image(path, slices=SliceChoice("frame", 4))


def test_run_length_encoding_and_no_suffix(tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) // 9
    path = write(tmp_path / "a.dcm", pixels, syntax=RLELossless)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_image(path).pixels, pixels)
    path.rename(tmp_path / "IM000001")
    np.testing.assert_array_equal(read_image(tmp_path / "IM000001").pixels, pixels)


def test_a_compression_without_decoder_is_named(tmp_path: Path) -> None:
    encoded = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7 no decoder is here"])
    path = write(tmp_path / "a.dcm", RAW, syntax=JPEGLSLossless, PixelData=encoded)
    with pytest.raises(UserError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path} is compressed (JPEG-LS Lossless Image Compression) and cannot be unpacked here; "
        "convert it to uncompressed DICOM first, for example with gdcmconv --raw."
    )


def test_damaged_and_pictureless_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", np.zeros((64, 64), np.int16))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"a\.dcm is damaged or cut short; copy or export it again\."):
        read_image(path)
    (tmp_path / "t.dcm").write_text("plain text " * 50)
    with pytest.raises(UserError, match=r"t\.dcm is not a DICOM file or is damaged"):
        read_image(tmp_path / "t.dcm")
    report = write(tmp_path / "r.dcm", RAW)
    dataset = pydicom.dcmread(report)
    del dataset.PixelData
    dataset.save_as(report)
    with pytest.raises(UserError, match=r"r\.dcm holds no picture"):
        read_image(report)
