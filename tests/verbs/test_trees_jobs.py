"""Whole jobs of trees on the table and of a stack of network and trees: every verb works on them as on a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scanfuse.cli import main
from scanfuse.verbs.predict import load
from whole_jobs import Capture, fails, json_of, table_of

FLAGS = "--preset tiny --size 32 --batch 16 --threads 1 --device cpu --epochs 1 --quiet".split()
TREES = "--trees alone --tree-rounds 20 --tree-leaves 4 --tree-least 5".split()
STACK = ["--trees", "stacked", *TREES[2:]]
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(moles: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Name and options -> a run, trained once; do not write into it."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str, *options: str) -> Path:
        out = folder / name
        if not out.exists():
            assert main(["train", "mambaderm", "--data", str(moles), "--out", str(out), *FLAGS, *options]) == 0
        return out

    return run


@pytest.fixture(scope="module")
def runs(train: Train) -> dict[str, Path]:
    network = train("network")
    return {
        "network": network,
        "trees": train("trees", *TREES),
        "stack": train("stack", *STACK, "--network", str(network)),
    }


def batch_of(system: Any, moles: Path, split: str) -> dict[str, Any]:
    data = system.data.dataset(system.data.open(moles).subset(split), train=False)
    return system.data.collate([data[place] for place in range(len(data))])


def test_what_a_run_of_trees_stores(runs: dict[str, Path], moles: Path, tmp_path: Path) -> None:
    run = runs["trees"]
    record = json_of(run / "run.json")
    assert record["finished"] is True and "of 20 rounds" in record["fitted"] and record["parameters"] == 0
    assert {"val_auroc", "val_loss"} <= set(table_of(run / "history.csv"))
    assert (run / "decision.json").is_file() and not (run / "checkpoint.pt").exists()
    assert not [path for path in run.rglob("*") if path.suffix in (".pkl", ".joblib", ".pt")]
    assert (
        "rounds of trees" in (run / "report.html").read_text()
        and "1 of 1 epochs" not in (run / "report.html").read_text()
    )
    command = ["train", "mambaderm", "--data", str(moles), "--out", str(tmp_path / "again"), *FLAGS, *TREES]
    assert main(command) == 0
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "again/model.safetensors").read_bytes()


def test_the_stack_is_the_weighted_sum_of_its_members(runs: dict[str, Path], moles: Path) -> None:
    systems = {name: load(run, device="cpu").system for name, run in runs.items()}
    batch = batch_of(systems["stack"], moles, "test")
    model = systems["stack"].model
    with torch.no_grad():
        z = {name: system.forward(batch) for name, system in systems.items()}
    expected = model.weights[0] * z["network"] + model.weights[1] * z["trees"] + model.bias
    torch.testing.assert_close(z["stack"], expected)
    assert (model.weights >= 0).all() and float((model.weights - 0.5).abs().max()) > 0.01
    with torch.no_grad():  # a missing picture or table is one for the members too
        for name in ("image", "table"):
            parts = {each: system.forward(batch, frozenset({name})) for each, system in systems.items()}
            expected = model.weights[0] * parts["network"] + model.weights[1] * parts["trees"] + model.bias
            torch.testing.assert_close(parts["stack"], expected)
            assert torch.equal(parts["trees"], z["trees"]) == (name == "image")


def test_the_weights_are_the_best_on_validation(runs: dict[str, Path], moles: Path) -> None:
    """Within the ridge: what leads away from them in any direction costs more."""
    system = load(runs["stack"], device="cpu").system
    batch = batch_of(system, moles, "val")
    model = system.model

    def cost() -> float:
        with torch.no_grad():
            loss = float(system.task.loss(system.forward(batch), batch)["loss"])
            off = (model.weights - 0.5).square().sum() + model.bias.square().sum()
        return loss * len(batch["target"]) + 0.5 * float(off)

    best = cost()
    for tensor in (model.weights, model.bias):
        for place in range(tensor.numel()):
            for step in (0.05, -0.05):
                before = tensor.flatten()[place].clone()
                if before + step < 0 and tensor is model.weights:
                    continue
                tensor.view(-1)[place] += step
                assert cost() > best
                tensor.view(-1)[place] = before


def test_evaluate_and_compare_show_all_three(runs: dict[str, Path], moles: Path, tmp_path: Path) -> None:
    names = [str(run) for run in runs.values()]
    assert main(["evaluate", *names, "--data", str(moles), "--out", str(tmp_path / "table"), "--quiet"]) == 0
    cells = json_of(tmp_path / "table/evaluation.json")["cells"]
    assert len({cells[name]["nll"]["mean"] for name in runs}) == 3
    assert main(["compare", *names, "--data", str(moles), "--out", str(tmp_path / "both"), "--quiet"]) == 0
    rows = [row for row in json_of(tmp_path / "both/comparison.json")["rows"] if row["metric"] == "auroc"]
    assert {row["run"] for row in rows} == {"trees", "stack"}
    assert all(row["low"] <= row["difference"] <= row["high"] for row in rows)


def test_cases_are_predicted_and_explained(runs: dict[str, Path], moles: Path, tmp_path: Path) -> None:
    for name in ("trees", "stack"):
        out = tmp_path / name
        data = ["--data", str(moles / "test-metadata.csv"), "--device", "cpu"]
        assert main(["predict", str(runs[name]), *data, "--out", str(out), "--submission", str(out / "s.csv")]) == 0
        assert len(table_of(out / "s.csv").columns) == 2
        split = table_of(runs[name] / "split.csv")
        case = split.loc[split["split"] == "test", "id"].iloc[0]
        command = [
            "explain",
            str(runs[name]),
            "--data",
            str(moles),
            "--id",
            case,
            "--out",
            str(out),
            "--device",
            "cpu",
        ]
        assert main(command) == 0
        found = json_of(out / case / "explanation.json")
        assert found["without_part"]["table"] and set(found["without_view"]) == {"image", "table"}


def test_folds_of_trees_and_of_stacks(train: Train, moles: Path, tmp_path: Path, capsys: Capture) -> None:
    folds = ["--folds", "3"]
    network, trees = train("cv", *folds), train("tree-cv", *folds, *TREES)
    stack = train("stack-cv", *folds, *STACK, "--network", str(network))
    for run in (trees, stack):
        assert main(["evaluate", str(run), "--data", str(moles), "--device", "cpu", "--quiet"]) == 0
    for fold in range(3):
        member = json_of(stack / f"fold-{fold}/run.json")
        assert member["started_from"].endswith(f"cv/fold-{fold}.")
    alone = ["train", "mambaderm", "--data", str(moles), "--out", str(tmp_path / "no"), *FLAGS, *STACK]
    assert "give --folds as it has" in fails([*alone, "--network", str(network)], capsys)
    assert "another fold than asked for" in fails(
        [*alone, "--network", str(network), "--folds", "4", "--fold", "1"], capsys
    )


def test_what_cannot_be_stacked(runs: dict[str, Path], moles: Path, tmp_path: Path, capsys: Capture) -> None:
    command = ["train", "mambaderm", "--data", str(moles), "--out", str(tmp_path / "no"), *FLAGS]
    network = ["--network", str(runs["network"])]
    assert "belong together" in fails([*command, *STACK], capsys)
    assert "belong together" in fails([*command, *network], capsys)
    assert "no network of its own" in fails([*command, *STACK, "--network", str(runs["trees"])], capsys)
    assert "There is no run folder" in fails([*command, *STACK, "--network", str(tmp_path / "none")], capsys)
    assert "minimise the plain cross-entropy" in fails([*command, *TREES, "--loss", "focal"], capsys)
    assert "look at the table alone" in fails([*command, *TREES, "--fusion", "image"], capsys)
    other = tmp_path / "other"
    other.mkdir()
    for path in moles.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    lines = (other / "train-metadata.csv").read_text().splitlines(keepends=True)
    (other / "train-metadata.csv").write_text("".join(lines[:-3]))
    fewer = ["train", "mambaderm", "--data", str(other), "--out", str(tmp_path / "no"), *FLAGS]
    assert "trained on another split" in fails([*fewer, *STACK, *network], capsys)
    assert not (tmp_path / "no").exists()


def test_sampling_and_weights_reach_the_trees(train: Train, moles: Path, runs: dict[str, Path]) -> None:
    plain = load(runs["trees"], device="cpu").system
    batch = batch_of(plain, moles, "test")
    with torch.no_grad():
        means = {"plain": float(plain.forward(batch).mean())}
        for name, options in {
            "weights": ["--weighting", "balanced"],
            "ratio": ["--negatives-per-positive", "1"],
            "drawn": ["--balanced-sampling", "true"],
        }.items():
            means[name] = float(load(train(name, *TREES, *options), device="cpu").system.forward(batch).mean())
    assert all(means[name] > means["plain"] + 0.3 for name in ("weights", "ratio", "drawn")), means
