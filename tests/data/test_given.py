"""Pictures that a program gives: Pillow's images of every mode are what their files are read as."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from scanfuse.data.readers import read_image
from scanfuse.data.readers.given import image_of
from scanfuse.errors import UserError

MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16"]


def picture(mode: str) -> PIL.Image.Image:
    grey = PIL.Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5)
    if mode == "I;16":
        return PIL.Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000)
    colour = PIL.Image.merge("RGB", (grey, grey.rotate(180), grey))
    if mode in ("RGBA", "LA"):
        return PIL.Image.merge("RGBA", (*colour.split(), grey)).convert(mode)
    return (colour if mode in ("RGB", "P", "PA") else grey).convert(mode)


@pytest.mark.parametrize("mode", MODES)
def test_an_image_is_its_file(mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{'png' if mode != 'PA' else 'tif'}"
    made = picture(mode)
    if mode != "PA":
        made.save(path)
        expected = read_image(path)
        with PIL.Image.open(path) as opened:
            found = image_of("ct", opened)
        assert found.source == path and found.stored == expected.stored
    else:
        expected = image_of("ct", made.convert("RGBA"))
    for each in [image_of("ct", made)] if mode == "PA" else [found, image_of("ct", made)]:
        assert each.pixels.dtype == expected.pixels.dtype and (each.low, each.high) == (expected.low, expected.high)
        assert np.array_equal(each.pixels, expected.pixels)
    assert image_of("ct", made).source == Path("ct")


def test_the_orientation_of_a_camera_is_applied(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    picture("L").save(tmp_path / "x.png", exif=exif)
    with PIL.Image.open(tmp_path / "x.png") as opened:
        assert image_of("ct", opened).size == read_image(tmp_path / "x.png").size == (8, 6)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("uint8", 0, 255), ("uint16", 0, 65535), ("int16", -3, 44), (">i4", -3, 44), ("<f4", -3, 44)],
)
def test_arrays_have_the_range_of_their_type(dtype: str, low: float, high: float) -> None:
    values = np.arange(48).reshape(6, 8) - (0 if dtype.startswith("u") else 3)
    found = image_of("ct", values.astype(dtype))
    assert (found.low, found.high) == (low, high)
    assert np.array_equal(found.pixels, values) and found.pixels.dtype.isnative


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(UserError, match="claims 20000 x 20000 pixels"):
        image_of("ct", PIL.Image.new("1", (20000, 20000)))
