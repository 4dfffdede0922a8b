"""`scanfuse explain` as a whole job: maps of the right size, place and value; numbers as predictions give them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from scanfuse.cli import main
from scanfuse.data.transforms.placement import place
from scanfuse.explain.overlay import overlay
from scanfuse.tasks.classify.explain import Outcome
from scanfuse.verbs.explain import batches_of, explain
from scanfuse.verbs.predict import load

Capture = pytest.CaptureFixture[str]


def explained(run: Path, data: Path, study: str, out: Path, *options: str) -> dict[str, Any]:
    """Runs the command; folder of the pair -> content of its explanation.json."""
    assert main(["explain", str(run), "--data", str(data), "--id", study, "--out", str(out), *options]) == 0
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(out.glob("*/explanation.json"))}


def studies_of(run: Path) -> pd.DataFrame:
    """Test studies with their number of pictures and their probability."""
    table = pd.read_csv(run / "evaluation" / "test" / "per_sample.csv", index_col="id")
    split = pd.read_csv(run / "split.csv", comment="#", index_col="id").loc[table.index]
    views = [name for name in split if name.startswith("view")]
    return table.assign(count=split[views].notna().sum(axis=1))


def pictures_of(run: Path, data: Path, study: str) -> list[Path]:
    row = next(row for row in load(run).system.data.open(data).rows if row.id == study)
    return list(row.paths.values())


def predicted(run: Path, out: Path, **views: Path) -> float:
    """Probability of the positive class from `scanfuse predict`."""
    files = [f"--{name}={path}" for name, path in views.items()]
    assert main(["predict", str(run), *files, "--out", str(out)]) == 0
    (file,) = out.glob("*.json")
    return float(next(iter(json.loads(file.read_text())["probabilities"].values())))


def test_a_study_of_two_views(bones_run: Path, bones: Path, tmp_path: Path) -> None:
    """Overlays have the size of their pictures; the numbers are those of the predictions with and without a view."""
    studies = studies_of(bones_run)
    study = str(studies.index[studies["count"] == 2][0])
    found = explained(bones_run, bones, study, tmp_path / "x")
    ((name, content),) = found.items()
    assert name == f"{study}__view+view_2"
    files = pictures_of(bones_run, bones, study)
    assert files[0].name == "image1.png" and files[1].name == "image2.png"
    assert {path.name for path in (tmp_path / "x" / name).iterdir()} == {
        "panel.png",
        "explanation.json",
        *(f"{view}_{kind}.png" for view in ("view_a", "view_b") for kind in ("view", "fused")),
    }
    for view, file in zip(("view_a", "view_b"), files, strict=True):
        with Image.open(file) as original:
            size = original.size
        for kind in ("view", "fused"):
            with Image.open(tmp_path / "x" / name / f"{view}_{kind}.png") as picture:
                assert (picture.size, picture.mode) == (size, "RGB")
    assert size[0] != size[1]  # so that exchanged sides would show

    positive = studies.loc[study, "p_abnormal"]
    cut = json.loads((bones_run / "decision.json").read_text())["thresholds"][0]
    called = positive >= cut
    assert content["outcome"] == ("abnormal" if called else "not abnormal")
    assert (content["id"], content["study"], content["group"]) == (name, study, study.split("-")[1])

    def outcome(p: float) -> float:
        return p if called else 1 - p

    assert content["probability"] == pytest.approx(outcome(positive), rel=1e-5)
    assert content["probability_of_study"] == pytest.approx(outcome(positive), rel=1e-5)
    without = {
        "view_a": outcome(predicted(bones_run, tmp_path / "b", view_b=files[1])),
        "view_b": outcome(predicted(bones_run, tmp_path / "a", view_a=files[0])),
    }
    for view, expected in without.items():
        assert content["without_view"][view] == pytest.approx(expected, rel=1e-5)
        assert content["drop_of_view"][view] == pytest.approx(content["probability"] - expected, abs=1e-6)
    assert len({*content["without_view"].values(), content["probability"]}) == 3


def test_the_joint_map_is_worked_by_hand(bones_run: Path, bones: Path, tmp_path: Path) -> None:
    """A linear layer on the mean follows the joint map, so its Grad-CAM is relu(w . A) / places, as a picture too."""
    studies = studies_of(bones_run)
    study = str(studies.index[studies["count"] == 2][0])
    content = next(iter(explained(bones_run, bones, study, tmp_path / "x").values()))
    predictor = load(bones_run, device="cpu")
    system = predictor.system
    manifest = system.data.open(bones, split=False)
    (batch,) = batches_of(predictor, manifest, study)
    kept: list[torch.Tensor] = []
    handle = system.model.get_submodule("fused").register_forward_hook(lambda *found: kept.append(found[2]))
    with torch.no_grad():
        system.forward(batch)
    handle.remove()
    weight = system.model.get_submodule("head").weight.detach()
    called = system.task.subject(predictor.raw(batch))
    assert called.name == content["outcome"]
    seen = 0.0
    for against in (False, True):
        direction = (weight[1] - weight[0]) * (-1 if against else 1)
        evidence = (torch.einsum("c,bchw->bhw", direction, kept[0]).relu() / kept[0][0, 0].numel())[0]
        largest = float(evidence.max())
        seen = max(seen, largest)
        heat = (evidence / largest if largest else evidence).numpy()
        found = explain(predictor, batch, Outcome(0, against, "x"))
        for view, placement in batch["meta"][0]["placements"].items():
            expected = place(heat, placement)
            np.testing.assert_allclose(found.heats[view]["fused"], expected, atol=1e-4)
            if against != called.against:
                continue
            file = tmp_path / "x" / content["id"] / f"{view}_fused.png"
            with Image.open(batch["meta"][0]["paths"][view]) as original, Image.open(file) as written:
                painted = overlay(np.asarray(original), expected)
                assert np.abs(np.asarray(written).astype(int) - painted).max() <= 1
    assert seen > 0


def test_a_study_of_one_view(bones_run: Path, bones: Path, tmp_path: Path) -> None:
    studies = studies_of(bones_run)
    study = str(studies.index[studies["count"] == 1][0])
    ((name, content),) = explained(bones_run, bones, study, tmp_path / "x").items()
    assert name == f"{study}__view+none"
    assert content["without_view"] == content["drop_of_view"] == {}
    assert content["maps"] == {"view_a": ["fused", "view"]}
    assert {path.name for path in (tmp_path / "x" / name).glob("view*")} == {"view_a_view.png", "view_a_fused.png"}


def test_all_pairs_of_a_study_speak_of_its_outcome(bones_run: Path, bones: Path, tmp_path: Path) -> None:
    """Four views, six pairs, each with its own probability, of what the study as a whole is called."""
    studies = studies_of(bones_run)
    study = str(studies.index[studies["count"] == 4][0])
    found = explained(bones_run, bones, study, tmp_path / "x", "--method", "hirescam")
    assert len(found) == 6
    assert len({content["outcome"] for content in found.values()}) == 1
    assert len({content["probability_of_study"] for content in found.values()}) == 1
    assert len({content["probability"] for content in found.values()}) > 1
    pairs = pd.read_csv(bones_run / "evaluation" / "test" / "per_sample_pairs.csv", index_col="id")["p_abnormal"]
    positive = next(iter(found.values()))["outcome"] == "abnormal"
    for name, content in found.items():
        assert content["probability"] == pytest.approx(pairs[name] if positive else 1 - pairs[name], rel=1e-5)


def test_a_wanted_label_and_more_pairs_than_are_shown(
    bones_run: Path, bones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Five views are ten pairs; six are explained, and that is said. A label is explained though it is not called."""
    pictures = sorted(bones.rglob("image1.png"))[:5]
    rows = [f"s,p,{path}" for path in pictures]
    (tmp_path / "manifest.csv").write_text("\n".join(["study,patient,path", *rows]) + "\n")
    found = explained(bones_run, tmp_path, "s", tmp_path / "x", "--label", "abnormal")
    assert len(found) == 6
    assert [record.getMessage() for record in caplog.records if record.name == "scanfuse.verbs.explain"] == [
        "s has 10 pairs of views; the first 6 are explained."
    ]
    assert main(["predict", str(bones_run), "--data", str(tmp_path), "--out", str(tmp_path / "p")]) == 0
    table = pd.read_csv(tmp_path / "p" / "predictions.csv")
    for content in found.values():
        assert content["outcome"] == "abnormal"
        assert content["probability_of_study"] == pytest.approx(table["p_abnormal"][0], abs=1e-6)


def test_a_single_view_run_is_explained_on_the_view_it_sees(
    train_bones: Callable[..., Path], bones: Path, tmp_path: Path
) -> None:
    """With both views it looks at the first alone; with the lateral view alone at that."""
    run = train_bones("one_view", "--fusion", "single", "--seed", "1")
    a, b = sorted(bones.rglob("image1.png"))[:2]
    rows = [f"both,p,PA,{a}", f"both,p,L,{b}", f"alone,q,L,{b}"]
    (tmp_path / "manifest.csv").write_text("\n".join(["study,patient,view,path", *rows]) + "\n")
    (both,) = explained(run, tmp_path, "both", tmp_path / "both").values()
    assert both["drop_of_view"]["view_b"] == pytest.approx(0, abs=1e-7)
    assert both["drop_of_view"]["view_a"] != 0
    with Image.open(tmp_path / "both" / "both__frontal+lateral" / "view_b_view.png") as seen, Image.open(b) as plain:
        assert np.array_equal(np.asarray(seen), np.asarray(plain.convert("RGB")))
    (alone,) = explained(run, tmp_path, "alone", tmp_path / "alone").values()
    assert alone["maps"] == {"view_b": ["view"]}
    assert both["without_view"]["view_a"] == pytest.approx(
        alone["probability"] if alone["outcome"] == both["outcome"] else 1 - alone["probability"], rel=1e-5
    )
    predictor = load(run, device="cpu")
    manifest = predictor.system.data.open(tmp_path, split=False)
    (batch,) = batches_of(predictor, manifest, "alone")
    heats = [explain(predictor, batch, Outcome(0, against, "x")).heats["view_b"]["view"] for against in (False, True)]
    assert max(float(heat.max()) for heat in heats) > 0  # evidence for or against, on the lateral picture


def test_flips_count_in_the_ablation_too(train_bones: Callable[..., Path], bones: Path, tmp_path: Path) -> None:
    flags = "--test-time-flips true --epochs 1 --pairing first"
    run = train_bones("mirrored", *flags.split())
    a, b = sorted(bones.rglob("image1.png"))[3:5]
    rows = [f"s,p,{path}" for path in (a, b)]
    (tmp_path / "manifest.csv").write_text("\n".join(["study,patient,path", *rows]) + "\n")
    (content,) = explained(run, tmp_path, "s", tmp_path / "x", "--label", "abnormal").values()
    assert content["probability"] == pytest.approx(predicted(run, tmp_path / "p", view_a=a, view_b=b), rel=1e-6)
    assert content["without_view"]["view_b"] == pytest.approx(predicted(run, tmp_path / "a", view_a=a), rel=1e-6)
    assert content["without_view"]["view_a"] == pytest.approx(predicted(run, tmp_path / "b", view_b=b), rel=1e-6)


def test_mistakes_are_one_line_and_nothing_is_written(
    bones_run: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    study = str(studies_of(bones_run).index[0])
    out = tmp_path / "x"
    for options, message in (
        (["--data", str(bones), "--id", "nobody"], "There is no sample 'nobody' in the data; ids look like "),
        (["--data", str(bones), "--id", study, "--label", "fracture"], "There is no label 'fracture'"),
        (["--data", str(bones / "nowhere"), "--id", study], "does not exist"),
        (["--data", str(bones), "--id", study, "--method", "magic"], "magic"),
        (["--data", str(bones)], "--id"),
    ):
        capsys.readouterr()
        assert main(["explain", str(bones_run), *options, "--out", str(out)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and message in lines[0], lines
        assert not out.exists()


def test_only_runs_with_heat_maps_are_explained(head_phantoms: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = "--preset tiny --channels 4,4,8 --d-state 2 --mix-state 2 --crop 32 --epochs 1 --batch 8 --quiet".split()
    data = ["--data", str(head_phantoms)]
    assert main(["train", "clinicalfmamba", *data, "--out", str(tmp_path / "run"), *flags]) == 0
    capsys.readouterr()
    assert main(["explain", str(tmp_path / "run"), *data, "--id", "x", "--out", str(tmp_path / "x")]) == 2
    assert "clinicalfmamba, which has no heat maps to show" in capsys.readouterr().err
