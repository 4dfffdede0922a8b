"""Files are whole or absent, also when the disk is full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanfuse.errors import UserError
from scanfuse.files import atomic_path, remove_abandoned, write_text


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


# --- what killed writers leave --------------------------------------------------------------------------------------


_KILLED = """
import os, signal, sys
from scanfuse.files import atomic_path

with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX feature")
def test_the_next_write_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint.pt"
    done = subprocess.run([sys.executable, "-c", _KILLED, str(target)], capture_output=True, text=True, check=False)
    left = done.stdout.strip()
    assert os.listdir(tmp_path) == [left] and left.startswith(".checkpoint~scanfuse-") and left.endswith(".pt")
    write_text(target, "whole")
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_only_abandoned_temporaries_are_removed(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model.pt") as temporary:
        name = temporary.name
        mine = str(os.getpid())
        assert f"-{mine}-" in name
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        machine = name.split("~scanfuse-")[1].split("-")[0]
        other_machine = "0" * 8 if machine != "0" * 8 else "1" * 8
        abandoned = {
            name.replace(f"-{mine}-", f"-{dead.pid}-"),
            f".x~scanfuse-{other_machine}-1-old.pt",  # older than a week
            f".~scanfuse-{machine}-{dead.pid}-abc_1",
        }
        kept = {
            name,  # being written by this process
            f".y~scanfuse-{machine}-{os.getppid()}-abc.pt",  # its writer runs
            f".y~scanfuse-{other_machine}-{dead.pid}-abc.pt",  # of a process that this machine cannot know
            f"y~scanfuse-{machine}-{dead.pid}-abc.pt",  # not hidden
            f".y~scanfuse-{machine}-{dead.pid}-abc.pt.bak",
            ".model-abc.pt",
            "model.pt.tmp",
        }
        for file in (abandoned | kept) - {name}:
            (tmp_path / file).write_text("")
        os.utime(tmp_path / f".x~scanfuse-{other_machine}-1-old.pt", (1e9, 1e9))
        folder = tmp_path / f".d~scanfuse-{machine}-{dead.pid}-abc.pt"
        folder.mkdir()
        link = tmp_path / f".l~scanfuse-{machine}-{dead.pid}-abc.pt"
        link.symlink_to(tmp_path / "model.pt.tmp")
        removed = remove_abandoned(tmp_path)
        assert {path.name for path in removed} == abandoned
        assert set(os.listdir(tmp_path)) == kept | {folder.name, link.name}


def test_a_long_name_can_be_written_and_a_failure_says_what_is_there(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 240 + ".json")
    write_text(long, "a")
    assert long.read_text() == "a"
    with pytest.raises(UserError, match=r"File name too long\. No file was made; free some space"):
        write_text(tmp_path / ("x" * 300), "a")
    with pytest.raises(UserError, match="a path holds no NUL character"):
        write_text(tmp_path / "a\0b", "a")
    said = r"No space left on device\. The earlier file of that name is unchanged; free"
    with pytest.raises(UserError, match=said), atomic_path(long):
        raise OSError(28, "No space left on device")
    assert [len(name) for name in os.listdir(tmp_path)] == [245]


def test_long_ids_become_short_file_names() -> None:
    from scanfuse.files import file_name

    names = [file_name(id) for id in ("x" * 300, "x" * 301, "ü" * 200, "\udcff", "x" * 150)]
    assert all(len(name.encode()) <= 150 for name in names) and len(set(names)) == 5
    assert names[-1] == "x" * 150
