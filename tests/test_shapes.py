"""The shape annotations are true: a step of every system runs with jaxtyping and beartype switched on."""

import subprocess
import sys
from pathlib import Path

import pytest

from scanfuse import systems

_STEP = """
import sys
from jaxtyping import install_import_hook

with install_import_hook(
    ["scanfuse.fusion", f"scanfuse.systems.{sys.argv[1]}", "scanfuse.tasks", "scanfuse.backbones"],
    "beartype.beartype",
):
    from scanfuse import config, systems

    system_type = systems.load(sys.argv[1])
    system = system_type(config.build(system_type.Config, config.preset(sys.argv[1], "tiny")))
    manifest = system.open_data(__import__("pathlib").Path(sys.argv[2]))
    data = system.dataset(manifest, train=False)
    batch = system.collate([data[0], data[1]])
    system.loss(batch)["loss"].backward()
    system.model.eval()
    system.score(system.predict(batch)[0])

    import torch
    from jaxtyping import TypeCheckError
    from scanfuse.tasks.fuse import split_colour
    try:
        split_colour(torch.zeros(1, 4, 8, 8))
    except TypeCheckError:
        print("checked")
"""


@pytest.mark.parametrize("name", ["clinicalfmamba"])
def test_annotations_hold_in_a_step(name: str, head_phantoms: Path) -> None:
    assert name in systems.available()
    command = [sys.executable, "-c", _STEP, name, str(head_phantoms)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "checked"
