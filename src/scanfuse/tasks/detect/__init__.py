"""Detection: what a system that finds objects is composed with.

    raw maps --loss--> training       raw maps --decode, suppression--> boxes in pixels of the stored pictures
                                                       |
                                                       +--fit--> one score threshold per class, on validation

Outputs are the raw maps of `scanfuse.layers.detect_head`, one per stride. Tables are COCO's, over all boxes; the
thresholds decide only what is drawn, written and said.

See `boxes`, `assigner`, `loss`, `nms`, `found` and `detections` (results), `table`, `figures`, `explain`, `writing`.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from torch import Tensor

from scanfuse.config import Section
from scanfuse.data.batches import epoch_order
from scanfuse.data.box_text import class_names
from scanfuse.data.inputs import Samples
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.explain.explanation import Explanation
from scanfuse.explain.gradcam import Method as MapMethod
from scanfuse.metrics.detection.average_precision import summary
from scanfuse.metrics.detection.curves import precision_recall
from scanfuse.metrics.detection.matching import match
from scanfuse.tables import Comparisons, Evaluation
from scanfuse.tasks import Asked, Criterion, Failure, Forward, Instrument, Method, Plot, Settled, Words
from scanfuse.tasks.detect import writing
from scanfuse.tasks.detect.assigner import Targets
from scanfuse.tasks.detect.detections import image_boxes
from scanfuse.tasks.detect.explain import BoxSubject, explained, subject_of
from scanfuse.tasks.detect.found import Found, found_in
from scanfuse.tasks.detect.loss import DetectionLoss, detection_loss
from scanfuse.tasks.detect.nms import Selection
from scanfuse.tasks.detect.table import Scored, comparisons, evaluated

__all__ = ["Detection", "DetectionSettings"]

_log = logging.getLogger(__name__)
_USUAL_THRESHOLD = 0.25


class DetectionSettings(Section):
    """What is found; filled from the boxes of the data where it is left open."""

    classes: tuple[str, ...] = Field((), description="in the order of their numbers; none: all found, by name")
    select_by: Literal["map", "map50", "loss"] = Field(
        "map", description="which validation value picks the best epoch"
    )
    pedestrian: str = Field("person", description="class whose log-average miss rate is reported")

    def filled(self, manifest: Manifest) -> "DetectionSettings":
        """With the classes of the data.

        Raises:
            UserError: no box at all, or other classes than the settings ask for.
        """
        found = sorted({name for text in manifest.table["target"] for name in class_names(text)})
        if not found:
            raise UserError("The data hold no box at all: check the annotations, or the option labels of the layout.")
        if self.classes and set(found) - set(self.classes):
            odd = ", ".join(sorted(set(found) - set(self.classes)))
            raise UserError(f"The data have boxes of {odd}, but --classes names {', '.join(self.classes)}.")
        return self.model_copy(update={"classes": self.classes or tuple(found)})


class Detection:
    """The detection of one run: the task `scanfuse.tasks.Task`, which can be explained.

    Attributes:
        classes: names by number.
        thresholds: score of each class from which a box is shown; 0.25 until `fit` or `restore`.
    """

    words = Words("images", "scenes")
    headline = ("map", "map50", "map75", "miss_rate")
    shows_missing = True

    def __init__(self, settings: DetectionSettings, *, loss: DetectionLoss, selection: Selection) -> None:
        self.settings, self.loss_settings, self.selection = settings, loss, selection
        self.classes = settings.classes or ("object",)
        self.thresholds: tuple[float, ...] = (_USUAL_THRESHOLD,) * len(self.classes)
        self._fitted: dict[str, Any] | None = None

    def begin(self, training: Samples, validation: Samples) -> None:
        """Refuses data without boxes to learn from, or to choose by."""
        for samples, name in ((training, "training"), (validation, "validation")):
            if not any(class_names(text) for text in samples.targets):
                raise UserError(f"No {name} image has a box: check the annotations, or the split.")

    def order(self, count: int, *, batch: int, seed: int, epoch: int) -> list[list[int]]:
        """Every sample once; a last batch of one joins the one before it, because batch norms need more."""
        order = epoch_order(count, batch, seed, epoch)
        if len(order) > 1 and len(order[-1]) == 1 < batch:
            order[-2:] = [order[-2] + order[-1]]
        return order

    def loss(self, outputs: Sequence[Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """See `detection_loss`; divided by the number of samples, so that it does not depend on the batch."""
        objects = batch["objects"]
        targets = Targets(objects["image"], objects["classes"], objects["boxes"])
        parts = detection_loss(outputs, targets, self.loss_settings)
        count = len(batch["meta"])
        return {name: value / count if name == "loss" else value.detach() for name, value in parts.items()}

    def validation(self, scored: Iterable[tuple[Any, dict[str, Any]]]) -> dict[str, float]:
        """The mean loss over images, and COCO's average precisions over all of them."""
        sums: dict[str, float] = {}
        results: list[Found] = []
        for outputs, batch in scored:
            size = len(batch["meta"])
            for name, value in self.loss(outputs, batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) * size
            results += found_in(outputs, batch, self.classes, self.selection)
        images = [image_boxes(result.detections) for result in results]
        averages, _ = summary(match(images, len(self.classes)))
        precisions = {name: float(averages[name][0]) for name in ("map", "map50")}
        return {name: value / len(results) for name, value in sums.items()} | precisions

    def criterion(self, row: Mapping[str, float]) -> Criterion:
        """By the average precision, or by the loss where it is not defined or asked for."""
        by = self.settings.select_by
        if by != "loss" and np.isfinite(row[f"val_{by}"]):
            # In the first epochs nothing is found; among equals the smaller loss is the better epoch.
            return Criterion(-row[f"val_{by}"] + 1e-6 * min(row["val_loss"], 1000.0), by)
        note = "The validation images have no object: the best epoch is picked by their loss."
        return Criterion(row["val_loss"], "loss", note if by != "loss" else "")

    def results(self, forward: Forward, batch: dict[str, Any]) -> list[Found]:
        """The boxes of every sample."""
        outputs: Any = forward(batch)
        return found_in(outputs, batch, self.classes, self.selection)

    def fit(self, results: Iterable[Found]) -> str:
        """For each class the score of the largest F1 on the validation images (IoU 0.5)."""
        images = [image_boxes(result.detections) for result in results]
        matches = match(images, len(self.classes))
        best = [precision_recall(matches, label).best_f1() for label in range(len(self.classes))]
        # With an F1 of 0 the score is that of a mistake, and so is nan.
        self.thresholds = tuple(score if f1 > 0 else _USUAL_THRESHOLD for f1, score in best)
        lacking = [name for name, (f1, _) in zip(self.classes, best, strict=True) if not f1 > 0]
        self._fitted = {
            "classes": list(self.classes),
            "thresholds": list(self.thresholds),
            "f1": [f1 if np.isfinite(f1) else None for f1, _ in best],
            "images": len(images),
            "notes": [f"no {', no '.join(lacking)} was found in validation: the threshold is 0.25"]
            if lacking
            else [],
        }
        cuts = ", ".join(f"{name} {cut:.2f}" for name, cut in zip(self.classes, self.thresholds, strict=True))
        return f"Score thresholds from {len(images)} validation images: {cuts}"

    def fitted(self) -> dict[str, Any] | None:
        """The thresholds."""
        return self._fitted

    def restore(self, fitted: Mapping[str, Any] | None) -> None:
        """Takes the thresholds that a run has stored; without any 0.25 stays, and this is said.

        Raises:
            UserError: they are damaged or of other classes.
        """
        if fitted is None:
            _log.warning("The run has no score thresholds: nothing was fitted on validation, they are 0.25.")
            return
        try:
            classes, thresholds = tuple(fitted["classes"]), tuple(map(float, fitted["thresholds"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"The record of score thresholds is damaged ({type(error).__name__}: {error}).") from None
        if classes != self.classes or len(thresholds) != len(classes):
            raise UserError("The score thresholds of the run are of other classes than config.yaml: train again.")
        self.thresholds, self._fitted = thresholds, dict(fitted)

    def finished(self, results: Sequence[Found]) -> list[Found]:
        """The same."""
        return list(results)

    def evaluate(self, methods: Mapping[str, Method], samples: Manifest, asked: Asked) -> Evaluation:
        """COCO's table, by class, by subgroup and with a sensor missing, with pictures."""
        if asked.ensemble:
            raise UserError("--ensemble is for classification; these runs find objects.")
        if asked.split == "val":
            note = "the best epoch and the thresholds were chosen on these images: the values are too good"
            samples = Manifest(samples.table, samples.modalities, (*samples.notes, note), samples.subgroups)
        scored = self._scored(methods)
        lacking = {name: self._scored(method.without) for name, method in methods.items() if method.without}
        found = evaluated(scored, self.classes, samples, asked.split, by=asked.by, lacking=lacking)
        if asked.pictures:
            chosen = _spread(len(samples), asked.pictures)
            results = {name: [each.results[index] for index in chosen] for name, each in scored.items()}
            found.pictures["gallery.png"] = writing.gallery(results, min(self.thresholds))
        return found

    def evaluate_folds(
        self, methods: Mapping[str, Method], parts: Mapping[str, Manifest], asked: Asked
    ) -> Evaluation:
        """Every image by the run that held it out."""
        results = [result for name in parts for result in methods[name].raw]
        tables = pd.concat([part.table for part in parts.values()], ignore_index=True)
        first = next(iter(parts.values()))
        whole = Manifest(tables, first.modalities, first.notes, first.subgroups)
        pooled = {"out of fold": Scored.of(results, self.classes, self.settings.pedestrian)}
        return evaluated(pooled, self.classes, whole, asked.split, by=asked.by)

    def compare(self, methods: Mapping[str, Method], samples: Manifest, asked: Asked) -> Comparisons:
        """Paired bootstrap over scenes of COCO's table."""
        return comparisons(self._scored(methods), self.classes, samples, asked.split)

    def describe(self, result: Found) -> str:
        """How many of each class there are."""
        found = result.above(self.thresholds)
        counts = np.bincount(found.classes, minlength=len(self.classes))
        said = [f"{count} {name}" for name, count in zip(self.classes, counts, strict=False) if count]
        return ", ".join(said) or "nothing found"

    def save(self, result: Found, folder: Path) -> list[Path]:
        """Writes `<id>.png` with the boxes on every sensor, and `<id>.json` with all of them."""
        return writing.save(result, self.thresholds, folder)

    def write(self, found: Iterable[Found | Failure], folder: Path) -> list[Path]:
        """Writes predictions.csv, predictions.json (COCO) and a picture of every sample."""
        return writing.write_all(found, self.thresholds, folder)

    def subject(self, results: Sequence[Found], label: str | None = None) -> BoxSubject:
        """The surest box, or the surest of a class; see `explain.subject_of`."""
        return subject_of(results[0], self.classes, label)

    def explain(
        self, through: Instrument, batch: dict[str, Any], subject: BoxSubject, *, method: MapMethod
    ) -> Explanation:
        """Which sensor a box rests on, and where; see `explain.explained`."""
        return explained(through, batch, subject, self.classes, self.selection, method=method)

    def about(self, results: Sequence[Found], subject: BoxSubject) -> dict[str, Any]:
        """How many boxes the image has."""
        return {"boxes_in_image": len(results[0].above(self.thresholds))}

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The classes."""
        classes = config.get("task", {}).get("classes", [])
        return [("Finds", ", ".join(classes))] if classes else []

    @staticmethod
    def counts(split: pd.DataFrame, names: Sequence[str], config: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
        """Boxes of every class by split."""
        classes = config.get("task", {}).get("classes", [])
        parts = [split.loc[split["split"] == name, "target"] for name in names]
        found = [[label for text in part for label in class_names(text)] for part in parts]
        return [(f"boxes of {name}", [str(each.count(name)) for each in found]) for name in classes]

    @staticmethod
    def settled(fitted: Mapping[str, Any]) -> Settled:
        """The thresholds and the F1 that they reached."""
        rows = [
            [name, f"{cut:.3f}", "n/a" if f1 is None else f"{f1:.3f}"]
            for name, cut, f1 in zip(fitted["classes"], fitted["thresholds"], fitted["f1"], strict=True)
        ]
        text = f"Score thresholds of the largest F1 at IoU 0.5 on {fitted['images']} images."
        return Settled(text, [(["class", "threshold", "F1"], rows)], tuple(fitted.get("notes", ())))

    @staticmethod
    def figures(folder: Path, content: Mapping[str, Any], fitted: Mapping[str, Any] | None) -> list[Plot]:
        """Precision and recall, confusion."""
        from scanfuse.tasks.detect import figures  # matplotlib is heavy, and only reports need it

        return figures.of_evaluation(folder)

    def _scored(self, methods: Mapping[str, Method]) -> dict[str, Scored]:
        """Every method's results, matched.

        Raises:
            UserError: runs that find other classes.
        """
        first, *others = methods
        tasks: dict[str, Any] = {name: method.task for name, method in methods.items()}
        for name in others:
            if tasks[name].classes != self.classes:
                raise UserError(f"{name} finds other classes than {first}: use them one by one.")
        pedestrian = self.settings.pedestrian
        return {name: Scored.of(method.raw, self.classes, pedestrian) for name, method in methods.items()}


def _spread(total: int, count: int) -> list[int]:
    """Positions of about `count` samples spread evenly."""
    count = min(count, total)
    return sorted({round((index + 0.5) * total / count - 0.5) for index in range(count)})
