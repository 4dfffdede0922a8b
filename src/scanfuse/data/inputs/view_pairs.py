"""Pairs of views of a study as samples: decoded, fitted to a square, moved alike, and stacked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from scanfuse.data import check
from scanfuse.data.folds import FoldConfig, folded
from scanfuse.data.inputs import Fitted
from scanfuse.data.inputs.epochs import EpochDataset
from scanfuse.data.inputs.pairing import Pairing, pairs_of, roles_of
from scanfuse.data.inputs.registered import refuse_fitted
from scanfuse.data.inputs.slices import chosen, slice_of, with_slices
from scanfuse.data.inputs.view_settings import KIND, ViewSettings
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers import Image, SliceChoice, read_image, stem
from scanfuse.data.readers.given import image_of
from scanfuse.data.transforms.augment import Augmentation, augment
from scanfuse.data.transforms.letterbox import Letterbox, letterbox
from scanfuse.data.transforms.placement import Placement
from scanfuse.errors import UserError

__all__ = ["VIEWS", "ViewDataset", "ViewPairs", "ViewSettings", "collate_views", "view_sample"]

VIEWS = ("view_a", "view_b")


class ViewPairs:
    """The input kind: see `scanfuse.data.inputs.Inputs`.

    Args:
        settings: the section of the configuration.
        labels: what the targets mean.
        folds: which part of a cross-validation is opened.
        seed: of movement, view dropout and the drawn pairs.
    """

    KIND = KIND
    mixed_sizes = False
    modalities: tuple[str, ...]

    def __init__(self, settings: ViewSettings, *, labels: Labels, folds: FoldConfig, seed: int) -> None:
        self.settings = settings
        self.labels = labels
        self.folds = folds
        self.seed = seed
        self.modalities = VIEWS

    def open(self, root: Path, *, split: bool = True) -> Manifest:
        """The studies with the splits of the settings and the fold.

        With `split=False` a target that the labels do not know is unknown (""); else it is an error, at the latest
        where samples are made.
        """
        manifest = with_slices(self.settings.open(root, split=split), self.settings.slice)
        if not split:
            return manifest.with_known_targets(self.labels)
        return folded(manifest, self.folds, self.labels)

    def choose_slice(self, text: str) -> None:
        """From here on, takes these slices of volumes and stacks instead of those of the settings."""
        self.settings = ViewSettings.model_validate({**self.settings.model_dump(), "slice": text})

    def check(self, root: Path) -> list[check.Finding]:
        return check.check(lambda split: self.open(root, split=split), is_registered=False)

    def prepare(self, training: Manifest) -> Fitted:
        return Fitted()

    def restore(self, fitted: Fitted) -> None:
        refuse_fitted(fitted, "view pairs")

    def dataset(self, manifest: Manifest, *, train: bool) -> "ViewDataset":
        """The pairs of the studies; with `train`, moved at random and with views dropped."""
        settings = self.settings
        return ViewDataset(
            manifest,
            labels=self.labels,
            letterbox=settings.letterbox,
            augmentation=settings.augmentation if train else None,
            pairing=settings.pairing,
            single=settings.alone,
            one_per_study=train and settings.one_per_study,
            view_dropout=settings.view_dropout if train else 0.0,
            seed=self.seed,
            cache_mb=settings.cache_mb,
        )

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return collate_views(samples)

    def sample(self, inputs: Mapping[str, Any], *, id: str = "") -> dict[str, Any]:
        slices = chosen(self.settings.slice)
        return view_sample(inputs, letterbox=self.settings.letterbox, labels=self.labels, id=id, slices=slices)


class ViewDataset(EpochDataset):
    """View pairs of all studies of a manifest (pass `manifest.subset("train")` for one split).

    A sample is a dict:

        "view_a", "view_b"   float32 (1, size, size) in [0, 1], zeros where the view is missing
        "present"            {"view_a": bool, "view_b": bool}, at least one True
        "target", "mask"     float32 and bool (k,), see `scanfuse.tasks.classify`: k = 1 for binary (0 or 1) and
                             multiclass (class number), the number of findings for multilabel; mask False = unknown
        "meta"               id (of the pair), study, study_index, group, target (text), views (column names),
                             paths and placements ({"view_a": ...}, present views only), slice ("": no volume)

    Placements are those of the unmoved square: for heat maps, use a dataset without augmentation.

    What is drawn for sample `index` depends on (seed, epoch, index) alone. Pictures are quantised after fitting (8
    bit for 8-bit files, float16 otherwise) whether the cache keeps them or not, so that it changes no value.

    Args:
        manifest: one row per study, see `scanfuse.data.studies`.
        labels: of the whole manifest; None: found in this one. A manifest without targets gives masked samples.
        letterbox: crop, size, aspect, window.
        augmentation: random movement, the same for both views; None: none.
        pairing: which pairs a study has, see `pairs_of`.
        single: what stands beside a view without a partner.
        one_per_study: every epoch draws one pair of each study instead of passing through all pairs: a study with
            four views has six pairs and would weigh six times as much.
        view_dropout: chance that one of two present views (either alike) is taken away.
        seed: of movement, dropout and the drawn pairs.
        cache_mb: memory for fitted pictures, per worker; once full, further pictures are decoded each time.

    Raises:
        UserError: an option out of range, or on reading a sample: a bad file.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        labels: Labels | None = None,
        letterbox: Letterbox | None = None,
        augmentation: Augmentation | None = None,
        pairing: Pairing = "auto",
        single: Literal["missing", "self"] = "missing",
        one_per_study: bool = False,
        view_dropout: float = 0.0,
        seed: int = 0,
        cache_mb: float = 512.0,
    ) -> None:
        super().__init__()
        if not 0 <= view_dropout <= 1 or cache_mb < 0:
            raise UserError(f"view_dropout is a chance and cache_mb not negative; got {view_dropout} and {cache_mb}.")
        self.manifest = manifest
        self.letterbox = letterbox or Letterbox()
        self.augmentation = augmentation
        self.one_per_study = one_per_study
        self.view_dropout = view_dropout
        self.seed = seed
        self._rows = list(manifest.rows)
        roles = roles_of(manifest)
        self._pairs_of_study = [
            pairs_of(row, number, roles, pairing=pairing, single=single) for number, row in enumerate(self._rows)
        ]
        self.pairs = [pair for pairs in self._pairs_of_study for pair in pairs]
        known = any(row.target for row in self._rows)
        self.labels = labels or (
            Labels.of([row.target for row in self._rows]) if known else Labels("binary", ("0", "1"))
        )
        different = {text: self.labels.encode(text) for text in dict.fromkeys(row.target for row in self._rows)}
        self._encoded = [different[row.target] for row in self._rows]
        self._cache = _Cache(int(cache_mb * 2**20))

    def __len__(self) -> int:
        return len(self._rows) if self.one_per_study else len(self.pairs)

    def row(self, index: int) -> Row:
        """The study of a sample."""
        return self._rows[index if self.one_per_study else self.pairs[index].study]

    @property
    def targets(self) -> list[str]:
        """The target text of every sample in order, for class weights and balanced sampling."""
        numbers = range(len(self._rows)) if self.one_per_study else [pair.study for pair in self.pairs]
        return [self._rows[number].target for number in numbers]

    def __getitem__(self, index: int) -> dict[str, Any]:
        random = np.random.default_rng([self.seed, self.epoch, index])
        if self.one_per_study:
            pairs = self._pairs_of_study[index]
            pair = pairs[int(random.integers(len(pairs)))]
        else:
            pair = self.pairs[index]
        row = self._rows[pair.study]
        slots = {name: slot for name, slot in zip(VIEWS, (pair.a, pair.b), strict=True) if slot is not None}
        fitted = {name: self._fitted(pair.study, slot) for name, slot in slots.items()}
        if len(fitted) == 2 and random.random() < self.view_dropout:
            del fitted[VIEWS[int(random.integers(2))]]
        views = torch.zeros(2, self.letterbox.size, self.letterbox.size)
        for number, name in enumerate(VIEWS):
            if name in fitted:
                views[number] = torch.from_numpy(fitted[name].unit)
        if self.augmentation is not None:
            views = augment(views, self.augmentation.draw(random))
        target, mask = self._encoded[pair.study]
        suffix = "+".join(slot or "none" for slot in (pair.a, pair.b))
        return {
            **{name: views[number : number + 1] for number, name in enumerate(VIEWS)},
            "present": {name: name in fitted for name in VIEWS},
            "target": torch.from_numpy(np.atleast_1d(target).astype(np.float32)),
            "mask": torch.from_numpy(np.atleast_1d(mask).copy()),
            "meta": {
                "id": f"{row.id}__{suffix}",
                "study": row.id,
                "study_index": pair.study,
                "group": row.group,
                "target": row.target,
                "views": (pair.a, pair.b),
                "paths": {name: row.paths[slots[name]] for name in fitted},
                "slice": row.slice,
                "placements": {name: picture.placement for name, picture in fitted.items()},
            },
        }

    def _fitted(self, study: int, slot: str) -> "_Fitted":
        found = self._cache.get((study, slot))
        if found is None:
            row = self._rows[study]
            found = _fitted(read_image(row.paths[slot], slices=slice_of(row)), self.letterbox)
            self._cache.put((study, slot), found)
        return found


def collate_views(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stacks samples: views (B, 1, s, s), present {view: bool (B,)}, target and mask (B, k), meta a list of dicts."""
    batch: dict[str, Any] = {name: torch.stack([sample[name] for sample in samples]) for name in VIEWS}
    batch["present"] = {name: torch.tensor([sample["present"][name] for sample in samples]) for name in VIEWS}
    for name in ("target", "mask"):
        batch[name] = torch.stack([sample[name] for sample in samples])
    batch["meta"] = [sample["meta"] for sample in samples]
    return batch


def view_sample(
    inputs: Mapping[str, Any],
    *,
    letterbox: Letterbox | None = None,
    labels: Labels | None = None,
    id: str = "",
    slices: SliceChoice | None = None,
) -> dict[str, Any]:
    """One sample, of the form that `ViewDataset` gives and without a target, from files, PIL images or arrays.

    Args:
        inputs: "view_a" and "view_b" -> what `image_of` takes, or None for a missing view; one may be left out.
        letterbox: as in training.
        labels: for the length of the (masked) target.
        id: of the study; by default the name of the first file.
        slices: of volumes and stacks: which one.

    Raises:
        UserError: another name, no view at all, or a file that cannot be read.
    """
    for name in inputs:
        if name not in VIEWS:
            raise UserError(f"Unknown view {name!r}; give {' and '.join(VIEWS)}.")
    settings = letterbox or Letterbox()
    labels = labels or Labels("binary", ("0", "1"))
    images = {name: image_of(name, value, slices) for name, value in inputs.items() if value is not None}
    if not images:
        raise UserError(f"No view was given; give {' or '.join(VIEWS)}, or both.")
    fitted = {name: _fitted(image, settings) for name, image in images.items()}
    name_of_study = id or stem(next(iter(images.values())).source)
    target, mask = labels.encode("")
    return {
        **{name: _tensor(fitted.get(name), settings.size) for name in VIEWS},
        "present": {name: name in fitted for name in VIEWS},
        "target": torch.from_numpy(np.atleast_1d(target).astype(np.float32)),
        "mask": torch.from_numpy(np.atleast_1d(mask).copy()),
        "meta": {
            "id": name_of_study,
            "study": name_of_study,
            "study_index": 0,
            "group": name_of_study,
            "target": "",
            "views": tuple(name if name in fitted else None for name in VIEWS),
            "paths": {name: image.source for name, image in images.items()},
            "slice": str(slices) if slices else "",
            "placements": {name: picture.placement for name, picture in fitted.items()},
        },
    }


@dataclass(frozen=True)
class _Fitted:
    """A square as it is kept: uint8 for 0 to 255, or float16 in [0, 1]."""

    values: np.ndarray
    placement: Placement

    @property
    def unit(self) -> Float32[np.ndarray, "s s"]:
        unit = self.values.astype(np.float32)
        return unit / 255 if self.values.dtype == np.uint8 else unit


@dataclass
class _Cache:
    """Keeps what fits: in a pass through all data, throwing the oldest out would keep nothing that comes again."""

    limit: int
    used: int = 0
    held: dict[tuple[int, str], _Fitted] = field(default_factory=dict)

    def get(self, key: tuple[int, str]) -> _Fitted | None:
        return self.held.get(key)

    def put(self, key: tuple[int, str], value: _Fitted) -> None:
        if self.used + value.values.nbytes <= self.limit:
            self.held[key] = value
            self.used += value.values.nbytes


def _fitted(image: Image, settings: Letterbox) -> _Fitted:
    square, placement = letterbox(image, settings)
    if image.pixels.dtype == np.uint8:
        return _Fitted(np.rint(square * 255).astype(np.uint8), placement)
    return _Fitted(square.astype(np.float16), placement)


def _tensor(fitted: _Fitted | None, size: int) -> Tensor:
    return torch.zeros(1, size, size) if fitted is None else torch.from_numpy(fitted.unit)[None]
