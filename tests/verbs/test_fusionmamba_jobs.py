"""Whole Fusion-Mamba jobs through the command line, on tiny road phantoms."""

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file

from scanfuse.backbones.yolo import SIZES, YOLO
from scanfuse.backbones.yolov8_checkpoint import _published_name
from scanfuse.cli import main
from scanfuse.data.readers import read_image
from scanfuse.metrics.detection.coco import library_scores
from scanfuse.tasks.detect.detections import from_coco, image_boxes
from scanfuse.verbs.training import Training
from video_files import write_video
from whole_jobs import Capture, fails, json_of, table_of

TRAIN = "--preset tiny --size 64 --depth 1 --batch 4 --threads 1 --device cpu --quiet".split()


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def train(data: Path, out: Path, *options: str) -> list[str]:
    return ["train", "fusionmamba", "--data", str(data), "--out", str(out), *TRAIN, *options]


@pytest.fixture(scope="module")
def runs(roads: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two runs: "fused" with everything random that training has, evaluated, and "add". Do not write into them."""
    root = tmp_path_factory.mktemp("runs")
    flags = "--epochs 2 --close-mosaic 1 --ir-dropout 0.3 --ema 0.5 --nominal-batch 8 --warmup-bias-lr 0.01".split()
    assert main(train(roads, root / "fused", *flags)) == 0
    assert main(train(roads, root / "add", "--epochs", "1", "--fusion", "add")) == 0
    where = [str(root / "fused"), "--data", str(roads), "--quiet"]
    assert main(["evaluate", *where, "--on", "all", "--each-missing"]) == 0
    return {"fused": root / "fused", "add": root / "add"}


def pair_of(root: Path, place: int = 0) -> tuple[Path, Path]:
    rgb = sorted((root / "vi").iterdir())[place]
    return rgb, root / "ir" / rgb.name


# --- training -----------------------------------------------------------------------------------------------------


def test_a_training_fills_the_run_folder(runs: dict[str, Path], roads: Path) -> None:
    run = runs["fused"]
    names = {"config.yaml", "model.safetensors", "run.json", "split.csv", "history.csv", "environment.json"}
    found = set(os.listdir(run))
    assert names | {"checkpoint.pt", "decision.json", "evaluation", "batches"} <= found
    assert json_of(run / "decision.json")["classes"] == ["bicycle", "car", "person"]
    record = json_of(run / "run.json")
    assert record["finished"] and record["selected_by"] in ("map", "loss")
    assert record["started_from"].startswith("The streams start from random weights")
    for picture in sorted((run / "batches").iterdir()):
        with PIL.Image.open(picture) as image:
            assert image.size[1] == 2 * 64 and image.size[0] % 64 == 0
    split = table_of(run / "split.csv")
    assert set(split["split"]) == {"train", "val", "test"} and len(split) == 10
    assert split.groupby("group")["split"].nunique().max() == 1
    assert float(history(run)[1]["val_loss"]) != float(history(run)[0]["val_loss"])


def test_a_stopped_training_continues_bit_for_bit(
    runs: dict[str, Path], roads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With mosaic, dropped sensors, accumulated gradients, averaged weights and a bias rate of its own."""
    original = Training._update

    def update(self: Any) -> None:
        original(self)
        if self.state.updates == 1:
            os.kill(os.getpid(), signal.SIGINT)

    again = tmp_path / "again"
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", update)
        source = str(runs["fused"] / "config.yaml")
        assert main(["train", "--from", source, "--data", str(roads), "--out", str(again), "--quiet"]) == 130
    torch.manual_seed(999)
    assert main(["train", "--resume", str(again), "--data", str(roads), "--quiet"]) == 0
    for name in ("model.safetensors", "decision.json", "config.yaml"):
        assert (again / name).read_bytes() == (runs["fused"] / name).read_bytes(), name
    assert history(again) == history(runs["fused"])


@pytest.mark.parametrize(
    "options",
    ["--precision bf16 --workers 1", "--stream timm --timm-model resnet10t", "--variant v5 --optimizer sgd"],
)
def test_other_ways_to_train(options: str, roads: Path, tmp_path: Path) -> None:
    """Half precision with a loader of its own, a network of timm, YOLOv5: each trains, and its run is scored."""
    run = tmp_path / "run"
    assert main(train(roads, run, "--epochs", "1", *options.split())) == 0
    assert all(np.isfinite(float(value)) for name, value in history(run)[0].items() if "loss" in name)
    assert main(["evaluate", str(run), "--data", str(roads), "--on", "all", "--quiet"]) == 0
    cells = next(iter(json_of(run / "evaluation/all/evaluation.json")["cells"].values()))
    assert 0 <= cells["map50"]["mean"] <= 1


# --- evaluation, comparison, report -------------------------------------------------------------------------------


def test_the_evaluation_is_that_of_the_coco_library(runs: dict[str, Path], roads: Path, tmp_path: Path) -> None:
    """The written predictions of all images, scored by the library against the written truth, give the table."""
    assert main(["predict", str(runs["fused"]), "--data", str(roads), "--out", str(tmp_path)]) == 0
    data, rows = json_of(tmp_path / "dataset.json"), json_of(tmp_path / "predictions.json")
    images = [image_boxes(each) for each in from_coco(rows, data)]
    expected, _ = library_scores(images, len(data["categories"]))
    content = json_of(runs["fused"] / "evaluation/all/evaluation.json")
    cells = next(iter(content["cells"].values()))
    assert (content["samples"], content["groups"]) == (10, 10)
    for name in ("map", "map50", "map75"):
        assert cells[name]["mean"] == pytest.approx(expected[name], abs=1e-6)


def test_the_evaluation_has_its_parts(runs: dict[str, Path]) -> None:
    folder = runs["fused"] / "evaluation/all"
    content = json_of(folder / "evaluation.json")
    parts = content["parts"]
    assert {"AP of each class", "AP50 of each class", "with a sensor missing"} <= set(parts)
    assert parts["with a sensor missing"]["methods"] == ["both", "without rgb", "without ir"]
    assert {"map", "map50", "map75"} <= set(content["metrics"] if "metrics" in content else content["better"])
    curves = json_of(folder / "curves.json")
    assert set(curves["precision"]) == {"bicycle", "car", "person"} and np.shape(curves["confusion"]) == (4, 4)
    with PIL.Image.open(folder / "gallery.png") as gallery:
        assert gallery.size[0] > 128


def test_runs_are_compared_over_scenes(runs: dict[str, Path], roads: Path, tmp_path: Path) -> None:
    where = ["--data", str(roads), "--on", "all", "--out", str(tmp_path), "--quiet"]
    assert main(["compare", str(runs["fused"]), str(runs["add"]), *where]) == 0
    content = json_of(tmp_path / "comparison.json")
    assert "scenes" in (tmp_path / "comparison.md").read_text()
    metrics = {row["metric"] for row in content["rows"]}
    assert {"map", "map50"} <= metrics
    for row in content["rows"]:
        assert row["p_value"] is None or 0 <= row["p_value"] <= 1


def test_the_report_shows_curves_and_thresholds(runs: dict[str, Path], roads: Path) -> None:
    assert main(["report", str(runs["fused"])]) == 0
    page = (runs["fused"] / "report.html").read_text()
    for text in ("Precision and recall at IoU 0.5", "Confusion at IoU 0.5", "boxes of person", "Score thresholds"):
        assert text in page, text


# --- prediction ---------------------------------------------------------------------------------------------------


def test_two_images_and_a_folder_agree(runs: dict[str, Path], roads: Path, tmp_path: Path, capsys: Capture) -> None:
    run = str(runs["fused"])
    rgb, ir = pair_of(roads)
    assert main(["predict", run, "--rgb", str(rgb), "--ir", str(ir), "--out", str(tmp_path / "one")]) == 0
    assert capsys.readouterr().out.startswith(f"{rgb.stem}: ")
    assert main(["predict", run, "--data", str(roads), "--out", str(tmp_path / "all")]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "10 predicted" in last and "a second" in last
    flags = ["--rgb", str(roads / "vi"), "--ir", str(roads / "ir")]
    assert main(["predict", run, *flags, "--out", str(tmp_path / "folders")]) == 0
    one = json_of(tmp_path / "one" / f"{rgb.stem}.json")["boxes"]
    for folder in ("all", "folders"):
        table = table_of(tmp_path / folder / "predictions.csv")
        mine = table[table["id"] == rgb.stem]
        assert len(mine) == len(one) > 0
        np.testing.assert_allclose(mine[["x1", "y1", "x2", "y2"]], [row["box"] for row in one], atol=1e-3)
        np.testing.assert_allclose(mine["score"], [row["score"] for row in one], atol=1e-5)
        assert len(list((tmp_path / folder / "pictures").iterdir())) == 10
    assert "annotations" in json_of(tmp_path / "all" / "dataset.json")
    assert json_of(tmp_path / "folders" / "dataset.json")["annotations"] == []


def test_two_videos_are_pairs_frame_by_frame(
    runs: dict[str, Path], roads: Path, tmp_path: Path, capsys: Capture
) -> None:
    frames: dict[str, list[np.ndarray]] = {"rgb": [], "ir": []}
    for place in range(10):
        for name, path in zip(frames, pair_of(roads, place), strict=True):
            frames[name].append(read_image(path).pixels)
    rgb = write_video(tmp_path / "drive.mkv", frames["rgb"], codec="ffv1", pix_fmt="bgr0", given="rgb24")
    ir = write_video(tmp_path / "heat.mkv", frames["ir"], codec="ffv1", pix_fmt="gray", given="gray")
    command = ["predict", str(runs["fused"]), "--rgb", str(rgb)]
    assert main([*command, "--ir", str(ir), "--out", str(tmp_path / "video")]) == 0
    assert "10 predicted" in capsys.readouterr().out
    flags = ["--rgb", str(roads / "vi"), "--ir", str(roads / "ir")]
    assert main([*command[:2], *flags, "--out", str(tmp_path / "folders")]) == 0
    of_video, of_files = (table_of(tmp_path / name / "predictions.csv") for name in ("video", "folders"))
    assert list(of_video["id"].unique()) == [f"drive_{number:04d}" for number in range(10)]
    # ffv1 loses nothing, so every frame has the boxes of its file.
    columns = ["x1", "y1", "x2", "y2", "score"]
    np.testing.assert_allclose(of_video[columns], of_files[columns], atol=1e-3)
    pictures = [sorted((tmp_path / name / "pictures").iterdir()) for name in ("video", "folders")]
    shapes = [[read_image(path).size for path in each] for each in pictures]
    assert len(shapes[0]) == 10 and shapes[0] == shapes[1]
    assert "videos for all inputs" in fails([*command, "--ir", str(pair_of(roads)[1])], capsys)
    short = write_video(tmp_path / "short.mkv", frames["ir"][:7], codec="ffv1", pix_fmt="gray", given="gray")
    assert "short.mkv ends after 7 frames" in fails([*command, "--ir", str(short)], capsys)


def test_rgb_alone_is_what_is_left_without_infrared(runs: dict[str, Path], roads: Path, tmp_path: Path) -> None:
    run, (rgb, ir) = str(runs["fused"]), pair_of(roads)
    black = tmp_path / "black.png"
    PIL.Image.fromarray(np.zeros((48, 64), np.uint8)).save(black)
    boxes = {}
    for name, flags in {"both": ["--ir", str(ir)], "alone": [], "black": ["--ir", str(black)]}.items():
        assert main(["predict", run, "--rgb", str(rgb), *flags, "--out", str(tmp_path / name)]) == 0
        boxes[name] = json_of(tmp_path / name / f"{rgb.stem}.json")["boxes"]
    assert boxes["alone"] != boxes["both"]
    assert main(["predict", run, "--rgb", str(roads / "vi"), "--out", str(tmp_path / "folder")]) == 0
    table = table_of(tmp_path / "folder" / "predictions.csv")
    np.testing.assert_allclose(
        table[table["id"] == rgb.stem]["score"], [row["score"] for row in boxes["alone"]], atol=1e-5
    )


def test_an_explanation_shows_a_box_and_each_sensor_left_out(
    runs: dict[str, Path], roads: Path, tmp_path: Path, capsys: Capture
) -> None:
    id = pair_of(roads)[0].stem
    command = ["explain", str(runs["fused"]), "--data", str(roads), "--id", id, "--out", str(tmp_path)]
    assert main(command) == 0
    content = json.loads(next(tmp_path.rglob("*.json")).read_text())
    assert set(content["without"]) == {"rgb", "ir"} and content["level"] in ("p3", "p4", "p5")
    assert all(0 <= score <= 1 for score in content["without"].values())
    assert list(tmp_path.rglob("*.png"))
    assert "There is no class 'cat'" in fails([*command, "--label", "cat"], capsys)


# --- weights ------------------------------------------------------------------------------------------------------


def test_published_weights_are_imported_and_trained_from(roads: Path, tmp_path: Path, capsys: Capture) -> None:
    """A made-up checkpoint of size n in the published key layout; the size of the network follows the file."""
    torch.manual_seed(0)
    made = YOLO(SIZES["n"], num_classes=80).state_dict()
    file = tmp_path / "yolov8n.pt"
    torch.save({"model": {_published_name(key): tensor for key, tensor in made.items()}}, file)
    folder = tmp_path / "imported"
    assert main(["import", "yolov8", str(file), "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "YOLOv8 (n)" in said and f"scanfuse train fusionmamba --weights {folder}" in said
    assert torch.equal(
        load_file(folder / "weights.safetensors")["neck.down3.conv.weight"], made["neck.down3.conv.weight"]
    )
    assert "already holds" in fails(["import", "yolov8", str(file), "--out", str(folder)], capsys)
    options = ["--weights", str(folder), "--network", "s", "--epochs", "1", "--lr", "1e-9", "--weight-decay", "0"]
    assert main(train(roads, tmp_path / "run", *options)) == 0
    trained = load_file(tmp_path / "run" / "model.safetensors")
    torch.testing.assert_close(
        trained["neck.down3.conv.weight"], made["neck.down3.conv.weight"], atol=1e-6, rtol=1e-4
    )
    stem = made["backbone.stages.0.0.conv.weight"]
    torch.testing.assert_close(trained["streams.rgb.stages.0.0.conv.weight"], stem, atol=1e-6, rtol=1e-4)
    mean = stem.mean(dim=1, keepdim=True).expand_as(stem)
    torch.testing.assert_close(trained["streams.ir.stages.0.0.conv.weight"], mean, atol=1e-6, rtol=1e-4)
    started = json_of(tmp_path / "run" / "run.json")["started_from"]
    assert "YOLOv8 (n)" in started and "the file has 80, the detector 3" in started
    assert "needs --stream timm" in fails(train(roads, tmp_path / "no", "--weights", "timm"), capsys)
    assert "There is no file" in fails(train(roads, tmp_path / "no", "--weights", "absent.pt"), capsys)


# --- data that are wrong ------------------------------------------------------------------------------------------


def no_boxes(root: Path) -> None:
    for file in root.glob("labels/*/*.txt"):
        file.write_text("")


def all_lines(root: Path, text: str) -> None:
    for file in sorted(root.glob("labels/visible/*.txt"))[:1]:
        file.write_text(text)


def no_thermal_frame(root: Path) -> None:
    sorted((root / "ir").iterdir())[3].unlink()


def other_size(root: Path) -> None:
    PIL.Image.new("L", (72, 48)).save(sorted((root / "ir").iterdir())[2])


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no boxes": (no_boxes, "no box at all"),
    "zero area": (lambda root: all_lines(root, "0 0.5 0.5 0 0.2\n"), "line 1"),
    "outside": (lambda root: all_lines(root, "0 1.009 0.5 0.01 0.5\n"), "lies outside the picture"),
    "not finite": (lambda root: all_lines(root, "0 nan 0.5 0.1 0.2\n"), "line 1"),
    "unknown class": (lambda root: all_lines(root, "7 0.5 0.5 0.1 0.2\n"), "line 1"),
    "no thermal frame": (no_thermal_frame, "has no partner in"),
    "sizes": (other_size, "registered to one size"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE)
def test_bad_data_are_one_line(
    damage: Callable[[Path], None], says: str, roads: Path, tmp_path: Path, capsys: Capture
) -> None:
    root = Path(shutil.copytree(roads, tmp_path / "data"))
    damage(root)
    assert says in fails(train(root, tmp_path / "run"), capsys)
    assert not (tmp_path / "run").exists()
    assert main(["data", "check", "fusionmamba", str(root)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert says in lines[0] or "No picture has a box" in lines[0]


def test_bad_inputs_of_a_prediction_are_one_line(
    runs: dict[str, Path], roads: Path, tmp_path: Path, capsys: Capture
) -> None:
    run, (rgb, ir), out = str(runs["fused"]), pair_of(roads), ["--out", str(tmp_path / "out")]
    small, some = tmp_path / "small.png", tmp_path / "some"
    PIL.Image.new("L", (32, 24)).save(small)
    some.mkdir()
    shutil.copy(ir, some / ir.name)
    for flags, says in (
        ([], "Nothing to predict"),
        (["--lidar", str(ir)], "lidar"),
        (["--rgb", str(rgb), "--ir", str(small)], "register them to one size first"),
        (["--rgb", str(rgb), "--ir", str(roads / "ir")], "Give folders for all inputs, or a file for each"),
        (["--rgb", str(roads / "vi"), "--ir", str(some)], "has no partner in"),
        (["--rgb", str(tmp_path / "absent.png")], "absent.png"),
    ):
        assert says in fails(["predict", run, *flags, *out], capsys), flags
        assert not (tmp_path / "out").exists()
    joint = ["evaluate", run, str(runs["add"]), "--data", str(roads), "--ensemble", "--quiet"]
    assert "without --ensemble" in fails(joint, capsys)


def test_a_good_data_set_is_checked_in_a_line(roads: Path, capsys: Capture) -> None:
    assert main(["data", "check", "fusionmamba", str(roads)]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("0 error(s)")


def test_the_demonstration_has_a_plain_rival_and_shows_what_each_sensor_leaves(
    tmp_path: Path, capsys: Capture
) -> None:
    assert main(["demo", "fusionmamba", "--quick", "--out", str(tmp_path)]) == 0
    content = json_of(tmp_path / "run/evaluation/test/evaluation.json")
    assert content["methods"] == ["fusionmamba", "plain sum"]
    for method in content["methods"]:
        missing = content["parts"][f"with a sensor missing ({method})"]["methods"]
        assert missing == ["both", "without rgb", "without ir"]
    said = capsys.readouterr().out
    assert "with a sensor missing (fusionmamba)" in said and "plain sum - fusionmamba" in said
    assert (tmp_path / "run/report.html").is_file()
