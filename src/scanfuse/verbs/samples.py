"""Which samples runs are scored on: those that none of them has seen, by the splits that the runs recorded.

Runs of one split are scored on the same samples. So are the folds of a cross-validation with a test set of its own
(`choose`). Data of which the runs know nothing is external: all of it is scored, under that name. On what every fold
held out for itself, each sample is scored by the one run that did not learn from it (`out_of_fold`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from scanfuse import systems
from scanfuse.data.fingerprint import fingerprints
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.verbs.predict import Predictor

__all__ = ["MUST_NOT_SHARE", "Chosen", "Split", "choose", "is_cross_validation", "leakage", "out_of_fold"]

Split = Literal["test", "val", "train", "all"]

MUST_NOT_SHARE = {"test": ("train", "val"), "val": ("train",)}
"""Split -> the splits whose patients must not be in it."""


def leakage(samples: pd.DataFrame, trained_on: pd.DataFrame) -> list[str]:
    """Groups of which a run has seen some rows in training or validation, while others count as test.

    Args:
        samples, trained_on: the rows to evaluate and those of the run's split.csv; columns group and split.
    """
    seen = set(trained_on.loc[trained_on["split"].isin(["train", "val"]), "group"])
    tested = set(samples.loc[samples["split"] == "test", "group"])
    return sorted(seen & tested)


@dataclass(frozen=True)
class Chosen:
    """Samples to score runs on, and what they are called.

    Attributes:
        manifests: run -> the samples with its inputs, with the split that the runs were trained on; one and the same
            but for runs of different inputs.
        name: test, val, train or all; external for data that the runs know nothing of.
    """

    manifests: Mapping[str, Manifest]
    name: str

    @property
    def manifest(self) -> Manifest:
        """The samples as the first run reads them."""
        return next(iter(self.manifests.values()))


def choose(predictors: Mapping[str, Predictor], data: str | Path, split: Split) -> Chosen:
    """The samples of one split; all of them, as external ones, where no run knows a single one.

    Samples are recognised by their id and what their files hold. Unknown samples beside known ones are test samples.
    Runs of different splits may stand together on test, if they agree on which samples these are.

    Raises:
        UserError: runs that do not belong together, or a leak.
    """
    manifests = _opened(predictors, data)
    first = next(iter(manifests.values()))
    seen = {name: _Seen(predictor, manifests[name]) for name, predictor in predictors.items()}
    if is_external(seen.values()):
        note = "external data: the runs know none of these samples"
        if split not in ("test", "all"):
            raise UserError(f"{data} holds none of the samples that the runs know: it has no {split} part of theirs.")
        whole = replace(first, table=first.table.assign(split="test"), notes=(note, *first.notes))
        return Chosen(_of_each(manifests, whole), "external")
    whole = _assigned(predictors, first, seen, split)
    chosen = whole if split == "all" else whole.subset(split)
    if split in ("train", "all"):
        chosen = replace(chosen, notes=(*chosen.notes, "the models were trained on some or all of these samples"))
    return Chosen(_of_each(manifests, chosen), split)


def _of_each(manifests: Mapping[str, Manifest], chosen: Manifest) -> dict[str, Manifest]:
    """The chosen samples with the inputs of each run."""
    found = {}
    first = next(iter(manifests.values()))
    for name, manifest in manifests.items():
        if manifest is first:
            found[name] = chosen
            continue
        own = manifest.table.set_index("id", drop=False).loc[list(chosen.table["id"])].reset_index(drop=True)
        found[name] = replace(manifest, table=own.assign(split=list(chosen.table["split"])), notes=chosen.notes)
    return found


class _Seen:
    """What a run has recorded of its samples, beside those of a manifest.

    Attributes:
        recorded: split.csv of the run.
        split: id -> split, of the samples of the manifest that the run knows.
        again: ids of samples whose files hold what the training or validation saw under another id.
    """

    def __init__(self, predictor: Predictor, manifest: Manifest) -> None:
        self.recorded = predictor.run.split()
        recorded = dict(zip(self.recorded["id"], self.recorded["split"], strict=True))
        if "fingerprint" not in self.recorded:
            # A run of an earlier version: nothing but the id is known.
            self.split = {id: recorded[id] for id in manifest.table["id"] if id in recorded}
            self.again: list[str] = []
            return
        mark = dict(zip(self.recorded["id"], self.recorded["fingerprint"], strict=True))
        now = dict(zip(manifest.table["id"], fingerprints(manifest), strict=True))
        self.split = {id: recorded[id] for id, value in now.items() if id in mark and mark[id] == value}
        times = Counter(mark.values())  # rows of one file, such as slices of a volume, are told apart by ids alone
        trained = {
            value for id, value in mark.items() if value and times[value] == 1 and recorded[id] in ("train", "val")
        }
        self.again = [id for id, value in now.items() if id not in self.split and value in trained]


def is_external(seen: Iterable[_Seen]) -> bool:
    """True if no run knows any of the samples, under this or another name."""
    return not any(each.split or each.again for each in seen)


def _assigned(
    predictors: Mapping[str, Predictor], manifest: Manifest, seen: Mapping[str, _Seen], split: Split
) -> Manifest:
    first, *others = predictors
    known = {
        name: manifest.table.assign(split=[each.split.get(sample, "test") for sample in manifest.table["id"]])
        for name, each in seen.items()
    }
    notes = [*_shared_notes(predictors), *manifest.notes]
    for name, each in seen.items():
        if each.again and split == "test":
            raise UserError(
                f"{', '.join(each.again[:3])}: the training of {name} saw the same files under another id, so these "
                "are no test samples. Remove them, or use --on all to see them labelled as such."
            )
        unknown = len(manifest) - len(each.split)
        if unknown:
            notes.append(f"{unknown} of {len(manifest)} samples are unknown to the training and count as test")
    recorded = {name: each.recorded for name, each in seen.items()}
    splits = {name: dict(zip(table["id"], table["split"], strict=True)) for name, table in recorded.items()}
    apart = next((name for name in others if splits[name] != splits[first]), None)
    if apart is not None:
        tested = {name: frozenset(table.loc[table["split"] == "test", "id"]) for name, table in known.items()}
        other = next((name for name in others if tested[name] != tested[first]), apart)
        if split != "test" or tested[other] != tested[first]:
            raise UserError(_refusal(first, other, recorded, split))
        notes.append("the runs were trained on different parts of the data; their test samples are the same")
    for name, table in known.items():
        shared = leakage(table, recorded[name])
        if shared and not any(note.startswith("leaky") for note in notes):
            if split == "test":
                raise UserError(
                    f"The cases {', '.join(shared[:5])} are in the training of {name} and among the test samples: "
                    "the result would be too good. Remove them, or use --on all to see it labelled as such."
                )
            notes.append(f"leaky: of {len(shared)} case(s) some samples were in the training and others were not")
    return replace(manifest, table=known[first], notes=tuple(dict.fromkeys(notes)))


def is_cross_validation(predictors: Mapping[str, Predictor], split: Split) -> bool:
    """True if each sample is in that split of exactly one run, apart from samples that all runs leave to the test."""
    recorded = [predictor.run.split() for predictor in predictors.values()]
    if len(recorded) < 2 or split not in MUST_NOT_SHARE:
        return False
    if any(set(table["id"]) != set(recorded[0]["id"]) for table in recorded):
        return False
    times = _times(recorded, split)
    return bool(len(times)) and bool((times == 1).all())


def out_of_fold(predictors: Mapping[str, Predictor], data: str | Path, split: Split) -> dict[str, Manifest] | None:
    """Run -> the samples that it alone held out; None for external data. All runs together are a cross-validation.

    Raises:
        UserError: runs of different systems, or a leak.
    """
    manifest = next(iter(_opened(predictors, data).values()))
    seen = {name: _Seen(predictor, manifest) for name, predictor in predictors.items()}
    if is_external(seen.values()):
        return None
    notes = [*_shared_notes(predictors), *manifest.notes]
    parts, missing = {}, 0
    for name, each in seen.items():
        recorded = each.recorded
        held_out = set(recorded.loc[recorded["split"] == split, "id"])
        mine = [id in held_out and id in each.split for id in manifest.table["id"]]
        table = manifest.table[mine].assign(split=split).reset_index(drop=True)
        missing += len(held_out) - len(table)
        trained = set(recorded.loc[recorded["split"].isin(MUST_NOT_SHARE[split]), "group"])
        shared = sorted(trained & set(table["group"]))
        if shared and not any(note.startswith("leaky") for note in notes):
            raise UserError(
                f"The cases {', '.join(shared[:5])} are in the training of {name} and among its {split} samples: "
                "the result would be too good. Train again with a split by patient."
            )
        if len(table):
            parts[name] = replace(manifest, table=table)
    if not parts:
        raise UserError(f"{data} holds none of the samples that the runs held out: give the data of the training.")
    if missing:
        notes.append(f"{missing} sample(s) of the cross-validation are not in {data} and were left out")
    known = set().union(*(each.split for each in seen.values()))
    unknown = len(manifest) - len(known)
    if unknown:
        notes.append(f"{unknown} sample(s) that the runs do not know were left out")
    return {name: replace(part, notes=tuple(dict.fromkeys(notes))) for name, part in parts.items()}


def _opened(predictors: Mapping[str, Predictor], data: str | Path) -> dict[str, Manifest]:
    """Run -> the data as it reads them, all of the same samples; runs of the same inputs share one manifest."""
    found: dict[str, Manifest] = {}
    opened: dict[tuple[str, tuple[str, ...]], Manifest] = {}
    first = next(iter(predictors))
    for name, predictor in predictors.items():
        system = predictor.system
        key = (str(system.config.system), system.data.modalities)
        if key not in opened:
            _check_alike(first, name, predictors)
            opened[key] = _complete(system, data)
            _check_same_samples(first, name, found | {name: opened[key]})
        found[name] = opened[key]
    return found


def _check_alike(first: str, name: str, predictors: Mapping[str, Predictor]) -> None:
    """Raises UserError if runs of other systems or inputs are no matter for one table."""
    one, other = predictors[first].system, predictors[name].system
    kinds = [systems.ability(system.task, "any_inputs") for system in (one, other)]
    if name == first or (kinds[0] is not None and kinds[0] == kinds[1]):
        return
    if one.config.system != other.config.system:
        raise UserError(f"{first} and {name} are runs of different systems: evaluate them one by one.")
    raise UserError(f"{first} and {name} take different inputs: evaluate them one by one.")


def _check_same_samples(first: str, name: str, manifests: Mapping[str, Manifest]) -> None:
    one, other = (manifests[each].table[["id", "group", "target"]].set_index("id") for each in (first, name))
    if set(one.index) != set(other.index) or not one.equals(other.loc[one.index]):
        raise UserError(
            f"{first} and {name} do not read the same samples and targets of these data: evaluate them one by one."
        )


def _complete(system: systems.System, data: str | Path) -> Manifest:
    manifest = system.data.open(Path(data), split=False)
    # Better now than after minutes of computing.
    missing = [path for row in manifest.rows for path in row.paths.values() if not path.exists()]
    if missing:
        raise UserError(f"{missing[0]} does not exist ({len(missing)} missing files); complete the data first.")
    # Where the columns are the inputs: the pictures of a study are any number.
    if manifest.modalities == system.data.modalities and systems.ability(system, "missing_inputs") is None:
        for row in manifest.rows:
            for name in system.data.modalities:
                if name in manifest.modalities and name not in row.paths:
                    raise UserError(f"{row.id} has no {name.upper()} picture; add it, or leave the sample out.")
    return manifest


def _shared_notes(predictors: Mapping[str, Predictor]) -> list[str]:
    """What all runs noted of their splits; that a split is leaky counts even if only one of them says so."""
    each = [predictor.run.split_notes() for predictor in predictors.values()]
    found = list(dict.fromkeys(note for notes in each for note in notes))
    return [note for note in found if note.startswith("leaky") or all(note in notes for notes in each)]


def _times(recorded: list[pd.DataFrame], split: str) -> pd.Series:
    """How many of the runs have each sample in that split, without the samples that are test in all runs."""
    every = pd.concat(recorded)
    tests = (every["split"] == "test").groupby(every["id"]).all()
    times = (every["split"] == split).groupby(every["id"]).sum()
    return times[~tests]


def _refusal(first: str, other: str, recorded: dict[str, pd.DataFrame], split: str) -> str:
    text = f"{first} and {other} were trained on different splits: a shared table would mislead."
    times = _times(list(recorded.values()), split) if split in MUST_NOT_SHARE else pd.Series([], dtype=int)
    if len(times) and times.max() == 1:
        lacking = int((times == 0).sum())
        text += f" {lacking} sample(s) are in the {split} part of none: give all folds of the cross-validation."
    return text
