"""What `report`, `evaluate` and a training write for a cross-validation, and how results are called everywhere."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from test_report import text_of

from scanfuse.cli import main
from scanfuse.ops.selective_scan import backends
from whole_jobs import FOLDS, TINY, Capture, fails, json_of


@pytest.fixture
def cv(bones_cv: Path, tmp_path: Path) -> Path:
    """A copy that may be written into."""
    return Path(shutil.copytree(bones_cv, tmp_path / "cv"))


def page_of(folder: Path) -> str:
    return text_of((folder / "report.html").read_text())


def test_every_training_writes_a_report(bones_cv: Path) -> None:
    for folder in (bones_cv, *(bones_cv / name for name in FOLDS)):
        page = page_of(folder)
        assert "Not evaluated yet" in page and "Leakage checks" in page
    assert "3 folds, weights of epochs 1, 1, 1" in page_of(bones_cv)


def test_evaluations_of_all_folds_lie_in_their_folder(cv: Path, bones: Path, capsys: Capture) -> None:
    """And none in a fold's, whose own report stays what it was."""
    before = {name: (cv / name / "report.html").read_bytes() for name in FOLDS}
    for options, name in ((["--on", "val"], "out-of-fold-val"), (["--ensemble"], "ensemble-test"), ([], "test")):
        capsys.readouterr()
        assert main(["evaluate", str(cv), "--data", str(bones), "--quiet", *options]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said == [
            f"Table, values per sample and pictures are in {cv / 'evaluation' / name}.",
            f"Report: {cv / 'report.html'}",
        ]
        assert f"Results on {name}" in page_of(cv)
    assert sorted(path.name for path in (cv / "evaluation").iterdir()) == ["ensemble-test", "out-of-fold-val", "test"]
    assert not any((cv / name / "evaluation").exists() for name in FOLDS)
    assert before == {name: (cv / name / "report.html").read_bytes() for name in FOLDS}
    written = (cv / "report.html").read_bytes()
    (cv / "report.html").unlink()
    assert main(["report", str(cv)]) == 0
    assert capsys.readouterr().out.endswith(f"Report: {cv / 'report.html'}\n")
    assert (cv / "report.html").read_bytes() == written


def test_the_head_of_the_report_is_what_the_folds_are_together(cv: Path, bones: Path) -> None:
    """Not the first fold, and no threshold that nobody chose."""
    for options in (["--on", "val"], [], ["--ensemble"]):
        assert main(["evaluate", str(cv), "--data", str(bones), "--quiet", *options]) == 0
    page = page_of(cv)
    content = json_of(cv / "evaluation" / "ensemble-test" / "evaluation.json")
    area = content["cells"]["ensemble"]["auroc"]["mean"]
    assert area != content["cells"]["fold-0"]["auroc"]["mean"]
    assert re.search(rf"ensemble-test: \d+ studies of .*? AUROC {area:.3f} \[", page)
    assert " ensemble; 95 % intervals by resampling patients" in page
    cut = content["thresholds"]["ensemble"][0]
    assert f"Confusion of ensemble at the threshold {cut:.3f}" in page
    places = [page.index(f"Results on {name} ") for name in ("ensemble-test", "test", "out-of-fold-val")]
    assert places == sorted(places)
    # Of the folds side by side the first one is shown, at its own threshold.
    own = json_of(cv / "fold-0" / "decision.json")["thresholds"][0]
    assert own != 0.5 and f"Confusion of fold-0 at the threshold {own:.3f}" in page
    assert "at the threshold 0.500" not in page


def test_folds_and_outcomes_are_counted_by_name(cv: Path, bones: Path) -> None:
    page = page_of(cv)
    assert "fold 0 fold 1 fold 2 test" in page
    counts = re.search(r"not abnormal (\d+) (\d+) (\d+) (\d+) abnormal (\d+) (\d+) (\d+) (\d+)", page)
    assert counts and all(int(number) for number in counts.groups())


def test_an_unfinished_cross_validation_has_no_report(cv: Path, capsys: Capture) -> None:
    (cv / "fold-2" / "run.json").unlink()
    (cv / "fold-2" / "decision.json").unlink()
    assert f"{cv} is not finished (fold-2)" in fails(["report", str(cv)], capsys)


def test_the_test_comes_first_in_the_report_of_a_run(bones_run: Path, bones: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(bones_run, tmp_path / "both_views"))
    for split in ("all", "val"):
        assert main(["evaluate", str(run), "--data", str(bones), "--on", split, "--quiet", "--pictures", "0"]) == 0
    page = page_of(run)
    places = [page.index(f"Results on {name} ") for name in ("test", "all", "val")]
    assert places == sorted(places)
    content = json_of(run / "evaluation" / "test" / "evaluation.json")
    assert page.index(f"AUROC {content['cells']['both_views']['auroc']['mean']:.3f}") < places[0]


# ---- one wording


@pytest.mark.parametrize(("given", "name"), [((), "abnormal"), (("--positive", "broken"), "broken")])
def test_a_class_has_one_name_in_all_that_is_said(
    given: tuple[str, ...], name: str, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    """That of the data, or the user's; on the console, in the tables, in the files and in the report."""
    run = tmp_path / "run"
    assert main(["train", "xfmamba", "--data", str(bones), "--out", str(run), *TINY, *given]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["task"]["labels"] == [name]
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(bones), "--pictures", "2"]) == 0
    said = capsys.readouterr().out
    picture = next(bones.rglob("image1.png"))
    assert main(["predict", str(run), "--view-a", str(picture), "--out", str(tmp_path / "p")]) == 0
    said += capsys.readouterr().out
    said += (run / "evaluation" / "test" / "table.md").read_text() + page_of(run)
    said += (run / "decision.json").read_text() + (run / "evaluation" / "test" / "per_sample.csv").read_text()
    assert name in said
    # The layout's note explains the classes of the data; file names and settings are what they are.
    spoken = re.sub(
        r"classes: 0 normal, 1 abnormal|study\d+_\w+|positive( broken)? select_by|asymmetric_\w+", "", said
    )
    other = {"abnormal": r"\bpositive\b", "broken": r"\b(positive|abnormal)\b"}[name]
    assert re.findall(rf".{{30}}{other}.{{10}}", spoken.replace("false positive", "").replace("\n", " ")) == []


# ---- in silence


@pytest.mark.parametrize("verb", ["train", "evaluate", "compare"])
def test_quiet_does_not_name_the_backend(
    verb: str, bones_cv: Path, bones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once in a process, at the first scan; without --quiet it is."""
    commands = {
        "train": ["train", "xfmamba", "--data", str(bones), *TINY[:-1], "--out"],
        "evaluate": ["evaluate", str(bones_cv / "fold-0"), "--data", str(bones), "--pictures", "0", "--out"],
        "compare": ["compare", *(str(bones_cv / name) for name in FOLDS[:2]), "--data", str(bones), "--out"],
    }
    for number, options in enumerate((["--quiet"], [])):
        backends._announce.cache_clear()
        caplog.clear()
        assert main([*commands[verb], str(tmp_path / str(number)), *options]) == 0
        assert any("scan backend" in line for line in caplog.messages) != bool(options)
