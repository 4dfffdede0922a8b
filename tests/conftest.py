"""Fixtures that several test files share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scanfuse.cli import main
from scanfuse.data.synthetic import brats, copd, harvard, isic2024, msrs, mura, volume_manifest


@pytest.fixture(scope="session")
def head_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of two slices, 48 x 48, CT-MRI, in the Harvard layout."""
    root = tmp_path_factory.mktemp("heads")
    harvard.write(root, harvard.Options(pair="CT-MRI", cases=6, slices=2, size=48, seed=0))
    return root


@pytest.fixture(scope="session")
def moles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty patients of ISIC 2024, pictures of 32 pixels in a container."""
    return isic2024.write(tmp_path_factory.mktemp("moles") / "data", isic2024.Options(patients=40, size=32, seed=5))


@pytest.fixture(scope="session")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty patients in the COPD layout, four slices of 32 pixels each."""
    options = copd.Options(patients=30, slices=4, size=32, seed=2)
    return copd.write(tmp_path_factory.mktemp("chests") / "data", options)


@pytest.fixture(scope="session")
def roads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten road scenes of one frame, 64 x 48, in the MSRS layout."""
    return msrs.write(tmp_path_factory.mktemp("roads"), msrs.Options(scenes=10, frames=1, size=64, seed=1))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; tests that need it are marked `data`."""
    root = Path(os.environ.get("SCANFUSE_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real images at {root}")
    return root.resolve()


@pytest.fixture(autouse=True)
def _same_threads() -> None:
    """A test that changes torch's number of threads must not change the next one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty patients in the MURA layout, 40 x 40; test studies have one, two and four views."""
    return mura.write(tmp_path_factory.mktemp("bones"), mura.Options(patients=50, size=40, seed=1))


@pytest.fixture(scope="session")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients in the BraTS layout, volumes of 16 x 24 x 24."""
    return brats.write(tmp_path_factory.mktemp("brains") / "data", brats.Options(patients=8, size=24))


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen patients in a manifest.csv of volumes of 16 x 24 x 24: t1ce, flair, and the grade as target."""
    options = volume_manifest.Options(patients=16, size=24)
    return volume_manifest.write(tmp_path_factory.mktemp("scans") / "data", options)


@pytest.fixture(scope="session")
def train_bones(bones: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains the tiny XFMamba on `bones` through the command line: name of the run, further options -> run folder.

    A run is trained once for all tests; do not write into its folder.
    """
    folder = tmp_path_factory.mktemp("runs")
    done: dict[str, tuple[str, ...]] = {}

    def train(name: str, *options: str) -> Path:
        if done.setdefault(name, options) != options:
            raise ValueError(f"two runs of the name {name!r}")
        out = folder / name
        if not out.exists():
            flags = (
                "--preset tiny --size 32 --epochs 2 --batch 8 --threads 1 --device cpu --positive abnormal --quiet"
            )
            data = ["--data", str(bones), "--out", str(out), "--options", "validation_share=0.25"]
            assert main(["train", "xfmamba", *flags.split(), *data, *options]) == 0
        return out

    return train


@pytest.fixture(scope="session")
def bones_run(train_bones: Callable[..., Path], bones: Path) -> Path:
    """An XFMamba run with everything random that training has, evaluated on the test studies."""
    flags = "--view-dropout 0.3 --balanced-sampling true --drop-path 0.2 --ema 0.5"
    run = train_bones("both_views", *flags.split())
    if not (run / "evaluation").exists():
        assert main(["evaluate", str(run), "--data", str(bones), "--quiet"]) == 0
    return run


@pytest.fixture(scope="session")
def bones_cv(bones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-validation of three folds on `bones`; do not write into it."""
    out = tmp_path_factory.mktemp("folds") / "cv"
    flags = "--preset tiny --size 32 --epochs 1 --batch 8 --lr 1e-3 --threads 1 --device cpu --positive abnormal"
    assert (
        main(["train", "xfmamba", "--data", str(bones), "--out", str(out), *flags.split(), "--quiet", "--folds", "3"])
        == 0
    )
    return out
