"""Files are whole or absent, also when the disk is full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanfuse.errors import UserError
from scanfuse.files import atomic_path, write_text


def test_a_file_is_written_with_the_usual_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "content\n")
    assert (tmp_path / "new" / "a.txt").read_text() == "content\n"
    plain = tmp_path / "plain.txt"
    plain.write_text("")
    assert (tmp_path / "new" / "a.txt").stat().st_mode == plain.stat().st_mode


def test_a_failure_keeps_the_earlier_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "first")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write") as caught:
        write_text(tmp_path / "file" / "a.txt", "content")
    assert "\n" not in str(caught.value)


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from scanfuse.errors import UserError
from scanfuse.run import Run

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
run = Run(Path(sys.argv[1]))
run.save_checkpoint({"weights": torch.zeros(8)})
run.save_weights({"weights": torch.zeros(8)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for save in (run.save_checkpoint, lambda state: run.save_weights(state, {})):
    try:
        save({"weights": torch.zeros(100_000)})
    except UserError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX feature")
def test_a_full_disk_loses_neither_weights_nor_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the kernel refuses the write in the same place."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("Cannot write") and "free some space" in line for line in lines)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pt", "model.safetensors", "run.json"]

    import torch

    from scanfuse.run import Run

    run = Run(tmp_path)
    assert torch.equal(run.load_checkpoint()["weights"], torch.zeros(8))
    assert torch.equal(run.load_weights()["weights"], torch.zeros(8))


def test_ids_become_file_names_that_stay_apart() -> None:
    from scanfuse.files import file_name

    plain = ["patient1-study2", "WRIST-patient00011__view+view_2", "a_b", "Müller 3.1"]
    assert [file_name(name) for name in plain] == plain
    odd = ["a/b", "a\\b", "a:b", "..", ".", "", ".hidden", "a\nb", "../../etc"]
    names = [file_name(name) for name in odd]
    assert len({*names, *plain}) == len(odd) + len(plain)
    for name in names:
        assert Path(name).name == name and name not in (".", "..")
