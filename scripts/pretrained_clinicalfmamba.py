"""Makes the weights that ship as pretrained/clinicalfmamba, from nothing: no patient's picture has a part in them.

    python scripts/pretrained_clinicalfmamba.py OUT

Phantom heads in the Harvard layout, each as CT, SPECT and PET beside the same MRI, become one set of pairs
"SOURCE-MRI"; preset `detail` is trained on them; OUT becomes the run that ships: its inputs are called CT and MRI.
With the settings as they stand it takes a quarter of an hour on one core. Training and validation share heads (with
another source), which nothing but the choice of the epoch sees, and the last one was the best.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

from scanfuse import config as configuration
from scanfuse.data.synthetic import harvard
from scanfuse.files import write_text
from scanfuse.run import Run
from scanfuse.systems.clinicalfmamba import Config
from scanfuse.verbs.train import train

SOURCES = ("CT", "SPECT", "PET")
SHIPPED = ("config.yaml", "model.safetensors", "run.json", "split.csv", "history.csv")
SETTINGS = {
    "data": {"pair": "SOURCE-MRI", "group_pattern": r"^(.+)\d{3}$", "val_fraction": 0.06, "test_fraction": 0.02},
    "train": {"device": "cpu", "threads": 1},
}


def phantoms(folder: Path, *, cases: int, slices: int, size: int) -> Path:
    """All pairs as folder/SOURCE and folder/MRI with equal names: <source>-<case><slice>.png."""
    for name in ("SOURCE", "MRI"):
        (folder / name).mkdir(parents=True)
    for source in SOURCES:
        options = harvard.Options(cases=cases, slices=slices, size=size, pair=f"{source}-MRI", seed=5)
        made = harvard.write(folder / source, options)
        for path in sorted(made.glob(f"*/*/{source}/*.png")):
            name = f"{source.lower()}-{path.name}"
            path.replace(folder / "SOURCE" / name)
            (path.parents[1] / "MRI" / path.name).replace(folder / "MRI" / name)
        shutil.rmtree(made)
    return folder


def export(run: Run, data: Path, out: Path) -> None:
    """Copies what ships; the input SOURCE is called CT, and `--pair SPECT-MRI` renames it where a run is applied."""
    out.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED:
        shutil.copyfile(run.path / name, out / name)
    settings = {"pair": "CT-MRI", "group_pattern": None, "val_fraction": 0.15, "test_fraction": 0.15}
    config = configuration.build(Config, run.config(), {"data": settings})
    write_text(out / "config.yaml", configuration.to_yaml(config))
    split = (out / "split.csv").read_text(encoding="utf-8")
    write_text(out / "split.csv", split.replace(f"{data}{os.sep}", ""))
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    write_text(out / "run.json", json.dumps({**record, "data": "phantoms"}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", type=int, default=60, help="heads for each of CT, SPECT and PET")
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--crop", type=int, default=128)
    asked = parser.parse_args()
    changes = {"train": {"epochs": asked.epochs}, "data": {"crop": asked.crop}}
    config = configuration.build(Config, configuration.preset("clinicalfmamba", "detail"), SETTINGS, changes)
    with tempfile.TemporaryDirectory() as scratch:
        data = phantoms(Path(scratch) / "data", cases=asked.cases, slices=asked.slices, size=asked.size)
        run = train(config, data, Path(scratch) / "run")
        export(run, data, asked.out)


if __name__ == "__main__":
    main()
