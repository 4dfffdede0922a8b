"""The benchmark of volumes: what it times is right, reads every position once, and its table says what was timed."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from scanfuse.verbs import bench


@pytest.fixture(scope="module")
def volume() -> ModuleType:
    """benchmarks/scan_volume.py, which is no part of the package."""
    path = Path(__file__).parents[1] / "benchmarks" / "scan_volume.py"
    spec = importlib.util.spec_from_file_location("scan_volume", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scan_volume"] = module
    spec.loader.exec_module(module)
    return module


def test_six_routes_are_permutations_of_as_many_positions(volume: ModuleType) -> None:
    for side, (height, width) in volume.MAPS.items():
        assert side**3 == height * width
    for orders in (volume.over_volume(4), volume.over_map(8, 8)):
        assert orders.shape == (6, 64)
        assert torch.equal(orders.sort(dim=1).values, torch.arange(64).expand(6, -1))


def test_parity_is_checked_before_any_figure(volume: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert volume.check() < 1e-5
    right = volume.scan_routes
    monkeypatch.setattr(volume, "scan_routes", lambda **inputs: 1.001 * right(**inputs))
    with pytest.raises(bench.ParityError, match="no speed is reported"):
        volume.section(volume.computing_seconds, 1, quick=True)


def test_the_table_is_of_the_times_that_were_taken(volume: ModuleType) -> None:
    """Made-up times: a volume takes 1.5 times a map's, and time grows with the square of the positions."""

    def timer(jobs: dict[str, object], repeats: int) -> dict[str, list[float]]:
        found = {}
        for name in jobs:
            side = int(name.split("/")[0])
            found[name] = [0.0015 if "/volume/" in name else 0.001 if "/map/" in name else float(side**6)] * repeats
        return found

    text = volume.section(timer, 2, quick=True)
    assert text.count("1.50x FAIL") == 2 and text.count("2.00 FAIL") == 2
    assert "1.5 ms (1.5-1.5)" in text
