"""`scanfuse predict`: a trained run, or several as an ensemble, applied to samples or to a folder.

predictor = scanfuse.load("runs/brain")
result = predictor.predict(mri="mri.png", ct="ct.png")
result.pixels                      # the fused image, in the range and depth of its source
"""

import difflib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import torch
from pydantic import ValidationError
from rich import get_console
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader

from scanfuse import config as configuration
from scanfuse import systems
from scanfuse.data.inputs import Samples
from scanfuse.data.manifest import Manifest
from scanfuse.device import choose_device, to_device
from scanfuse.errors import UserError
from scanfuse.files import free_id
from scanfuse.options import leaves, nested
from scanfuse.run import Run, misfits, open_run
from scanfuse.tasks import Failure, Method

__all__ = ["Ensemble", "Predicted", "Predictor", "listed", "load", "predict_folder", "predict_listed", "predict_one"]

HUB = "hf://"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def _tracked(loader: DataLoader[Any], quiet: bool) -> Iterable[Any]:
    """The batches, with a progress bar on a terminal."""
    hidden = quiet or not get_console().is_terminal
    return track(loader, "predicting", len(loader), transient=True, disable=hidden)


class Predictor:
    """A trained system, ready to be applied.

    Attributes:
        run: the run folder.
        system: the system with the best weights, in evaluation mode.
        device: where it computes.
        changed: the adjusted settings whose value is another one than in the training.

    Args:
        run: the run folder.
        device: where to compute.
        adjusted: settings that the system lets a user change when a run is applied, by the names of their flags.
    """

    def __init__(self, run: Run, *, device: str = "auto", adjusted: Mapping[str, str] | None = None) -> None:
        content = run.config()
        system_type = systems.load(content.get("system"))
        self.run = run
        config = configuration.build(system_type.Config, content, _changes(system_type, adjusted or {}))
        self.changed = _different(configuration.build(system_type.Config, content), config, adjusted or {})
        self.system = systems.build(config)
        _load_weights(self.system.model, run)
        self.system.data.restore(run.load_fitted())
        self.system.task.restore(run.fitted_on_validation())
        self.device = choose_device(device)
        self.system.model.to(self.device).eval()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return self.system.data.modalities

    @property
    def adjustable(self) -> tuple[str, ...]:
        """The flags of the settings that may be changed when the run is applied."""
        return tuple(systems.ability(self.system, "adjustable") or ())

    @property
    def shows_missing(self) -> bool:
        """Whether a sample may lack one of several inputs, and the task has a table of what is left without each."""
        may_lack = systems.ability(self.system, "missing_inputs") and len(self.modalities) > 1
        return bool(may_lack and systems.ability(self.system.task, "shows_missing"))

    def choose_slice(self, text: str) -> None:
        """Takes these slices of volumes and stacks from here on, such as "axial:middle".

        Raises:
            UserError: it names no slice, or the system takes no pictures of which there could be slices.
        """
        choose = systems.ability(self.system.data, "choose_slice")
        if choose is None:
            raise UserError(f"{self.system.config.system} takes whole files: leave --slice out.")
        try:
            choose(text)
        except ValidationError as error:
            raise UserError(f"--slice {text}: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from None

    def predict(self, **inputs: Any) -> Any:
        """The result for one sample, or a list of results for lists of inputs.

        Args:
            inputs: for each modality a path, a PIL image, or a numpy array (H, W) or (H, W, 3): uint8, uint16, or
                float (then its own smallest and largest value are its range); or a list of these, all lists of one
                length (None in a list: that sample lacks the input).

        Raises:
            UserError: a modality is missing or unknown, or a file cannot be read.
        """
        if any(isinstance(value, list | tuple) for value in inputs.values()):
            return self._predict_lists(inputs)
        return self.batch(self.system.data.collate([self.sample(inputs)]))[0]

    def batch(self, batch: dict[str, Any]) -> list[Any]:
        """The finished results for a batch of the system's data set."""
        return self.system.task.finished(self.raw(batch))

    @torch.no_grad()
    def raw(self, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> list[Any]:
        """The raw results for a batch of the system's data set; inputs in `without` count as missing."""
        forward = partial(self.system.forward, without=without) if without else self.system.forward
        return self.system.task.results(forward, to_device(batch, self.device))

    def method(
        self,
        manifest: Manifest,
        *,
        without: frozenset[str] = frozenset(),
        each_missing: bool = False,
        perturbed: bool = False,
        quiet: bool = True,
    ) -> Method:
        """The run on all samples of a manifest, as its task takes it.

        Args:
            manifest: the samples.
            without: inputs that count as missing.
            each_missing: also the run without each input in turn.
            perturbed: also the run on samples that its input kind spoils on purpose.
            quiet: no progress.

        Raises:
            UserError: the system does not know missing inputs or perturbations, or its task has no table of them.
        """
        if each_missing and not self.shows_missing:
            alone = f": it reads {self.modalities[0]} alone" if len(self.modalities) == 1 else ""
            raise UserError(f"{self.system.config.system} has no table with inputs missing{alone}.")
        spoil = systems.ability(self.system.data, "perturbed")
        if perturbed and (spoil is None or systems.ability(self.system.task, "shows_perturbed") is None):
            raise UserError(
                f"{self.system.config.system} has no perturbations to be tried with: leave --perturb out."
            )
        samples: Any = self.system.data.dataset(manifest, train=False)
        lacking = {
            name: Method(self.system.task, self._scored(_Left(samples, name), frozenset([name]), quiet))
            for name in (self.modalities if each_missing else ())
        }
        spoilt = {
            name: Method(self.system.task, self._scored(each, without, quiet))
            for name, each in (spoil(samples) if perturbed and spoil is not None else {}).items()
        }
        return Method(self.system.task, self._scored(samples, without, quiet), lacking, spoilt)

    def _scored(
        self, samples: Any, without: frozenset[str], quiet: bool
    ) -> Iterator[tuple[dict[str, Any], list[Any]]]:
        """Batches and their raw results."""
        data = self.system.data
        loader: DataLoader[Any] = DataLoader(samples, batch_size=self._at_once, collate_fn=data.collate)
        # Where a sample is a step of its own, the task shows how far all runs together are.
        steps = _tracked(loader, quiet or data.mixed_sizes)
        return ((batch, self.raw(batch, without)) for batch in steps)

    def each(self, manifest: Manifest, *, quiet: bool = True) -> Iterator[Any]:
        """Raw results of all samples in order; a sample that cannot be read is a `Failure`."""
        data = self.system.data
        samples: Any = _Guarded(data.dataset(manifest, train=False))
        loader: DataLoader[Any] = DataLoader(samples, batch_size=self._at_once, collate_fn=list)
        for found in _tracked(loader, quiet):
            yield from (each for each in found if isinstance(each, Failure))
            good = [each for each in found if not isinstance(each, Failure)]
            if good:
                yield from self.raw(data.collate(good))

    @property
    def _at_once(self) -> int:
        return 1 if self.system.data.mixed_sizes else int(self.system.config.train.batch)

    def sample(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One sample from inputs by name, as `predict` takes them; UserError for a missing or unknown one."""
        for name in inputs:
            if name not in self.modalities:
                near = difflib.get_close_matches(name, self.modalities, n=1) or self.modalities
                raise UserError(
                    f"This run knows no input {name!r}; it takes {_both(self.modalities)} (not {near[0]!r}?)."
                )
        missing = [name for name in self.modalities if inputs.get(name) is None]
        may_lack = systems.ability(self.system, "missing_inputs") and len(missing) < len(self.modalities)
        if missing and not may_lack:
            raise UserError(f"The input {missing[0]!r} is missing; this run takes {_both(self.modalities)}.")
        given = {name: inputs[name] for name in self.modalities if name not in missing}
        return self.system.data.sample(given)

    def _predict_lists(self, inputs: Mapping[str, Any]) -> list[Any]:
        lengths = {len(value) for value in inputs.values() if isinstance(value, list | tuple)}
        if len(lengths) > 1 or not all(isinstance(value, list | tuple) for value in inputs.values()):
            raise UserError(
                "Give lists of one length for all inputs, or one value for each; these are "
                + ", ".join(
                    f"{name}: {f'{len(value)} values' if isinstance(value, list | tuple) else 'one value'}"
                    for name, value in inputs.items()
                )
                + "."
            )
        samples = []
        for index in range(lengths.pop()):
            try:
                samples.append(self.sample({name: values[index] for name, values in inputs.items()}))
            except UserError as error:
                raise UserError(f"Sample {index}: {error}") from None
        results = []
        for start in range(0, len(samples), self._at_once):
            part = samples[start : start + self._at_once]
            # One by one: two files of one name are two samples, not two pictures of one study.
            results += [self.system.task.finished([raw])[0] for raw in self.raw(self.system.data.collate(part))]
        return results


class Ensemble:
    """Several runs as one, such as the folds of a cross-validation. What that means, their task says.

    Attributes:
        members: the runs by name.

    Raises:
        UserError: runs whose results cannot be joined, or that take other inputs.
    """

    def __init__(self, members: Mapping[str, Predictor]) -> None:
        self.members = dict(members)
        first, *others = self.members
        for name in others:
            if self.members[name].modalities != self.members[first].modalities:
                raise UserError(f"{name} predicts from other inputs than {first}: use it alone.")
        join = systems.ability(self.members[first].system.task, "joined")
        if join is None:
            raise UserError(f"Runs of {self.members[first].system.config.system} cannot be joined: give one run.")
        self.joined = join({name: member.system.task for name, member in self.members.items()})

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return next(iter(self.members.values())).modalities

    def predict(self, **inputs: Any) -> Any:
        """The result of the ensemble and those of its members by name; for lists of inputs a list of such pairs.

        See `Predictor.predict`.
        """
        found = {name: member.predict(**inputs) for name, member in self.members.items()}
        if not any(isinstance(each, list) for each in found.values()):
            return self.joined.result(found), found
        of_samples = [dict(zip(found, each, strict=True)) for each in zip(*found.values(), strict=True)]
        return [(self.joined.result(each), each) for each in of_samples]


def load(run_or_hub_id: str | Path, *, device: str = "auto", adjusted: Mapping[str, str] | None = None) -> Predictor:
    """A predictor from a run folder, or from `hf://owner/name`: a run that was uploaded to the Hugging Face Hub.

    A name without hf:// is always that of a folder, though owner/name may look like one on the Hub: a slip of the
    keyboard must not fetch a model of somebody else's.

    Args:
        run_or_hub_id: the folder or the name.
        device: where to compute.
        adjusted: settings that may be changed when a run is applied, such as {"window": "64"}.

    Raises:
        UserError: no such run, or a setting that is not among these.
    """
    text = str(run_or_hub_id)
    if not text.startswith(HUB):
        try:
            return Predictor(open_run(run_or_hub_id), device=device, adjusted=adjusted)
        except UserError as error:
            if os.path.exists(text) or not _HUB_NAME.fullmatch(text):
                raise
            raise UserError(f"{error} A run on the Hugging Face Hub is named {HUB}{text}.") from None
    name = text.removeprefix(HUB)
    if not _HUB_NAME.fullmatch(name):
        raise UserError(f"{text} names no run on the Hugging Face Hub: it must be {HUB}owner/name.")
    try:
        path = Path(huggingface_hub.snapshot_download(name, allow_patterns=["*.yaml", "*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise UserError(f"{text} cannot be had from the Hugging Face Hub: {str(error).splitlines()[0]}") from None
    return Predictor(open_run(path), device=device, adjusted=adjusted)


def predict_one(
    predictor: Predictor | Ensemble, inputs: Mapping[str, Any], out: str | Path
) -> tuple[str, list[Path]]:
    """Predicts one sample and writes its files; returns what to say of it, "" for nothing, and the files.

    A sample whose name is taken in the folder gets a number: many files are called image1.png.
    """
    out = Path(out)
    if isinstance(predictor, Ensemble):
        result, each = predictor.predict(**inputs)
        result = replace(result, id=free_id(out, result.id))
        return f"{result.id}: {predictor.joined.describe(result, each)}", predictor.joined.save(result, each, out)
    task = predictor.system.task
    result = predictor.predict(**inputs)
    result = replace(result, id=free_id(out, result.id))
    said = task.describe(result)
    return f"{result.id}: {said}" if said else "", task.save(result, out)


@dataclass(frozen=True)
class Predicted:
    """What `predict_folder` did.

    Attributes:
        files: the main ones.
        samples: how many were predicted.
        failures: what could not be.
        replaced: name of an earlier table that was there; "" if there was none.
        seconds: what it took, reading and writing included.
    """

    files: list[Path]
    samples: int
    failures: list[Failure]
    replaced: str
    seconds: float

    @property
    def per_second(self) -> float:
        """Samples in a second."""
        return self.samples / max(self.seconds, 1e-9)

    def summary(self, out: Path) -> str:
        """What was written into the folder, in a sentence."""
        shown = str(self.files[0]) if len(self.files) == 1 else f"{len(self.files)} results in {out}"
        rest = f"{len(self.failures)} failed (see its column error)" if self.failures else ""
        return f"Wrote {shown}: {self.samples} predicted, {rest or f'{self.per_second:.1f} a second'}."


def listed(predictor: Predictor | Ensemble, inputs: Mapping[str, Any]) -> Manifest | None:
    """The samples of inputs that are folders or videos, where the input kind can tell which of them belong together.

    Returns:
        None where the inputs are those of one sample.

    Raises:
        UserError: an input that the run does not know, or folders and videos that do not fit together.
    """
    find = systems.ability(_first(predictor).system.data, "listed")
    return None if find is None else cast(Manifest | None, find(inputs))


def predict_folder(
    predictor: Predictor | Ensemble, data: str | Path, out: str | Path, *, quiet: bool = True
) -> Predicted:
    """Predicts every sample under `data`, as for training a folder or a manifest.csv; see `predict_listed`."""
    manifest = _first(predictor).system.data.open(Path(data), split=False)
    return predict_listed(predictor, manifest, out, quiet=quiet)


def predict_listed(
    predictor: Predictor | Ensemble, manifest: Manifest, out: str | Path, *, quiet: bool = True
) -> Predicted:
    """Predicts every sample of a manifest and writes the results; a sample that cannot be read fails alone.

    Args:
        predictor: a run or several.
        manifest: the samples.
        out: folder for the results.
        quiet: no progress.
    """
    started = time.perf_counter()
    members = predictor.members if isinstance(predictor, Ensemble) else {"": predictor}
    failures: dict[str, Failure] = {}

    def watched(member: Predictor) -> Iterator[Any]:
        for each in member.each(manifest, quiet=quiet):
            if isinstance(each, Failure):
                failures[each.id] = each
            yield each

    replaced = "predictions.csv" if (Path(out) / "predictions.csv").exists() else ""
    found = {name: watched(member) for name, member in members.items()}
    if isinstance(predictor, Ensemble):
        files = predictor.joined.write(found, Path(out))
    else:
        files = predictor.system.task.write(found[""], Path(out))
        derived = systems.ability(predictor.system.task, "derived")
        if derived is not None:
            derived(manifest, Path(out))
    return Predicted(
        files, len(manifest) - len(failures), list(failures.values()), replaced, time.perf_counter() - started
    )


def write_submission(predictor: Predictor | Ensemble, data: str | Path, predictions: Path, file: str | Path) -> None:
    """Writes the file that a challenge on the data takes, from the table of `predict_folder`.

    Raises:
        UserError: there is no challenge on such data, or the task has no score to submit.
    """
    first = next(iter(predictor.members.values())) if isinstance(predictor, Ensemble) else predictor
    columns = systems.ability(first.system.data, "submission_columns")
    write = systems.ability(first.system.task, "submission")
    wanted = columns(Path(data)) if columns is not None and write is not None else None
    if write is None or wanted is None:
        raise UserError(f"{data} is of no challenge that takes a file: leave --submission out.")
    write(predictions, wanted, Path(file))


class _Left:
    """The samples of a data set of which something is left without one input."""

    def __init__(self, samples: Samples, without: str) -> None:
        self.samples = samples
        present = [samples[index]["present"] for index in range(len(samples))]
        self.kept = [
            k for k, each in enumerate(present) if any(there for name, there in each.items() if name != without)
        ]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.samples[self.kept[index]]


class _Guarded:
    """A data set in which a sample that cannot be read is a `Failure`."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any] | Failure:
        try:
            return self.samples[index]
        except UserError as error:
            row = self.samples.row(index)
            return Failure(row.id, row.group, str(error))


def _changes(system_type: type[systems.System], adjusted: Mapping[str, str]) -> dict[str, Any]:
    """The sections of a configuration with the adjusted settings alone."""
    allowed = systems.ability(system_type, "adjustable") or ()
    for flag in adjusted:
        if flag not in allowed:
            raise UserError(
                f"--{flag} was settled by the training; a run lets you change {_both(allowed) or 'nothing'}."
            )
    return nested([leaf for leaf in leaves(system_type.Config) if leaf.flag in allowed], adjusted)


def _different(trained: Any, config: Any, adjusted: Mapping[str, str]) -> dict[str, str]:
    """The adjusted settings that changed something."""
    flags = leaves(type(config))
    before, after = ({leaf.flag: reduce(getattr, leaf.path, each) for leaf in flags} for each in (trained, config))
    return {flag: text for flag, text in adjusted.items() if before[flag] != after[flag]}


def _load_weights(model: nn.Module, run: Run) -> None:
    weights, expected = run.load_weights(), model.state_dict()
    if wrong := misfits(weights, expected):
        raise UserError(
            f"{run.weights_file} does not fit config.yaml: {len(wrong)} tensor(s) are missing, unknown or of another "
            f"shape, such as {wrong[0]}. Use the version of scanfuse in run.json, or train again."
        )
    model.load_state_dict(weights)


def _first(predictor: Predictor | Ensemble) -> Predictor:
    return next(iter(predictor.members.values())) if isinstance(predictor, Ensemble) else predictor


def _both(names: Sequence[str]) -> str:
    return " and ".join(names)
