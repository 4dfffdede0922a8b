"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
import torch

from scanfuse.data.phantoms import harvard


@pytest.fixture(scope="session")
def head_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of two slices, 48 x 48, CT-MRI, in the Harvard layout."""
    root = tmp_path_factory.mktemp("heads")
    harvard.write(root, pair=("CT", "MRI"), cases=6, slices=2, size=48, seed=0)
    return root


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
