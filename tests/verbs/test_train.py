"""The training engine: repeats exactly, continues bit for bit, and says what went wrong."""

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from scanfuse import config, systems
from scanfuse.config import TrainConfig
from scanfuse.errors import UserError
from scanfuse.run import Run, open_run
from scanfuse.tasks.fuse import Fusion
from scanfuse.verbs import train
from scanfuse.verbs.non_finite import first_non_finite
from scanfuse.verbs.optimisation import learning_rate, parameter_groups
from scanfuse.verbs.training import Training

SYSTEM = "clinicalfmamba"
SMALL = {
    "model": {"channels": [4, 4, 8], "latent_blocks": 1, "decoder_blocks": 1, "d_state": 2, "mix_state": 2},
    "data": {"crop": 32, "flips": True},
    "train": {"epochs": 3, "batch": 3, "lr": 1e-3, "ema": 0.9, "accumulate": 2, "weight_decay": 0.01},
}


def build(**changes: Any) -> Any:
    return config.build(systems.load(SYSTEM).Config, config.preset(SYSTEM, "tiny"), SMALL, {"train": changes})


def history(run: Run) -> list[dict[str, str]]:
    with (run.path / "history.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def stop_after(monkeypatch: pytest.MonkeyPatch, updates: int) -> None:
    """Sends Ctrl-C to this process after so many updates."""
    original = Training._update

    def update(self: Any) -> None:
        original(self)
        if self.state.updates == updates:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Training, "_update", update)


def test_a_seeded_run_repeats_exactly(head_phantoms: Path, tmp_path: Path) -> None:
    first, second = (train.train(build(), head_phantoms, tmp_path / name, quiet=True) for name in "ab")
    assert first.weights_file.read_bytes() == second.weights_file.read_bytes()
    assert history(first) == history(second)
    other = train.train(build(seed=1), head_phantoms, tmp_path / "c", quiet=True)
    assert other.weights_file.read_bytes() != first.weights_file.read_bytes()


def test_training_lowers_the_loss_and_fills_the_run_folder(head_phantoms: Path, tmp_path: Path) -> None:
    run = train.train(
        build(epochs=6, lr=1e-2, batch=2, accumulate=1, ema=0.0), head_phantoms, tmp_path / "run", quiet=True
    )
    rows = history(run)
    assert len(rows) == 6
    assert float(rows[-1]["train_loss"]) < 0.95 * float(rows[0]["train_loss"])
    names = {"config.yaml", "model.safetensors", "run.json", "split.csv", "history.csv", "environment.json"}
    assert names | {"checkpoint.pt", ".lock"} == set(os.listdir(run.path))
    record = run.record()
    assert (record["selected_by"], record["finished"]) == ("loss", True)
    assert run.is_finished
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert record["best_epoch"] == int(best["epoch"])
    assert record["parameters"] == sum(t.numel() for n, t in run.load_weights().items() if "running_" not in n) - sum(
        t.numel() for n, t in run.load_weights().items() if n.endswith("num_batches_tracked")
    )


@pytest.mark.parametrize("updates", [1, 3])
def test_ctrl_c_and_resume_continue_bit_for_bit(
    updates: int, head_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 training samples in batches of 3, two batches an update: two updates an epoch; 1 and 3 are amid an epoch."""
    straight = train.train(build(), head_phantoms, tmp_path / "straight", quiet=True)
    with monkeypatch.context() as patch:
        stop_after(patch, updates)
        with pytest.raises(train.Interrupted, match="--resume"):
            train.train(build(), head_phantoms, tmp_path / "stopped", quiet=True)
    torch.manual_seed(999)
    resumed = train.resume(tmp_path / "stopped", quiet=True)
    assert resumed.weights_file.read_bytes() == straight.weights_file.read_bytes()
    assert history(resumed) == history(straight)
    ours, theirs = resumed.load_checkpoint(), straight.load_checkpoint()
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())


def test_resume_refuses_other_data(head_phantoms: Path, tmp_path: Path) -> None:
    from scanfuse.data.synthetic import harvard

    train.train(build(epochs=1), head_phantoms, tmp_path / "run", quiet=True)
    harvard.write(tmp_path / "other", harvard.Options(pair="CT-MRI", cases=7, slices=1, size=48, seed=5))
    with pytest.raises(UserError, match="another split"):
        train.resume(tmp_path / "run", tmp_path / "other", quiet=True)


def test_workers_do_not_change_the_result(head_phantoms: Path, tmp_path: Path) -> None:
    alone = train.train(build(epochs=1), head_phantoms, tmp_path / "alone", quiet=True)
    helped = train.train(build(epochs=1, workers=2), head_phantoms, tmp_path / "helped", quiet=True)
    assert alone.weights_file.read_bytes() == helped.weights_file.read_bytes()


def test_bf16_trains_to_a_similar_loss(head_phantoms: Path, tmp_path: Path) -> None:
    full = train.train(build(epochs=2), head_phantoms, tmp_path / "fp32", quiet=True)
    half = train.train(build(epochs=2, precision="bf16"), head_phantoms, tmp_path / "bf16", quiet=True)
    assert half.load_weights()["stem.weight"].dtype == torch.float32
    a, b = (float(history(run)[-1]["val_loss"]) for run in (full, half))
    assert a != b
    assert abs(a - b) < 0.05 * a


def test_patience_stops_early(head_phantoms: Path, tmp_path: Path) -> None:
    run = train.train(build(epochs=9, lr=1e-12, min_lr=0, patience=1), head_phantoms, tmp_path / "run", quiet=True)
    rows = history(run)
    assert len(rows) < 9
    weights = run.weights_file.read_bytes()
    again = train.resume(run.path, quiet=True)  # it has ended: nothing is trained
    assert history(again) == rows
    assert again.weights_file.read_bytes() == weights


def test_a_used_folder_is_not_touched(head_phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        train.train(build(), head_phantoms, tmp_path / "run", quiet=True)
    assert os.listdir(tmp_path / "run") == ["mine.txt"]


def test_a_loss_that_is_not_finite_names_the_tensor(
    head_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system_type = systems.load(SYSTEM)
    original = system_type.forward

    def poisoned(self: Any, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> torch.Tensor:
        with torch.no_grad():
            self.model.head.bias.fill_(float("nan"))
        return original(self, batch, without)

    monkeypatch.setattr(system_type, "forward", poisoned)
    with pytest.raises(UserError, match=r"not finite in epoch 1, step 1: .*the parameter head\.bias") as caught:
        train.train(build(), head_phantoms, tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value)
    assert "No epoch was finished" in str(caught.value)
    assert not (tmp_path / "run").exists()  # nothing of it can be used


def test_a_later_failure_keeps_the_last_whole_epoch(
    head_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Training._update

    def update(self: Any) -> None:
        original(self)
        if self.state.updates == 3:
            with torch.no_grad():
                self.system.model.head.bias.fill_(float("nan"))

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", update)
        with pytest.raises(UserError, match=r"not finite in epoch 2, .*The last whole epoch is kept in "):
            train.train(build(), head_phantoms, tmp_path / "run", quiet=True)
    assert len(history(open_run(tmp_path / "run"))) == 1
    straight = train.train(build(), head_phantoms, tmp_path / "straight", quiet=True)
    resumed = train.resume(tmp_path / "run", quiet=True)
    assert resumed.weights_file.read_bytes() == straight.weights_file.read_bytes()


def test_a_validation_that_is_never_finite_is_said(
    head_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Fusion.validation

    def poisoned(self: Fusion, scored: Any) -> dict[str, float]:
        return {name: value * float("nan") for name, value in original(self, scored).items()}

    monkeypatch.setattr(Fusion, "validation", poisoned)
    with pytest.raises(UserError, match="never finite"):
        train.train(build(epochs=1), head_phantoms, tmp_path / "run", quiet=True)


def test_the_first_bad_activation_is_named() -> None:
    class Tiny:
        def __init__(self) -> None:
            self.model = nn.Sequential(nn.Identity(), nn.Sequential(_Log(), nn.Sigmoid()))
            self.task = self

        def forward(self, batch: dict[str, Any]) -> torch.Tensor:
            return self.model(batch["x"])

        def loss(self, outputs: torch.Tensor, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
            return {"loss": outputs.sum()}

    tiny: Any = Tiny()
    assert first_non_finite(tiny, {"x": torch.tensor([-1.0])}) == "the output of 1.0 (_Log)"
    bad = {"x": torch.tensor([float("inf")]), "meta": [{"id": "16003"}]}
    assert first_non_finite(tiny, bad) == "the input 'x' (samples 16003)"


class _Log(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()


def test_learning_rate_by_hand() -> None:
    settings = TrainConfig(epochs=10, lr=1.0, min_lr=0.1, warmup_epochs=2)
    rates = [learning_rate(settings, update, updates_per_epoch=5) for update in range(51)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(1.0)
    assert rates[30] == pytest.approx(0.55)
    assert rates[50] == pytest.approx(0.1)


def test_scan_parameters_and_vectors_do_not_decay() -> None:
    model = systems.load(SYSTEM)(build()).model
    decay, keep = parameter_groups(model, 0.1)
    assert decay["weight_decay"] == 0.1
    assert keep["weight_decay"] == 0.0
    kept = {id(parameter) for parameter in keep["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in kept}
    assert all(parameter.ndim > 1 for parameter in decay["params"])
    assert any("A_logs" in name for name in names)
    assert any("dt_projs_bias" in name for name in names)
    total = sum(len(group["params"]) for group in (decay, keep))
    assert total == len(list(model.parameters()))


def test_a_missing_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("system: clinicalfmamba\n")
    with pytest.raises(UserError, match="nothing to continue from"):
        train.resume(tmp_path, quiet=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(UserError, match="damaged"):
        open_run(tmp_path).load_checkpoint()
