"""The shape annotations are true: a step of every system runs with jaxtyping and beartype switched on."""

import subprocess
import sys
from pathlib import Path

import pytest

from scanfuse import systems

_STEP = """
import sys
from pathlib import Path
from jaxtyping import TypeCheckError, install_import_hook

name, folder, out = sys.argv[1:]
packages = ["fusion", f"systems.{name}", "tasks.fuse", "tasks.classify", "tasks.detect", "backbones"]
with install_import_hook([f"scanfuse.{package}" for package in packages], "beartype.beartype"):
    from scanfuse import config, systems

    system_type = systems.load(name)
    shown = system_type.demonstration.settings
    preset = config.preset(name, system_type.demonstration.preset)
    settings = config.build(system_type.Config, preset, shown)
    completed = systems.ability(system_type, "completed")
    system = systems.build(completed(settings, Path(folder)) if completed else settings)
    task = system.task
    manifest = system.data.open(Path(folder))
    system.data.prepare(manifest.subset("train"))
    data = system.data.dataset(manifest, train=False)
    batch = system.data.collate([data[0], data[1]])
    task.begin(data, data)
    outputs = system.forward(batch)
    task.loss(outputs, batch)["loss"].backward()
    system.model.eval()
    task.criterion({f"val_{key}": value for key, value in task.validation([(outputs.detach(), batch)]).items()})
    results = task.results(system.forward, batch)
    task.fit(results)
    for result in task.finished(results):
        assert task.save(result, Path(out))
    try:
        task.loss(outputs[0, 0], batch)
    except TypeCheckError:
        print("checked")
"""


# A detector's outputs are no single tensor; `test_detection` and `test_detect_head` look at their shapes.
@pytest.mark.parametrize("name", [name for name in systems.available() if name != "fusionmamba"])
def test_annotations_hold_in_a_step(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    by_phantom = {
        "brats": "brains",
        "copd": "chests",
        "harvard": "head_phantoms",
        "isic2024": "moles",
        "mura": "bones",
        "volume_manifest": "scans",
    }
    folder = request.getfixturevalue(by_phantom[systems.load(name).demonstration.phantom])
    command = [sys.executable, "-c", _STEP, name, str(folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "checked"
