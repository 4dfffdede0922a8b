"""The prediction engine: a trained run, or several as an ensemble, applied to one sample or to a folder.

predictor = scanfuse.load("runs/brain")
result = predictor.predict(mri="mri.png", ct="ct.png")
result.pixels                      # the fused image, in the range and depth of its source
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import torch
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader

from scanfuse import config as configuration
from scanfuse import systems
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.files import file_name, write_text
from scanfuse.run import Run, open_run
from scanfuse.tasks.classify import Scored, ensemble
from scanfuse.tasks.classify_decision import combine
from scanfuse.tasks.classify_job import write_decided
from scanfuse.train import to_device

__all__ = ["Ensemble", "Predictor", "load", "predict_folder"]


class Predictor:
    """A trained system, ready to be applied.

    Attributes:
        run: the run folder.
        system: the system with the best weights, in evaluation mode.
        device: where it computes.
    """

    def __init__(self, run: Run, *, device: str = "auto") -> None:
        content = run.config()
        system_type = systems.load(str(content.get("system")))
        self.run = run
        self.system = system_type(configuration.build(system_type.Config, content))
        _load_weights(self.system.model, run)
        if isinstance(self.system, systems.Classifier):
            self.system.job.restore(run.path)
        self.device = choose_device(device)
        self.system.model.to(self.device).eval()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return self.system.modalities

    @property
    def classifier(self) -> systems.Classifier:
        """The system of a run that classifies.

        Raises:
            UserError: it does something else.
        """
        if not isinstance(self.system, systems.Classifier):
            raise UserError(f"{self.run.path} is a run of {self.system.config.system}, which does not classify.")
        return self.system

    def predict(self, **inputs: Any) -> Any:
        """The result for one sample.

        Args:
            inputs: for each modality a path, or a numpy array (H, W) or (H, W, 3): uint8, uint16, or float (then its
                own smallest and largest value are its range).

        Raises:
            UserError: a modality is missing or unknown, or a file cannot be read.
        """
        for name in inputs:
            if name not in self.modalities:
                near = difflib.get_close_matches(name, self.modalities, n=1) or self.modalities
                raise UserError(
                    f"This run knows no input {name!r}; it takes {_both(self.modalities)} (not {near[0]!r}?)."
                )
        missing = [name for name in self.modalities if inputs.get(name) is None]
        if missing and not (isinstance(self.system, systems.Classifier) and len(missing) < len(self.modalities)):
            raise UserError(f"The input {missing[0]!r} is missing; this run takes {_both(self.modalities)}.")
        given = {name: inputs[name] for name in self.modalities if name not in missing}
        return self.batch(self.system.collate([self.system.sample(given)]))[0]

    def batch(self, batch: dict[str, Any]) -> list[Any]:
        """The results for a batch of the system's data set."""
        return self.system.predict(to_device(batch, self.device))

    def raw(self, manifest: Manifest, *, quiet: bool = True) -> Iterator[Scored]:
        """The raw results of all samples of a classifier's data, in order; a study may have several."""
        system = self.classifier
        data = system.dataset(manifest, train=False)
        loader = DataLoader(data, batch_size=system.config.train.batch, collate_fn=system.collate)
        for batch in track(loader, "predicting", len(loader), transient=True, disable=quiet):
            yield from system.results(to_device(batch, self.device))

    def each(self, manifest: Manifest) -> Iterator[tuple[dict[str, Any], Any]]:
        """Batch (of one sample) and result for every row, in order."""
        loader = DataLoader(self.system.dataset(manifest, train=False), collate_fn=self.system.collate)
        for batch in loader:
            yield batch, self.batch(batch)[0]


class Ensemble:
    """Several classifying runs as one, such as the folds of a cross-validation.

    The probability of a study is the mean of the members' calibrated ones. The thresholds are the means of the
    members' own thresholds; nothing is fitted for the ensemble.

    Attributes:
        members: the runs by name.
        task: what they predict.
        decision: the thresholds; temperature 1, because the members are calibrated.

    Raises:
        UserError: a member does not classify, or predicts other labels or from other inputs.
    """

    def __init__(self, members: Mapping[str, Predictor]) -> None:
        self.members = dict(members)
        first, *others = self.members
        self.task = self.members[first].classifier.job.task
        for name in others:
            member = self.members[name]
            if member.classifier.job.task != self.task or member.modalities != self.members[first].modalities:
                raise UserError(f"{name} predicts other labels, or from other inputs, than {first}: use it alone.")
        self.decision = combine([member.classifier.job.decision for member in self.members.values()])

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return next(iter(self.members.values())).modalities

    def predict(self, **inputs: Any) -> tuple[Scored, dict[str, Scored]]:
        """The result of the ensemble and those of its members for one sample; see `Predictor.predict`."""
        found = {name: member.predict(**inputs) for name, member in self.members.items()}
        return ensemble([[result] for result in found.values()], self.task)[0], found

    def studies(self, manifest: Manifest) -> tuple[list[Scored], list[list[Scored]]]:
        """The results of the ensemble and those of each member, calibrated, one per study of the manifest."""
        found = [member.classifier.job.decided(list(member.raw(manifest))) for member in self.members.values()]
        return ensemble(found, self.task), found

    def describe(self, result: Scored, found: Mapping[str, Scored]) -> str:
        """A result in one line: what it is called, and the range of the members."""
        column = int(np.argmax(result.probabilities))
        low, high = (bound(member.probabilities[column] for member in found.values()) for bound in (min, max))
        called = ", ".join(self.decision.called(result)) or f"not {' or '.join(self.task.labels)}"
        parts = [f"{label} {p:.3f}" for label, p in zip(self.task.labels, result.probabilities, strict=True)]
        return (
            f"{called} ({', '.join(parts)}; {self.task.labels[column]} is {low:.3f} to {high:.3f} "
            f"in the {len(found)} members)"
        )

    def save(self, result: Scored, found: Mapping[str, Scored], folder: Path) -> Path:
        """Writes the result of one sample with those of the members as `<id>.json`."""
        path = folder / f"{file_name(result.id)}.json"
        labels = self.task.labels
        spread = _spread([[member] for member in found.values()])[0]
        content = {
            "id": result.id,
            "called": list(self.decision.called(result)),
            "probabilities": _by_label(labels, result.probabilities),
            "standard_deviations": _by_label(labels, spread),
            "members": {name: _by_label(labels, member.probabilities) for name, member in found.items()},
            "thresholds": dict(zip(labels, self.decision.thresholds, strict=False)),
        }
        write_text(path, json.dumps(content, indent=2) + "\n")
        return path


def load(run_or_hub_id: str | Path, *, device: str = "auto") -> Predictor:
    """A predictor from a run folder, or from a run that was uploaded to the Hugging Face Hub as `owner/name`."""
    path = Path(run_or_hub_id)
    text = str(run_or_hub_id)
    if not path.exists() and text.count("/") == 1 and not text.startswith((".", "/")):
        try:
            path = Path(huggingface_hub.snapshot_download(text, allow_patterns=["*.yaml", "*.json", "*.safetensors"]))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"There is no run folder {text}, and it cannot be had from the Hub: {reason}") from None
    return Predictor(open_run(path), device=device)


def predict_folder(predictor: Predictor | Ensemble, data: str | Path, out: str | Path) -> list[Path]:
    """Predicts every sample under `data` and writes the results; returns the main files.

    A classifier writes one table, predictions.csv, with one row per study. That of an ensemble has for every label
    also the standard deviation over the members, `sd_<label>`, and each member's probability, `p_<label>_<member>`.
    """
    path = Path(out) / "predictions.csv"
    if isinstance(predictor, Ensemble):
        manifest = next(iter(predictor.members.values())).system.open_data(Path(data), split=False)
        studies, members = predictor.studies(manifest)
        labels, spread = predictor.task.labels, _spread(members)
        further = {f"sd_{label}": list(spread[:, column]) for column, label in enumerate(labels)}
        for name, found in zip(predictor.members, members, strict=True):
            by_id = {result.id: result.probabilities for result in found}
            for column, label in enumerate(labels):
                further[f"p_{label}_{name}"] = [float(by_id[study.id][column]) for study in studies]
        write_decided(path, predictor.decision, studies, further)
        return [path]
    manifest = predictor.system.open_data(Path(data), split=False)
    if isinstance(predictor.system, systems.Classifier):
        job = predictor.system.job
        write_decided(path, job.decision, job.decided(list(predictor.raw(manifest))))
        return [path]
    return [predictor.system.save(result, Path(out))[0] for _, result in predictor.each(manifest)]


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one.

    Raises:
        UserError: torch does not know it or cannot use it.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).tolist()  # "meta" has devices, but no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"The device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def _load_weights(model: nn.Module, run: Run) -> None:
    weights, expected = run.load_weights(), model.state_dict()
    wrong = [name for name in expected if name not in weights or weights[name].shape != expected[name].shape]
    wrong += [name for name in weights if name not in expected]
    if wrong:
        raise UserError(
            f"{run.weights_file} does not fit config.yaml: {len(wrong)} tensor(s) are missing, unknown or of another "
            f"shape, such as {wrong[0]}. Use the version of scanfuse in run.json, or train again."
        )
    model.load_state_dict(weights)


def _both(names: tuple[str, ...]) -> str:
    return " and ".join(names)


def _spread(members: Sequence[Sequence[Scored]]) -> np.ndarray:
    """Standard deviation (n - 1) of the members' probabilities, (studies, labels), studies as in the first member."""
    tables = [{result.id: result.probabilities for result in found} for found in members]
    values = np.array([[table[result.id] for result in members[0]] for table in tables])
    return np.asarray(values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:]))


def _by_label(labels: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {label: float(value) for label, value in zip(labels, values, strict=True)}
