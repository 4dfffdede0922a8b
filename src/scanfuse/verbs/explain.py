"""`scanfuse explain`: why a sample got its result, by heat maps and by leaving inputs out.

The maps come from the system and their meaning from the task. Where either has none, one line says so.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from scanfuse import systems
from scanfuse.data.inputs.slices import chosen
from scanfuse.data.manifest import Manifest
from scanfuse.data.readers import read_image
from scanfuse.data.transforms.placement import Placement
from scanfuse.device import to_device
from scanfuse.errors import UserError
from scanfuse.explain.explanation import Explanation
from scanfuse.explain.gradcam import Method
from scanfuse.files import atomic_path, write_text
from scanfuse.tables import Example
from scanfuse.tasks import Instrument
from scanfuse.verbs.predict import Predictor

__all__ = [
    "batches_of",
    "can_explain",
    "explain",
    "explain_batches",
    "explain_one",
    "explain_sample",
    "write_examples",
]

MOST_PAIRS = 6

_log = logging.getLogger(__name__)


def can_explain(system: systems.System) -> bool:
    """Whether the system has heat maps and its task can say what they mean."""
    return systems.ability(system, "evidence") is not None and systems.ability(system.task, "explain") is not None


def explain_sample(
    predictor: Predictor,
    data: str | Path,
    id: str,
    out: str | Path,
    *,
    label: str | None = None,
    method: Method = "gradcam",
) -> list[Path]:
    """Explains a sample, every pair of views of a study (at most six); returns the panels, written with overlays.

    Args:
        predictor: a run that can be explained.
        data: folder or manifest that holds the sample.
        id: of the sample.
        out: folder; gets `<pair>/panel.png`, one overlay per input and map in the size of the picture, and
            `<pair>/explanation.json`.
        label: what to explain; None: what the sample as a whole is called.
        method: gradcam or hirescam.

    Raises:
        UserError: the run has no heat maps, there is no such sample or label.
    """
    _instrument(predictor)
    manifest = predictor.system.data.open(Path(data), split=False)
    return explain_batches(predictor, batches_of(predictor, manifest, id), out, label=label, method=method)


def explain_batches(
    predictor: Predictor,
    batches: Sequence[dict[str, Any]],
    out: str | Path,
    *,
    label: str | None = None,
    method: Method = "gradcam",
) -> list[Path]:
    """Explains the samples of one reported unit, each a batch of one (at most six); see `explain_sample`."""
    through = _instrument(predictor)
    task: Any = predictor.system.task
    raw = [result for batch in batches for result in predictor.raw(batch)]
    subject = task.subject(raw, label)
    about = task.about(raw, subject)
    if len(batches) > MOST_PAIRS:
        study = batches[0]["meta"][0].get("study", "")
        _log.warning("%s has %d pairs of views; the first %d are explained.", study, len(batches), MOST_PAIRS)
    return [
        task.explain(through, to_device(batch, predictor.device), subject, method=method).write(Path(out), about)
        for batch in batches[:MOST_PAIRS]
    ]


def explain_one(predictor: Predictor, inputs: Mapping[str, Any], out: str | Path) -> list[Path]:
    """Explains one sample given by hand, as `predict` takes it; returns the panels.

    Raises:
        UserError: the run has no heat maps, or the sample has no picture.
    """
    _instrument(predictor)
    sample = predictor.sample(inputs)
    return explain_batches(predictor, [predictor.system.data.collate([sample])], out)


def explain(predictor: Predictor, batch: dict[str, Any], subject: Any, *, method: Method = "gradcam") -> Explanation:
    """Maps and ablation of a batch of one sample."""
    task: Any = predictor.system.task
    return task.explain(_instrument(predictor), to_device(batch, predictor.device), subject, method=method)


def batches_of(predictor: Predictor, manifest: Manifest, id: str) -> list[dict[str, Any]]:
    """The samples of one row, each a batch of one; UserError if there is no such row."""
    rows = manifest.table[manifest.table["id"] == id].reset_index(drop=True)
    if not len(rows):
        some = ", ".join(manifest.table["id"].head(3))
        raise UserError(f"There is no sample {id!r} in the data; ids look like {some}.")
    data = predictor.system.data.dataset(Manifest(rows, manifest.modalities, manifest.notes), train=False)
    return [predictor.system.data.collate([data[index]]) for index in range(len(data))]


def write_examples(predictor: Predictor, manifest: Manifest, examples: Sequence[Example], out: Path) -> None:
    """Explains results for a report: `examples/*.png` and `examples.json` in `out`; earlier ones are removed.

    Args:
        predictor: a run that can be explained.
        manifest: the samples.
        examples: what its task has chosen.
        out: folder of the evaluation.
    """
    # Those of an earlier evaluation, of other samples perhaps, must not stand beside the new numbers.
    (out / "examples.json").unlink(missing_ok=True)
    for kind in ("right", "wrong"):
        for old in (out / "examples").glob(f"{kind}_*.png"):
            old.unlink()
    listed = []
    counts = {True: 0, False: 0}
    for example in examples:
        counts[example.right] += 1
        batches = batches_of(predictor, manifest, example.id)
        found = explain(predictor, batches[0], example.subject)
        name = f"examples/{'right' if example.right else 'wrong'}_{counts[example.right]}.png"
        with atomic_path(out / name) as temporary:
            PillowImage.fromarray(found.picture()).save(temporary, format="PNG")
        text = example.text
        text += f"; shown is the first of {len(batches)} pairs of views" if len(batches) > 1 else ""
        listed.append({"id": example.id, "right": example.right, "text": text, "file": name})
    if listed:
        write_text(out / "examples.json", json.dumps({"examples": listed}, indent=2) + "\n")


def _instrument(predictor: Predictor) -> Instrument:
    """What the task looks through; UserError where the system or the task has nothing to show."""
    system: Any = predictor.system
    if not can_explain(system):
        raise UserError(f"{predictor.run.path} is a run of {system.config.system}, which has no heat maps to show.")
    return Instrument(
        system.data.modalities,
        system.forward,
        system.evidence,
        systems.ability(system.data, "picture") or _pixels,
        systems.ability(system.data, "parts"),
        systems.ability(system, "inner"),
    )


def _pixels(batch: dict[str, Any], name: str) -> tuple[np.ndarray, Placement]:
    """The original picture of an input of a batch of one, and where it lies in what the network saw."""
    meta = batch["meta"][0]
    slices = chosen(meta.get("slice", ""))
    return read_image(meta["paths"][name], slices=slices, member=meta["id"]).pixels, meta["placements"][name]
