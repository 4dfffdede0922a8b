"""The benchmark's own claims: its loop is the scan, a wrong contender gets no figure, turns are taken fairly."""

import json

import pytest
import torch

from scanfuse.errors import UserError
from scanfuse.ops import selective_scan
from scanfuse.verbs import bench

SMALL = bench.Size(2, 16, 9, 3)


def sabotaged(what: str) -> bench.Contender:
    """The reference with one thing wrong: "output", or the name of an input whose gradient is wrong."""
    honest = bench.backend_contender("reference")

    def forward(inputs):
        y = honest.forward(inputs)
        return y * 1.001 if what == "output" else y

    def both(inputs, weight):
        y, gradients = honest.both(inputs, weight)
        if what in gradients:
            gradients[what] = gradients[what] * 1.001
        return y, gradients

    return bench.Contender(f"wrong {what}", forward, both)


@pytest.mark.parametrize("size", [SMALL, bench.Size(1, 4, 1, 1)])
def test_the_loop_that_judges_is_the_reference(size):
    inputs = bench.make_inputs(size)
    doubles = {name: x.double().requires_grad_() for name, x in inputs.items()}
    y = selective_scan(**doubles, delta_softplus=True, backend="reference")
    gradients = torch.autograd.grad(y, list(doubles.values()), bench.cotangent(inputs).double())
    want = bench.expected(inputs)
    torch.testing.assert_close(want["y"], y.detach(), rtol=1e-12, atol=1e-12)
    for name, gradient in zip(doubles, gradients, strict=True):
        torch.testing.assert_close(want[name], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("what", ["output", "u", "delta", "A", "B", "C", "D", "delta_bias"])
def test_a_wrong_contender_is_refused(what):
    inputs = bench.make_inputs(SMALL)
    with pytest.raises(bench.ParityError, match=f"wrong {what}.*no speed is reported"):
        bench.check(sabotaged(what), inputs, bench.expected(inputs))


def test_nan_and_missing_gradients_are_refused():
    inputs = bench.make_inputs(SMALL)
    honest = bench.backend_contender("reference")
    nothing = bench.Contender("silent", honest.forward, lambda i, w: (honest.forward(i), {}))
    with pytest.raises(bench.ParityError, match="no gradient of A"):
        bench.check(nothing, inputs, bench.expected(inputs))
    broken = bench.Contender("broken", lambda i: honest.forward(i) * float("nan"), honest.both)
    with pytest.raises(bench.ParityError, match="nan off"):
        bench.check(broken, inputs, bench.expected(inputs))


def test_run_shows_no_figure_when_a_contender_is_wrong(capsys, tmp_path):
    out = tmp_path / "scan.md"
    assert bench.run(sizes=[SMALL], out=out, contenders=[sabotaged("A")]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "gradient of A" in captured.err
    assert not out.exists()


@pytest.mark.parametrize("suffix", [".md", ".json"])
def test_run_has_one_row_for_every_backend_and_size(suffix, capsys, tmp_path):
    out = tmp_path / f"scan{suffix}"
    players = [bench.backend_contender(name) for name in ("portable", "cpu")]
    assert bench.run(sizes=["2,16,9,3", "1,16,5,1"], threads=1, out=out, contenders=players) == 0
    shown = capsys.readouterr().out
    for size in ("(2, 16, 9, 3)", "(1, 16, 5, 1)"):
        lines = [line for line in shown.splitlines() if line.startswith(f"| {size}")]
        assert [line.split("|")[2].strip() for line in lines] == ["torch loop", "ScanFuse portable", "ScanFuse cpu"]
    if suffix == ".md":
        assert out.read_text() in shown
    else:
        figures = json.loads(out.read_text())["results"]
        assert [f["size"][0] for f in figures] == [2, 2, 2, 1, 1, 1]
        assert figures[0]["speed_forward"] == 1.0
        first, last = figures[0], figures[2]
        ratio = sorted(first["both_seconds"])[1] / torch.tensor(last["both_seconds"]).quantile(0.5).item()
        assert last["speed_both"] == pytest.approx(ratio, rel=1e-3)


def test_turns_are_taken_after_a_warm_up_and_threads_restored():
    calls = []
    threads = torch.get_num_threads()

    def job(name, wanted, repeats):
        return bench.Job(lambda: calls.append((name, torch.get_num_threads())), wanted, repeats)

    times = bench.interleave({"fast": job("fast", 1, 3), "slow": job("slow", 2, 1)})
    assert calls == [("fast", 1), ("slow", 2), ("fast", 1), ("slow", 2), ("fast", 1), ("fast", 1)]
    assert [len(t.seconds) for t in times.values()] == [3, 1]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,x", "0,2,3,4", ""])
def test_a_size_that_cannot_be_read(text):
    with pytest.raises(UserError, match="such as 1,384,3136,16"):
        bench.Size.parse(text)
