"""`report.html`: one page that stands alone and says what the files of the run say."""

import html
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from scanfuse.cli import main
from scanfuse.plots import metric_name

Capture = pytest.CaptureFixture[str]


def text_of(page: str) -> str:
    """What a reader sees: no tags, styles or drawings, blanks joined."""
    shown = re.sub(r"(?s)<(style|svg)\b.*?</\1>", " ", page)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", shown)).split())


class _Addresses(HTMLParser):
    """Collects whatever a browser would load, and checks that the tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [str(value) for name, value in attributes if name in ("src", "href", "xlink:href", "data")]
        if tag not in ("meta", "img", "br", "link", "hr", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()


def copied(run: Path, target: Path) -> Path:
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("checkpoint.pt"))
    return target


def test_the_page_stands_alone(bones_run: Path) -> None:
    page = (bones_run / "report.html").read_text()
    parser = _Addresses()
    parser.feed(page)
    assert parser.open == []
    outside = [address for address in parser.found if not address.startswith(("data:image/", "#"))]
    assert outside == []
    assert "<script" not in page and "@import" not in page and "url(http" not in page
    examples = json.loads((bones_run / "evaluation" / "test" / "examples.json").read_text())["examples"]
    assert page.count("<img") == len(examples) > 0
    assert page.count("<svg") >= 5
    assert "nan" not in re.findall(r"\w+", text_of(page).lower())


def test_the_page_says_what_the_files_say(bones_run: Path) -> None:
    text = text_of((bones_run / "report.html").read_text())
    content = json.loads((bones_run / "evaluation" / "test" / "evaluation.json").read_text())
    for table in (content, content["parts"]["pairs"]):
        for metric, cell in table["cells"]["both_views"].items():
            expected = f"{metric_name(metric)} [↑↓] {cell['mean']:.3f} \\[{cell['low']:.3f}, ?{cell['high']:.3f}\\]"
            assert re.search(expected, text), metric
    decision = json.loads((bones_run / "decision.json").read_text())
    assert f"Temperature {decision['temperature']:.3f}" in text
    assert f"abnormal {decision['thresholds'][0]:.3f}" in text
    record = json.loads((bones_run / "run.json").read_text())
    assert record["started_from"] in text
    assert record["split_digest"][:16] in text
    assert f"weights of epoch {record['best_epoch']}" in text
    split = pd.read_csv(bones_run / "split.csv", comment="#")
    order = [name for name in ("train", "val", "test") if name in set(split["split"])]
    studies = [str((split["split"] == name).sum()) for name in order]
    patients = [str(split.loc[split["split"] == name, "group"].nunique()) for name in order]
    assert f"studies {' '.join(studies)} patients {' '.join(patients)}" in text
    assert f"0 of {split['group'].nunique()} patients in more than one split" in text
    for note in content["notes"]:
        assert note in text
    for example in json.loads((bones_run / "evaluation" / "test" / "examples.json").read_text())["examples"]:
        assert f"{example['id']}, {example['text']}" in text


def test_the_page_is_written_again_from_the_files(bones_run: Path, tmp_path: Path, capsys: Capture) -> None:
    run = copied(bones_run, tmp_path / "both_views")
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert f"Report: {run / 'report.html'}" in capsys.readouterr().out
    assert text_of((run / "report.html").read_text()) == text_of(before.decode())


def test_names_are_text_and_no_tags(bones_run: Path, tmp_path: Path) -> None:
    """A run folder, a label or an id may hold whatever a file name may."""
    run = copied(bones_run, tmp_path / "<b>run & co")
    for file in ("config.yaml", "decision.json", "evaluation/test/evaluation.json", "evaluation/test/per_sample.csv"):
        content = (run / file).read_text()
        (run / file).write_text(content.replace("abnormal", "<i>odd & end"))
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    parser = _Addresses()
    parser.feed(page)
    assert "<b>run" not in page and "<i>odd" not in page
    assert "<b>run & co" in text_of(page) or "&lt;b&gt;run &amp; co" in page


def test_a_run_that_was_not_evaluated(train_bones: Callable[..., Path], tmp_path: Path) -> None:
    run = copied(train_bones("one_view", "--fusion", "single", "--seed", "1"), tmp_path / "one_view")
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    assert main(["report", str(run)]) == 0
    text = text_of((run / "report.html").read_text())
    assert "scanfuse evaluate RUN --data DIR" in text
    assert "Results on" not in text
    record = json.loads((run / "run.json").read_text())
    record["selected_by"] = "loss"  # as if the validation studies had one outcome only
    (run / "run.json").write_text(json.dumps(record))
    assert main(["report", str(run)]) == 0
    assert "the best by validation loss" in text_of((run / "report.html").read_text())


def test_damaged_files_are_one_line(bones_run: Path, tmp_path: Path, capsys: Capture) -> None:
    """And the page of before stays as it was."""
    run = copied(bones_run, tmp_path / "run")
    before = (run / "report.html").read_bytes()
    for file in ("decision.json", "evaluation/test/evaluation.json", "evaluation/test/examples.json", "run.json"):
        content = (run / file).read_bytes()
        (run / file).write_bytes(content[: len(content) // 2])
        capsys.readouterr()
        assert main(["report", str(run)]) == 2, file
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and Path(file).name in lines[0], lines
        (run / file).write_bytes(content)
        assert (run / "report.html").read_bytes() == before
    for file in ("history.csv", "split.csv", "evaluation/test/per_sample.csv"):
        content = (run / file).read_bytes()
        (run / file).write_bytes(b"\xff\xfe no table")
        capsys.readouterr()
        assert main(["report", str(run)]) == 2, file
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and Path(file).name in lines[0], lines
        (run / file).write_bytes(content)
    picture = next((run / "evaluation" / "test" / "examples").glob("*.png"))
    picture.unlink()
    capsys.readouterr()
    assert main(["report", str(run)]) == 2
    assert picture.name in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nowhere")]) == 2
