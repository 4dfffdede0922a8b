"""What a classification predicts: its kind and its labels, and how targets and logits are written for each kind.

Three kinds, one form. Targets are (k,) and logits (c,) per sample:

    kind        c                     k    target                 probability
    binary      1                     1    0 or 1                 sigmoid
    multiclass  number of classes     1    class number           softmax
    multilabel  number of labels      c    0 or 1 for each        sigmoid of each

`mask` is False where a target is not known; such entries take part in no loss and no metric. A network with two
outputs for a binary question is brought to the one logit z1 - z0, which has the same probabilities and the same loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64
from pydantic import Field, model_validator
from torch import Tensor

from scanfuse.config import Section
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.stats.calibration import Kind

__all__ = ["ClassSettings", "Classes", "classes_of", "one_logit", "parse_target", "parse_targets"]


@dataclass(frozen=True)
class Classes:
    """What is predicted.

    Attributes:
        kind: binary, multiclass or multilabel.
        labels: one name per output. binary: that of the positive class; multiclass: the classes by number;
            multilabel: the findings.
        pauc_above: results also show the area of the ROC curve above this sensitivity (binary); 0: they do not. No
            part of what is predicted, so it makes no two tasks differ.
        top: results also show the share of positives that are among so many highest scores of their group (binary);
            0: they do not.
    """

    kind: Kind
    labels: tuple[str, ...]
    pauc_above: float = field(default=0.0, compare=False)
    top: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        least = {"binary": 1, "multiclass": 2, "multilabel": 1}[self.kind]
        if len(self.labels) < least or (self.kind == "binary" and len(self.labels) > 1):
            raise UserError(f"A {self.kind} task cannot have {len(self.labels)} label(s): {', '.join(self.labels)}.")
        if len(set(self.labels)) < len(self.labels):
            raise UserError(f"A label occurs twice among {', '.join(self.labels)}; give each its own name.")

    @property
    def targets(self) -> Labels:
        """How a manifest writes the targets."""
        return Labels(self.kind, ("0", "1") if self.kind == "binary" else self.labels)

    @property
    def num_outputs(self) -> int:
        """c, logits per sample."""
        return len(self.labels)

    @property
    def num_targets(self) -> int:
        """k, target values per sample."""
        return len(self.labels) if self.kind == "multilabel" else 1


_POSITIVE = "positive"
"""The class 1 where neither the user nor the data have a name for it."""


class ClassSettings(Section):
    """What is predicted; filled from the targets of the data where it is left open."""

    kind: Literal["auto", "binary", "multiclass", "multilabel"] = Field(
        "auto", description="auto: as the targets say"
    )
    labels: tuple[str, ...] = Field(
        (), description="classes or findings in the order of the outputs; none: all found"
    )
    positive: str = Field("", description="name of the class 1 of a binary task; none: as the data call it")
    select_by: Literal["auroc", "pauc", "loss"] = Field(
        "auroc", description="which validation value picks the best epoch"
    )
    pauc_above: float = Field(
        0.0, ge=0, lt=1, description="also the area of the ROC curve above this sensitivity (binary); 0 = not"
    )

    retrieval_top: int = Field(
        0, ge=0, description="also the share of positives among so many highest scores of their patient (binary)"
    )

    @model_validator(mode="after")
    def _pauc_is_computed(self) -> "ClassSettings":
        if self.select_by == "pauc" and not self.pauc_above:
            raise ValueError("select_by pauc needs pauc_above, such as 0.8")
        return self

    def filled(self, manifest: Manifest) -> "ClassSettings":
        """With the kind and the labels of the data.

        Raises:
            UserError: the data have other targets than the settings ask for.
        """
        found = Labels.of(manifest.table["target"].tolist())
        if self.kind not in ("auto", found.kind):
            raise UserError(f"The targets of the data are {found.kind}, but --kind asks for {self.kind}.")
        if self.select_by == "pauc" and found.kind != "binary":
            raise UserError(f"The area above a sensitivity is of one label, but the targets are {found.kind}.")
        names = (self.positive or manifest.positive or _POSITIVE,) if found.kind == "binary" else found.names
        if self.labels and self.labels != names:
            raise UserError(
                f"The targets of the data name {', '.join(names)}, but --labels asks for {', '.join(self.labels)}."
            )
        return self.model_copy(update={"kind": found.kind, "labels": names})


def classes_of(settings: ClassSettings) -> Classes:
    """The task of filled settings; unfilled ones are binary, so that a system can be built without data."""
    kind: Kind = "binary" if settings.kind == "auto" else settings.kind
    labels = settings.labels or ((settings.positive or _POSITIVE,) if kind == "binary" else ())
    if not labels:
        raise UserError(f"A {kind} task needs --labels, or data whose targets name them.")
    is_binary = kind == "binary"
    return Classes(
        kind, labels, settings.pauc_above if is_binary else 0.0, settings.retrieval_top if is_binary else 0
    )


def parse_target(text: str, classes: Classes) -> tuple[Float64[np.ndarray, " k"], Bool[np.ndarray, " k"]]:
    """Values and mask of a manifest's target, written as `scanfuse.data.labels` says ("" = not known).

    Raises:
        UserError: a value that the task does not have.
    """
    value, known = classes.targets.encode(text)
    return np.atleast_1d(value).astype(np.float64), np.atleast_1d(known).astype(bool)


def parse_targets(
    texts: Sequence[str], classes: Classes
) -> tuple[Float64[np.ndarray, "n k"], Bool[np.ndarray, "n k"]]:
    """`parse_target` of every row."""
    if not len(texts):
        return np.zeros((0, classes.num_targets)), np.zeros((0, classes.num_targets), bool)
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}  # 400,000 rows have two of them
    parsed = [parse_target(text, classes) for text in places]
    row = np.array([places[text] for text in texts])
    return np.stack([values for values, _ in parsed])[row], np.stack([mask for _, mask in parsed])[row]


def one_logit(logits: Float[Tensor, "b c"], classes: Classes) -> Float[Tensor, "b c2"]:
    """Logits in the form of the module's table: two outputs of a binary network become z1 - z0, the rest stays.

    Raises:
        ValueError: another number of outputs than the task has.
    """
    if classes.kind == "binary" and logits.shape[1] == 2:
        return logits[:, 1:] - logits[:, :1]
    if logits.shape[1] != classes.num_outputs:
        raise ValueError(f"the network gives {logits.shape[1]} outputs, the task needs {classes.num_outputs}")
    return logits
