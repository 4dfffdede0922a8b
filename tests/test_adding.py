"""docs/adding.md is true: its code, taken from the page as it stands, is a package that adds a task, an input kind, a
layout, a phantom and a system, and every command of the page runs on it. No other file is written or changed."""

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import scanfuse
from scanfuse import config, systems
from scanfuse.cli import main
from scanfuse.errors import UserError

PAGE = Path(__file__).parents[1] / "docs" / "adding.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROOMS = ("systems", "tasks", "data.inputs", "data.layouts", "data.synthetic", "recipes")
FILES = {
    "tasks/regress/__init__.py",
    "data/inputs/vector_pairs.py",
    "data/layouts/sensors.py",
    "data/synthetic/sensors.py",
    "systems/line.py",
    "recipes/line/tiny.yaml",
    "mylab/__init__.py",
    "mylab/__main__.py",
}
_BLOCK = re.compile(r"^\*\*`(?P<name>[^`]+)`\*\*\n\n```(?:python|yaml)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> dict[str, str]:
    """File name -> content, of every fenced block that a file name stands over."""
    return {match["name"]: match["code"] for match in _BLOCK.finditer(text)}


def commands(text: str) -> list[list[str]]:
    """The arguments of every command of the page."""
    return [shlex.split(line)[3:] for line in text.splitlines() if line.startswith("python -m mylab ")]


@contextlib.contextmanager
def added(text: str, folder: Path) -> Iterator[None]:
    """The package of the text, written into the folder and imported; afterwards all is as before."""
    for name, code in blocks(text).items():
        path = folder / name if name.startswith("mylab/") else folder / "mylab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    packages = [importlib.import_module(f"scanfuse.{room}") for room in ROOMS]
    paths = [list(package.__path__) for package in packages]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        importlib.import_module("mylab")
        yield
    finally:
        sys.path.remove(str(folder))
        for package, path in zip(packages, paths, strict=True):
            package.__path__[:] = path
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
                parent, _, child = name.rpartition(".")
                if parent in sys.modules:
                    delattr(sys.modules[parent], child)
        importlib.invalidate_caches()


class Jobs:
    """The folder in which the commands ran, and what each printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed: dict[str, str] = {}

    def run(self, arguments: list[str]) -> None:
        text = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            code = main(arguments)
        assert code == 0, f"{shlex.join(arguments)}\n{text.getvalue()}"
        self.printed[shlex.join(arguments)] = text.getvalue()

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / name, comment="#", index_col="id")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """All commands of the page, in its order."""
    done = Jobs(tmp_path_factory.mktemp("adding"))
    with added(TEXT, done.folder):
        for arguments in commands(TEXT):
            done.run(arguments)
    return done


def test_the_page_has_every_file_and_every_verb() -> None:
    assert set(blocks(TEXT)) == FILES
    assert TEXT.count("```python") + TEXT.count("```yaml") == len(FILES)
    verbs = {" ".join(arguments[: 2 if arguments[0] == "data" else 1]) for arguments in commands(TEXT)}
    assert verbs == {
        "systems",
        "data synth",
        "data check",
        "train",
        "evaluate",
        "compare",
        "predict",
        "report",
        "demo",
    }


def test_the_system_is_listed_and_trained_as_the_page_says(jobs: Jobs) -> None:
    listing = jobs.printed["systems"]
    assert "line             Line: a number is predicted from two vectors by one linear map.\n" in listing
    assert "xfmamba" in listing and "presets: tiny\n" in listing
    assert "0 error(s), 0 warning(s) in readings." in jobs.printed["data check line readings"]
    settings = config.read_yaml(jobs.folder / "run/config.yaml")
    assert settings["model"] == {"length": 6, "use": "both"}  # `completed` looked into the data
    assert "lie within ±" in jobs.printed["train line --data readings --out run"]
    said = re.search(r"error is (\S+) with both vectors and (\S+)\s+with the left one", TEXT)
    assert said is not None
    cells = jobs.json("run/evaluation/test/evaluation.json")["cells"]
    assert float(said[1]) == pytest.approx(cells["run"]["mae"]["mean"], rel=0.1)
    assert float(said[2]) == pytest.approx(cells["run-left"]["mae"]["mean"], rel=0.1)
    (row,) = jobs.json("run/evaluation/test/comparison.json")["rows"]
    assert row["difference"] == pytest.approx(cells["run"]["mae"]["mean"] - cells["run-left"]["mae"]["mean"])
    assert row["high"] < 0 and row["p_value"] < 0.05


def test_what_was_fitted_is_stored_and_applied(jobs: Jobs) -> None:
    """Scale by hand from the training rows alone, half width by hand from predictions of the validation rows."""
    split = jobs.table("run/split.csv")
    training = split[split["split"] == "train"]
    assert len(training) == jobs.json("run/fitted.json")["training_rows"] == 84
    left = np.stack([np.load(jobs.folder / "run" / path) for path in training["left"]])
    right = np.stack([np.loadtxt(jobs.folder / "run" / path) for path in training["right"]])
    stored = load_file(jobs.folder / "run/fitted.safetensors")
    for name, values in (("left", left), ("right", right)):
        assert stored[f"{name}.mean"] == pytest.approx(values.mean(axis=0), rel=1e-5)
        assert stored[f"{name}.std"] == pytest.approx(values.std(axis=0), rel=1e-5)
    found = jobs.table("all/predictions.csv")
    assert len(found) == len(split) and found.notna().all().all()
    validation = split[split["split"] == "val"]
    errors = np.sort(np.abs(found.loc[validation.index, "value"] - validation["target"]))
    half_width = jobs.json("run/decision.json")["half_width"]
    assert half_width == pytest.approx(errors[int(np.ceil(0.9 * (len(errors) - 1)))], rel=1e-4)
    assert found["half_width"].to_numpy() == pytest.approx(half_width)
    # One sample by hand, as files and as numbers, is the one of the folder.
    one = jobs.json("predictions/m001-1-left.json")
    vectors = {"left": np.load(jobs.folder / "readings/vectors/m001-1-left.npy")}
    vectors["right"] = np.loadtxt(jobs.folder / "readings/vectors/m001-1-right.csv")
    with added(TEXT, jobs.folder):
        by_hand = scanfuse.load(jobs.folder / "run").predict(**vectors)
    assert one["value"] == pytest.approx(found.loc["m001-1", "value"]) == pytest.approx(by_hand.value, rel=1e-5)
    assert by_hand.half_width == one["half_width"]


def test_the_report_speaks_the_words_of_the_task(jobs: Jobs) -> None:
    page = (jobs.folder / "run/report.html").read_text(encoding="utf-8")
    for words in (
        "90% intervals are ±",
        "mean target",
        "phantoms: made-up pictures of nobody",
        "18 samples of 6 groups",
    ):
        assert words in page
    assert "patients" not in jobs.printed["demo line --quick"]
    assert "of 6 groups" in (jobs.folder / "run/evaluation/test/comparison.md").read_text()


def test_the_package_runs_by_itself(jobs: Jobs) -> None:
    places = os.pathsep.join([str(jobs.folder), str(Path(scanfuse.__file__).parents[1])])
    command = [sys.executable, "-m", "mylab", "systems"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": places}
    )
    assert done.stdout == jobs.printed["systems"]


def changed(old: str, new: str) -> str:
    assert TEXT.count(old) == 1, old
    return TEXT.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "who"),
    [
        ("    def criterion(", "    def criteria(", r"its task \(Regression\) lacks the member 'criterion'"),
        ("    def restore(self, fitted: Fitted)", "    def keep(self, fitted: Fitted)", "lacks the member 'restore'"),
        ("    def forward(self, batch:", "    def network(self, batch:", "the system lacks the member 'forward'"),
    ],
)
def test_a_member_that_the_text_lacks_is_named(old: str, new: str, who: str, tmp_path: Path) -> None:
    with added(changed(old, new), tmp_path), pytest.raises(UserError, match=who):
        systems.load("line")
    assert "line" not in systems.available()


@pytest.mark.parametrize(
    ("old", "new", "arguments", "why"),
    [
        ('KIND = "vector_pairs"\nPHANTOM', 'KIND = "vectors"\nPHANTOM', "data check line readings", "No data set"),
        (
            "id,machine,value,left,right",
            "id,machine,height,left,right",
            "data check line readings",
            "no column 'value'",
        ),
        ("  lr: 0.5", "  lr: fast", "train line --data readings --out run", "'train.lr' cannot be 'fast'"),
        ("system: line\ntrain:", "system: lion\ntrain:", "train line --data readings --out run", "lion"),
    ],
)
def test_a_wrong_word_in_the_text_fails(
    old: str, new: str, arguments: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with added(changed(old, new), tmp_path):
        assert main("data synth sensors readings --machines 4".split()) == 0
        assert main(arguments.split()) == 2
    said = capsys.readouterr()
    assert why in said.out + said.err
