"""The task of image fusion: plain methods, scores, and what is written."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from fusing import PAIR, TASK, batch_of, colour, first, fused, grey, run

from scanfuse.data.manifest import Manifest
from scanfuse.data.readers import read_image
from scanfuse.data.synthetic import harvard
from scanfuse.errors import UserError
from scanfuse.metrics.fusion import METRICS
from scanfuse.tasks import Asked, Method
from scanfuse.tasks.fuse.fused import FusedImage
from scanfuse.tasks.fuse.images import Images


def baselines(a: np.ndarray, b: np.ndarray) -> dict[str, FusedImage]:
    return {name: found[0] for name, found in TASK.baselines(batch_of((a, b))).items()}


def test_baselines_are_plain_arithmetic_on_the_values() -> None:
    """The sources' own luminances, not stretched."""
    a, b = grey("uint8", 30, 120), grey("uint8", 0, 200, seed=1)
    results = {name: result.pixels for name, result in baselines(a, b).items()}
    assert list(results) == list(Images.baselines)
    assert np.array_equal(results["maximum"], np.maximum(a, b))
    assert np.abs(results["average"] - (a.astype(float) + b) / 2).max() <= 0.5
    assert np.array_equal(baselines(a, a)["laplacian"].pixels, a)


@pytest.mark.parametrize("pair", [("CT", "MRI"), ("SPECT", "MRI")])
def test_scores_are_those_of_the_stored_pixels(pair: tuple[str, str], tmp_path: Path) -> None:
    """For grey pairs to the last bit; the luminance of a colour picture, in whole thousandths, nearly so."""
    heads = harvard.render(2, slices=1, size=176)[0]  # five scales of the multi-scale SSIM need 161 pixels
    batch = batch_of((heads[pair[0]], heads[pair[1]]))
    main, _ = TASK.save(baselines(heads[pair[0]], heads[pair[1]])["maximum"], tmp_path)
    with PIL.Image.open(main) as opened:
        stored = np.asarray(opened).astype(np.float64)

    def luminance(pixels: np.ndarray) -> np.ndarray:
        values = pixels.astype(np.float64)
        return values if values.ndim == 2 else values @ np.array([299.0, 587.0, 114.0]) / 1000

    table = pd.DataFrame({"id": ["a"], "group": ["a"], "split": ["test"], "target": [""], "a": ["a"], "b": ["b"]})
    methods = {"run": Method(TASK, [(batch, fused(first, batch))])}
    evaluation = TASK.evaluate(methods, Manifest(table, PAIR), Asked("test", pictures=1, quiet=True))
    assert evaluation.methods == ["run", *Images.baselines]
    assert evaluation.better == {name: metric.better for name, metric in METRICS.items()}
    assert list(evaluation.pictures) == ["gallery.png"]
    (scores,) = [row for row in evaluation.rows if row["method"] == "maximum"]
    assert list(scores) == ["method", "id", "group", *METRICS]
    for name, metric in METRICS.items():
        expected = metric.function(luminance(stored), luminance(heads[pair[0]]), luminance(heads[pair[1]]))
        # where a fused gradient exceeds the others by rounding alone, false edges jump
        tolerance = 0 if pair[0] == "CT" else 0.1 if name == "nabf" else 1e-4
        assert scores[name] == pytest.approx(expected, rel=tolerance, abs=0), name
        assert evaluation.cells["maximum"][name].mean == scores[name]  # of one sample


@pytest.mark.parametrize(
    ("pixels", "suffix"),
    [
        (grey("uint8", 0, 255), ".png"),
        (grey("uint16", 0, 65535), ".png"),
        (colour(6), ".png"),
        (colour(6, "uint16"), ".png"),
        (grey("int16", -1024, 3071), ".tif"),
        (grey("float32", -2.5, 0.25), ".tif"),
    ],
    ids=["uint8", "uint16", "rgb8", "rgb16", "int16", "float32"],
)
def test_saved_files_hold_the_values(pixels: np.ndarray, suffix: str, tmp_path: Path) -> None:
    result = run(first, pixels, pixels)
    main, picture = TASK.save(result, tmp_path)
    assert (main.name, picture.name) == (f"a{suffix}", "a_side_by_side.png")
    assert sorted(os.listdir(tmp_path)) == sorted([main.name, picture.name])
    back = read_image(main).pixels
    assert back.dtype == (pixels.dtype if suffix == ".png" else np.float32)
    assert back.shape == pixels.shape
    np.testing.assert_allclose(back, pixels, rtol=0, atol=1e-6)
    with PIL.Image.open(picture) as opened:
        assert opened.size[1] == 12 + 22


def test_an_id_with_slashes_is_one_file(tmp_path: Path) -> None:
    result = run(first, grey("uint8", 0, 255), grey("uint8", 0, 255))
    odd = FusedImage(**{**vars(result), "id": "../case/1\\2"})
    main, _ = TASK.save(odd, tmp_path / "out")
    assert main.parent == tmp_path / "out" and main.name.startswith("_case_1_2-")
    assert main.is_file()
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("written", [0, 1])
def test_a_failure_while_saving_leaves_no_half_file(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the first or at the second of the two files; both were there before."""
    source = grey("uint8", 0, 255)
    old = TASK.save(run(first, source, source), tmp_path)
    before = [path.read_bytes() for path in old]
    original = PIL.Image.Image.save
    left = written

    def full_disk(self: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            original(self, file, *args, **kwargs)
        else:
            Path(file).write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(PIL.Image.Image, "save", full_disk)
    other = run(first, source[::-1], source)
    with pytest.raises(UserError, match="No space left"):
        TASK.save(other, tmp_path)
    unchanged = [path.read_bytes() == content for path, content in zip(old, before, strict=True)]
    assert unchanged == [written == 0, True]
    assert sorted(path.name for path in old) == sorted(os.listdir(tmp_path))
