"""That fusion of volumes learns what the plain methods cannot do: on held-out phantoms, also (slow) in the demo."""

from pathlib import Path

import pytest

from scanfuse.cli import main
from scanfuse.data.synthetic import brats
from whole_jobs import json_of


def means(folder: Path) -> dict[str, dict[str, float]]:
    """Method -> metric -> mean over the held-out patients."""
    cells = json_of(folder / "evaluation" / "test" / "evaluation.json")["cells"]
    return {name: {metric: cells[name][metric]["mean"] for metric in ("ssim", "qabf")} for name in cells}


def test_a_short_training_keeps_more_edges_than_the_average_and_more_structure_than_the_pyramid(
    tmp_path: Path,
) -> None:
    root = brats.write(tmp_path / "data", brats.Options(patients=8, size=48, seed=3))
    words = f"--data {root} --out {tmp_path / 'run'} --preset detail --routes axial --patch 24 --epochs 4 --threads 1"
    further = "--test-fraction 0.25 --device cpu --quiet"
    assert main(["train", "clinicalfmamba3d", *words.split(), *further.split()]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(root), "--pictures", "0", "--quiet"]) == 0
    found = means(tmp_path / "run")
    assert found["run"]["qabf"] > found["average"]["qabf"] + 0.01
    assert found["run"]["ssim"] > found["laplacian"]["ssim"] + 0.02
    assert found["run"]["ssim"] > found["average"]["ssim"] - 0.01


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demonstration_is_ahead_of_average_and_pyramid_on_structure_and_edges(tmp_path: Path) -> None:
    assert main(["demo", "clinicalfmamba3d", "--out", str(tmp_path)]) == 0
    found = means(tmp_path / "run")
    for name in ("clinicalfmamba3d", "axial (one route)"):
        for metric in ("ssim", "qabf"):
            for plain in ("average", "laplacian"):
                assert found[name][metric] > found[plain][metric], (name, metric, plain)
