"""Trainings that are stopped or killed, wherever that hurts: they go on, or begin again, to the same end."""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scanfuse import run as runs
from scanfuse.cli import main
from scanfuse.run import Run
from scanfuse.verbs.predict import load
from scanfuse.verbs.training import Training
from whole_jobs import Capture, fails, fold_command, json_of

SMALL = (
    "--preset tiny --channels 4,4,8 --latent-blocks 1 --decoder-blocks 1 --d-state 2 --mix-state 2 --crop 32 "
    "--flips true --epochs 3 --batch 3 --lr 2e-3 --ema 0.5 --device cpu --threads 1 --quiet"
).split()
KILLED = 9


def command(data: Path, out: Path, *options: str) -> list[str]:
    return ["train", "clinicalfmamba", "--data", str(data), "--out", str(out), *SMALL, *options]


def apart(arguments: list[str], patch: Callable[[], None], log: Path) -> tuple[int, list[str]]:
    """The command in a process of its own, in a group of its own, after a patch: exit code and lines of stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks where threads run: none of them holds a lock
        child = os.fork()
    if not child:
        try:
            os.setsid()
            with log.open("w") as sys.stderr:
                patch()
                code = main(arguments)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            code = 99
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), log.read_text().splitlines()


def dying(owner: Any, method: str, nth: int, name: str = "", *, after: bool = False) -> Callable[[], None]:
    """A patch that ends the process, as kill -9 does, at the n-th call of a method (with that first argument)."""

    def patch() -> None:
        original = getattr(owner, method)
        calls: list[str] = []

        def dies(*arguments: Any) -> Any:
            calls.extend(str(each) for each in arguments[1:2] if name in ("", Path(str(each)).name))
            calls.extend([""] if len(arguments) < 2 else [])
            if len(calls) == nth and not after:
                os._exit(KILLED)
            found = original(*arguments)
            if len(calls) == nth:
                os._exit(KILLED)
            return found

        setattr(owner, method, dies)

    return patch


@pytest.fixture(scope="module")
def straight(head_phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody disturbed."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    assert main(command(head_phantoms, out)) == 0
    return out


def same(one: Path, other: Path) -> bool:
    rows = [pd.read_csv(path / "history.csv").drop(columns="seconds") for path in (one, other)]
    return (
        rows[0].equals(rows[1])
        and (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    )


# ---- asked to stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state(
    number: int,
    code: int,
    straight: Path,
    head_phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    update = Training._update

    def asked(self: Any) -> None:
        update(self)
        if self.state.updates == 4:  # amid the second of three epochs
            os.kill(os.getpid(), number)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", asked)
        assert main(command(head_phantoms, out)) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"scanfuse: Stopped in epoch 2; the state is saved. Continue with: scanfuse train --resume {out}"
    ]
    assert json_of(out / "run.json")["finished"] is False
    assert main(["train", "--resume", str(out), "--quiet"]) == 0
    assert same(out, straight)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # as it was


def test_a_signal_to_all_processes_of_a_job_saves_the_state(
    straight: Path, head_phantoms: Path, tmp_path: Path
) -> None:
    """Terminals and schedulers tell the workers too; they serve on until the trainer has saved."""
    out = tmp_path / "run"
    update = Training._update

    def asked(self: Any) -> None:
        update(self)
        if self.state.updates == 4:
            if not (other := os.fork()):  # somebody else sends it: torch lets workers obey their trainer
                os.killpg(0, signal.SIGTERM)
                os._exit(0)
            os.waitpid(other, 0)

    arguments = command(head_phantoms, out, "--workers", "2")
    code, lines = apart(arguments, lambda: setattr(Training, "_update", asked), tmp_path / "log")
    assert (code, lines) == (
        143,
        [f"scanfuse: Stopped in epoch 2; the state is saved. Continue with: scanfuse train --resume {out}"],
    )
    assert main(["train", "--resume", str(out), "--quiet"]) == 0
    assert same(out, straight)


def test_a_stop_at_the_end_of_a_fold_does_not_start_the_next_one(
    bones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    finish = Training._finish

    def asked(self: Any) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return finish(self)

    out = tmp_path / "cv"
    monkeypatch.setattr(Training, "_finish", asked)
    assert main(fold_command(bones, out, "--folds", "3")) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"scanfuse: Stopped before fold 1. Continue with: scanfuse train --resume {out}"
    )
    assert sorted(path.name for path in out.iterdir()) == ["cross_validation.json", "fold-0"]
    assert json_of(out / "fold-0" / "run.json")["finished"] is True


# ---- killed


@pytest.mark.parametrize(
    ("place", "epoch"),
    [
        (dying(Run, "save_json", 2, "run.json", after=True), 1),
        (dying(Run, "save_json", 3, "run.json"), 2),
    ],
    ids=["before the weights", "behind the weights"],
)
def test_killed_between_the_weights_and_their_record(
    place: Callable[[], None],
    epoch: int,
    straight: Path,
    head_phantoms: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The weights that are there predict; those of an epoch before the record's are called so; --resume mends it."""
    out = tmp_path / "run"
    assert apart(command(head_phantoms, out), place, tmp_path / "log") == (KILLED, [])
    assert json_of(out / "run.json")["best_epoch"] == 2
    pair = {name: next((head_phantoms).rglob(f"{name.upper()}/*.png")) for name in ("ct", "mri")}
    caplog.clear()
    load(out, device="cpu").predict(**pair)
    earlier = [line for line in caplog.messages if "these are the weights of an earlier epoch" in line]
    assert len(earlier) == (epoch == 1)
    assert main(["train", "--resume", str(out), "--quiet"]) == 0
    assert same(out, straight)
    caplog.clear()
    load(out, device="cpu")
    assert not caplog.messages


@pytest.mark.parametrize("name", ["environment.json", "split.csv", "config.yaml"])
def test_killed_while_the_run_is_described(
    name: str, straight: Path, head_phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same command uses the folder again, with nothing left of before."""
    out = tmp_path / "run"
    assert apart(command(head_phantoms, out), dying(os, "replace", 1, name), tmp_path / "log") == (KILLED, [])
    assert any("~scanfuse-" in path.name for path in out.iterdir())
    assert not (out / "config.yaml").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "log"}
    assert main(command(head_phantoms, out)) == 0
    assert same(out, straight)
    assert {path.name for path in out.iterdir()} == {path.name for path in straight.iterdir()}
    assert not any("killed" in line for line in caplog.messages)


def test_killed_before_the_first_checkpoint(
    straight: Path, head_phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Capture
) -> None:
    """There are weights, but nothing to continue from: the same command begins again, and says so."""
    out = tmp_path / "run"
    place = dying(Run, "save_checkpoint", 1)
    assert apart(command(head_phantoms, out), place, tmp_path / "log") == (KILLED, [])
    assert {"model.safetensors", "run.json", "history.csv"} < {path.name for path in out.iterdir()}
    assert "nothing to continue from" in fails(["train", "--resume", str(out)], capsys)
    caplog.clear()
    assert main(command(head_phantoms, out)) == 0
    assert f"{out}: an earlier training was killed before its first checkpoint; it is replaced." in caplog.messages
    assert same(out, straight)


def test_weights_that_were_meant_to_stay_are_not_replaced(
    straight: Path, head_phantoms: Path, tmp_path: Path, capsys: Capture
) -> None:
    """A finished run without its checkpoint, as it is handed on."""
    out = tmp_path / "run"
    out.mkdir()
    for name in ("config.yaml", "split.csv", "model.safetensors", "run.json"):
        (out / name).write_bytes((straight / name).read_bytes())
    assert "not empty" in fails(command(head_phantoms, out), capsys)
    record = json_of(out / "run.json")
    del record["finished"]  # an earlier version did not say so
    Run(out).save_json("run.json", record)
    assert "not empty" in fails(command(head_phantoms, out), capsys)
    assert same_files(out, straight, "model.safetensors", "config.yaml")


def same_files(one: Path, other: Path, *names: str) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


# ---- two at once


def test_one_process_trains_in_a_folder(
    straight: Path, head_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A second training, or a second --resume, is refused in one line while the first one goes on undisturbed."""
    out = tmp_path / "run"
    expected = f"Another process is training in {out}: wait until it ends, or stop it first."
    out.mkdir()
    with Run(out).locked():
        assert fails(command(head_phantoms, out), capsys) == expected
    assert [path.name for path in out.iterdir()] == [".lock"]

    update, refused = Training._update, []

    def meanwhile(self: Any) -> None:
        update(self)
        if self.state.updates == 2:
            refused.extend(
                fails(arguments, capsys)
                for arguments in (command(head_phantoms, out), ["train", "--resume", str(out)])
            )

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_update", meanwhile)
        assert main(command(head_phantoms, out)) == 0
    assert refused[1] == expected
    assert "not empty" in refused[0] or refused[0] == expected
    assert same(out, straight)


def test_a_killed_process_leaves_no_lock(
    head_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one whose workers live on for some seconds."""
    out = tmp_path / "run"
    place = dying(Training, "_save", 2, after=True)
    assert apart(command(head_phantoms, out, "--workers", "2"), place, tmp_path / "log") == (KILLED, [])
    assert (out / ".lock").exists()
    assert main(["train", "--resume", str(out), "--quiet"]) == 0
    assert json_of(out / "run.json")["finished"] is True


def test_a_folder_that_cannot_be_written_is_one_line(
    straight: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def denied(self: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(runs.filelock.FileLock, "acquire", denied)
    assert f"Cannot write {straight / '.lock'}: Permission denied" in fails(
        ["train", "--resume", str(straight)], capsys
    )
