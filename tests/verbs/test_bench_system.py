"""`scanfuse bench SYSTEM`: a table of times and shares, behind a comparison with float64."""

from pathlib import Path

import pytest
import torch

from scanfuse.cli import main
from scanfuse.layers.mamba import RouteMixer
from scanfuse.systems import available
from scanfuse.verbs import bench_system
from whole_jobs import Capture, fails


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def table(text: str) -> dict[str, dict[str, str]]:
    head, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    return {cells(row)[0]: dict(zip(cells(head), cells(row), strict=True)) for row in rows}


def test_the_presets_of_a_system_stand_in_one_table(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "table.md"
    words = ["bench", "clinicalfmamba", "--presets", "tiny,detail", "--size", "32", "--threads", "1"]
    assert main([*words, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert out.read_text() in text
    found = table(text)
    assert list(found) == ["tiny", "detail"]
    assert found["detail"]["parameters"] == "201,953"
    assert found["detail"]["input"] == "1 x 1 x 32 x 32"
    shares = [int(found["tiny"][kind].removesuffix(" %")) for kind in (*bench_system.KINDS, "rest")]
    assert 96 <= sum(shares) <= 104
    assert found["tiny"]["scan"] != "0 %"
    assert found["tiny"]["convolutions"] != "0 %"
    assert float(found["tiny"]["error"]) < bench_system.TOLERANCE
    assert "threads 1" in text


@pytest.mark.parametrize("name", available())
def test_every_system_has_a_preset_that_can_be_timed(name: str, capsys: Capture) -> None:
    size = {"fusionmamba": "64", "clinicalfmamba3d": "16"}.get(name, "32")
    assert main(["bench", name, "--presets", "tiny", "--size", size, "--threads", "1"]) == 0
    row = table(capsys.readouterr().out)["tiny"]
    assert row["convolutions"] != "0 %"
    assert row["input"]


def test_a_network_that_float32_does_not_carry_is_not_timed(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """A scan whose result depends on the type stands for a wrong one."""
    forward = RouteMixer.forward

    def wrong(self: RouteMixer, x: torch.Tensor, *others: object) -> torch.Tensor:
        y: torch.Tensor = forward(self, x, *others)  # type: ignore[arg-type]
        return y if x.dtype == torch.float64 else y + 1e3

    monkeypatch.setattr(RouteMixer, "forward", wrong)
    assert main(["bench", "clinicalfmamba", "--presets", "tiny", "--size", "32", "--threads", "1"]) == 1
    found = capsys.readouterr()
    assert "tiny is" in found.err
    assert "off float64" in found.err
    assert "|" not in found.out


def test_what_cannot_be_timed_is_refused(capsys: Capture, tmp_path: Path) -> None:
    assert "has no preset 'huge'; choose among: base" in fails(
        ["bench", "clinicalfmamba", "--presets", "huge"], capsys
    )
    assert "need a system" in fails(["bench", "--presets", "tiny"], capsys)
    assert "need a system" in fails(["bench", "--size", "64"], capsys)
    assert "There is no system" in fails(["bench", "nothing"], capsys)


def test_kinds_of_operations() -> None:
    """By hand, of what torch's profiler calls them."""
    kinds = {
        "aten::mkldnn_convolution": "convolutions",
        "aten::_slow_conv2d_forward": "convolutions",
        "scanfuse::scan_forward": "scan",
        "_OnCPU": "route convolutions",
        "aten::bmm": "products",
        "aten::addmm": "products",
        "aten::native_batch_norm": "norms",
        "aten::copy_": "copies",
        "aten::silu": "rest",
        "aten::add": "rest",
    }
    assert {name: bench_system.kind_of(name) for name in kinds} == kinds
