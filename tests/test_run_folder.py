"""A run folder whose files were damaged or exchanged: one line that names the file, and no code is run."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from scanfuse.errors import UserError
from scanfuse.run import Run, new_run, open_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.config_file.write_text("system: xfmamba\n")
    run.save_weights({"a": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}, {"system": "xfmamba"})
    run.save_checkpoint({"model": {"a": torch.ones(2)}, "epoch": 1})
    run.split_file.write_text("id,group,split,target\n1,a,train,0\n")
    return run


def refusal(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    return str(caught.value)


def test_a_whole_run_is_read(run: Run) -> None:
    assert run.record()["system"] == "xfmamba" and run.config() == {"system": "xfmamba"}
    assert torch.equal(run.load_weights()["a"], torch.arange(6.0).reshape(2, 3))
    assert run.load_checkpoint()["epoch"] == 1
    assert list(run.split()["split"]) == ["train"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1]", "holds a list, not an object"),
        (b"3", "holds a int, not an object"),
        (b"", "is an empty file"),
        (b'{"a": ', "is not valid JSON"),
        (b"\xff\xfe\x00", "is UTF-16 text"),
        (b"[" * 100_000, "is not valid JSON"),
    ],
)
def test_a_record_that_is_none(run: Run, content: bytes, said: str) -> None:
    (run.path / "run.json").write_bytes(content)
    assert said in refusal(run.record) and str(run.path / "run.json") in refusal(run.record)
    assert said in refusal(run.load_weights)
    (run.path / "run.json").unlink()
    assert "has no run.json: the training did not reach its first validation" in refusal(run.record)


class Surprise:
    """A pickle of it would make a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_is_a_pickle_is_not_run(run: Run, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    for content in (pickle.dumps(Surprise(trap)), pickle.dumps({"model": 1}), pickle.dumps([1])):
        run.checkpoint_file.write_bytes(content)
        assert refusal(run.load_checkpoint).startswith(f"{run.checkpoint_file} ")
    torch.save({"model": Surprise(trap)}, run.checkpoint_file)
    assert "holds Python objects besides tensors and plain values" in refusal(run.load_checkpoint)
    assert not trap.exists()
    torch.save([1, 2], run.checkpoint_file)
    assert "holds a list, not the state of a training" in refusal(run.load_checkpoint)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97])
def test_files_cut_short(run: Run, share: float) -> None:
    checkpoint = run.checkpoint_file.read_bytes()
    run.checkpoint_file.write_bytes(checkpoint[: int(len(checkpoint) * share)])
    assert refusal(run.load_checkpoint).startswith(f"{run.checkpoint_file} is ")
    weights = run.weights_file.read_bytes()
    run.weights_file.write_bytes(weights[: int(len(weights) * share)])
    refusal(run.load_weights)
    sign(run)
    assert refusal(run.load_weights).startswith(f"{run.weights_file} is ")


def sign(run: Run) -> None:
    """Puts the right digest into run.json, as somebody would who made the file on purpose."""
    from scanfuse.run import file_digest

    record = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**record, "weights_sha256": file_digest(run.weights_file)}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_with_a_right_digest(run: Run, value: float) -> None:
    run.save_weights({"fine": torch.ones(3), "bad": torch.tensor([1.0, value])}, {})
    assert "model.safetensors holds values that are not finite, in bad: train again" in refusal(run.load_weights)


def test_changed_and_missing_weights(run: Run) -> None:
    content = bytearray(run.weights_file.read_bytes())
    content[-1] ^= 1
    run.weights_file.write_bytes(content)
    assert "was changed after the training" in refusal(run.load_weights)
    run.weights_file.unlink()
    assert "is missing: restore it, or train again." in refusal(run.load_weights)
    run.weights_file.mkdir()
    assert "is a folder, not a file of weights" in refusal(run.load_weights)


def test_a_split_without_its_columns(run: Run) -> None:
    run.split_file.write_text("id,target\n1,0\n")
    assert refusal(run.split) == f"{run.split_file} has no column group, split: restore it, or train again."
    run.split_file.write_text("id,group,split\n1,a,train,x\n")
    assert "line 2 has 4 values for the 3 columns" in refusal(run.split)
    run.split_file.unlink()
    assert "does not exist" in refusal(run.split)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "loop", "file", "file/below", "two\nlines"])
def test_folders_that_are_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    refusal(lambda: open_run(tmp_path / name))
    if name != "two\nlines":
        refusal(lambda: new_run(tmp_path / name).__enter__())
