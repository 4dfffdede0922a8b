"""Several models' logits as one: weights that are fitted on validation samples.

    z = w_1 z_1 + ... + w_m z_m + b,   w >= 0

One set of weights for every label (binary, multilabel), or one for all classes (multiclass) with a b for each.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Num
from scipy import optimize, special

from scanfuse.stats.calibration import Kind

__all__ = ["Stack", "fit_stack"]


class Stack(NamedTuple):
    """Fitted weights.

    Attributes:
        weights: of each member for each output; equal over the outputs of a multiclass task.
        bias: of each output.
        nll: mean negative log likelihood of the stack on the samples it was fitted on.
        nll_members: that of each member alone, as it is.
    """

    weights: Float64[np.ndarray, "m c"]
    bias: Float64[np.ndarray, " c"]
    nll: float
    nll_members: tuple[float, ...]


def fit_stack(
    logits: Float[np.ndarray, "m n c"],
    target: Num[np.ndarray, "n k"],
    known: Bool[np.ndarray, "n k"],
    kind: Kind,
    *,
    ridge: float = 1.0,
) -> Stack:
    """The weights with the smallest sum of the negative log likelihood and of ridge/2 |(w, b) - (1/m, 0)|^2.

    The ridge draws towards the plain mean of the members, as much as `ridge` samples would: it matters where there
    are few. Weights are not negative, so that a member is never believed backwards. The sum has one minimum.

    Args:
        logits: of m members on n validation samples.
        target, known: see `scanfuse.tasks.classify.classes`.
        kind: of the task.
        ridge: strength of the pull.

    Raises:
        ValueError: no known target, or logits that are not finite.

    Source: Wolpert, "Stacked generalization", 1992; Breiman, "Stacked regressions", 1996 (weights not negative).
    """
    z, y = np.asarray(logits, np.float64), np.asarray(target)
    if not known.any() or not np.isfinite(z).all():
        raise ValueError("a stack needs a known target and finite logits")
    members, _, outputs = z.shape
    if kind == "multiclass":
        rows = known[:, 0]
        weights, bias, nll = _fit(z[:, rows], y[rows, 0].astype(int), ridge)
        alone = tuple(_mean_loss(each, y[rows, 0].astype(int)) for each in z[:, rows])
        return Stack(np.repeat(weights[:, None], outputs, axis=1), bias, nll, alone)
    found_weights, found_bias = np.full((members, outputs), 1 / members), np.zeros(outputs)
    total, totals, count = 0.0, np.zeros(members), 0
    for column in range(outputs):
        rows = known[:, column]
        if not rows.any():
            continue
        # One label is a choice of two classes, of which the first has the logit 0.
        pairs = np.stack([np.zeros_like(z[:, rows, column]), z[:, rows, column]], axis=2)
        of_label = y[rows, column].astype(int)
        weights, bias, nll = _fit(pairs, of_label, ridge, free=(1,))
        found_weights[:, column], found_bias[column] = weights, bias[1]
        total += nll * len(of_label)
        totals += [_mean_loss(each, of_label) * len(of_label) for each in pairs]
        count += len(of_label)
    return Stack(found_weights, found_bias, total / count, tuple(float(each) for each in totals / count))


def _fit(
    z: Float64[np.ndarray, "m n c"], y: np.ndarray, ridge: float, free: tuple[int, ...] | None = None
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " c"], float]:
    """Weights, biases (those in `free`; the others stay 0) and the mean loss."""
    members, count, outputs = z.shape
    places = list(range(outputs)) if free is None else list(free)
    start = np.concatenate([np.full(members, 1 / members), np.zeros(len(places))])

    def joined(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        bias = np.zeros(outputs)
        bias[places] = x[members:]
        return np.tensordot(x[:members], z, axes=1) + bias, bias

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        logits, _ = joined(x)
        slope = special.softmax(logits, axis=1)
        slope[np.arange(count), y] -= 1
        gradient = np.concatenate([(z * slope).sum(axis=(1, 2)), slope.sum(axis=0)[places]])
        off = x - start
        return _mean_loss(logits, y) * count + ridge / 2 * float(off @ off), gradient + ridge * off

    bounds = [(0.0, None)] * members + [(None, None)] * len(places)
    options = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9}
    found = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    logits, bias = joined(found)
    return found[:members], bias, _mean_loss(logits, y)


def _mean_loss(logits: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(special.logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]))
