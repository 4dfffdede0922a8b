"""Losses of classification with unknown targets masked, and their weights from the training counts."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Num
from pydantic import Field
from torch import Tensor

from scanfuse.config import Section
from scanfuse.errors import UserError
from scanfuse.tasks.classify.classes import Classes, one_logit

__all__ = ["ClassificationLoss", "check_loss", "class_weights", "classification_loss"]


class ClassificationLoss(Section):
    """What a classifier minimises. The default is the published loss: plain cross-entropy."""

    name: Literal["cross_entropy", "focal", "asymmetric"] = Field(
        "cross_entropy",
        description="cross_entropy is binary for one or several labels; asymmetric is not for multiclass",
        json_schema_extra={"flag": "loss"},
    )
    weighting: Literal["none", "balanced"] = Field(
        "none",
        description="balanced: rare classes (or positives) weigh as much as frequent ones in the training data",
    )
    max_weight: float = Field(100.0, ge=1, description="largest weight that balancing gives")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over the classes")
    focal_gamma: float = Field(2.0, ge=0, description="exponent of focal; 0 gives cross-entropy")
    asymmetric_positive: float = Field(0.0, ge=0, description="exponent of asymmetric for positives")
    asymmetric_negative: float = Field(4.0, ge=0, description="exponent of asymmetric for negatives")
    asymmetric_margin: float = Field(0.05, ge=0, lt=1, description="negatives below this probability cost nothing")


def check_loss(settings: ClassificationLoss, classes: Classes) -> None:
    """Refuses a loss that the task does not have (UserError)."""
    if classes.kind == "multiclass" and settings.name == "asymmetric":
        raise UserError("The asymmetric loss is for binary and multilabel tasks; choose --loss focal for multiclass.")


def class_weights(
    target: Num[np.ndarray, "n k"], mask: Bool[np.ndarray, "n k"], classes: Classes, largest: float = 100.0
) -> Float[Tensor, " c"]:
    """Weights that balance the classes of the training samples.

    binary, multilabel: of the positives of each label, negatives / positives.   multiclass: n / (c n_class).
    A class (or outcome) that does not occur leaves the weight 1; weights lie between 1 / largest and largest.

    Args:
        target, mask: of the training samples, see `Classes`.
        largest: bound that keeps a single positive among thousands from ruling the gradient.

    Returns:
        (c,) float32.
    """
    known = np.asarray(mask, bool)
    if classes.kind == "multiclass":
        of_class = np.bincount(target[known[:, 0], 0].astype(int), minlength=classes.num_outputs)
        top, bottom = np.full(classes.num_outputs, of_class.sum() / classes.num_outputs), of_class
    else:
        bottom = ((target == 1) & known).sum(axis=0)
        top = known.sum(axis=0) - bottom
    usable = (top > 0) & (bottom > 0)
    weights = np.where(usable, top / np.where(bottom > 0, bottom, 1), 1.0)
    return torch.tensor(np.clip(weights, 1 / largest, largest), dtype=torch.float32)


def classification_loss(
    logits: Float[Tensor, "b c"],
    target: Float[Tensor, "b k"],
    mask: Bool[Tensor, "b k"],
    classes: Classes,
    settings: ClassificationLoss,
    weights: Float[Tensor, " c"] | None = None,
) -> dict[str, Tensor]:
    """The loss of a batch as {"loss": scalar}, computed in float32 whatever the precision of the logits.

    With q the probability given to the true outcome of one label (p or 1 - p) and w its weight:

        cross_entropy   -w log q            (multiclass: softmax, and w of the true class)
        focal           -w (1 - q)^gamma log q
        asymmetric      -w (1 - p)^gamma+ log p        for positives
                        -p_m^gamma- log(1 - p_m)       for negatives, p_m = max(p - margin, 0)

    The mean is over known targets; for weighted multiclass over their weights, as usual. A batch without known
    targets gives 0 with zero gradients.

    Args:
        logits: outputs of the network; for binary one or two columns.
        target, mask: see `Classes`.
        settings: which loss.
        weights: of `class_weights`, on the device of the logits; None: 1.

    Raises:
        UserError: the loss is not one of this task.

    Source: Lin, Goyal, Girshick, He, Dollar 2017 (focal); Ridnik et al. 2021 (asymmetric).
    """
    check_loss(settings, classes)
    z = one_logit(logits, classes).float()
    if classes.kind == "multiclass":
        return {"loss": _multiclass(z, target[:, 0].long(), mask[:, 0], settings, weights)}
    y = target.float().where(mask, 0.0)
    smooth = y * (1 - settings.label_smoothing) + settings.label_smoothing / 2
    p, rest = z.sigmoid(), (-z).sigmoid()
    on_positive, on_negative = -F.logsigmoid(z), -F.logsigmoid(-z)
    if settings.name == "focal":
        on_positive = on_positive * _power(rest, settings.focal_gamma)
        on_negative = on_negative * _power(p, settings.focal_gamma)
    elif settings.name == "asymmetric":
        margin = settings.asymmetric_margin
        on_positive = on_positive * _power(rest, settings.asymmetric_positive)
        if margin:
            on_negative = -torch.log((rest + margin).clamp(max=1))
        on_negative = on_negative * _power((p - margin).clamp(min=0), settings.asymmetric_negative)
    positive_weight = 1.0 if weights is None else weights.to(z)
    each = smooth * positive_weight * on_positive + (1 - smooth) * on_negative
    return {"loss": each.where(mask, 0.0).sum() / mask.sum().clamp(min=1)}


def _multiclass(
    z: Float[Tensor, "b c"], y: Tensor, known: Tensor, settings: ClassificationLoss, weights: Tensor | None
) -> Tensor:
    w = torch.ones(z.shape[1], device=z.device) if weights is None else weights.to(z)
    log_q = z.log_softmax(1)
    spread = settings.label_smoothing / z.shape[1]
    wanted = F.one_hot(y.where(known, 0), z.shape[1]) * (1 - settings.label_smoothing) + spread
    cost = -log_q
    if settings.name == "focal":
        cost = cost * _power(1 - log_q.exp(), settings.focal_gamma)
    each = (wanted * w * cost).sum(1)
    share = w[y.where(known, 0)].where(known, 0.0)
    return each.where(known, 0.0).sum() / share.sum().clamp(min=1e-12)


def _power(x: Tensor, exponent: float) -> Tensor:
    """x^exponent for x in [0, 1]; the slope of an exponent below 1 is infinite at 0, where it would give NaN."""
    return x.clamp(min=1e-7) ** exponent
