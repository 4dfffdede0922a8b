"""Temperature scaling: one number, fitted on validation, that makes probabilities mean what they say.

    probability = sigmoid(z / T)   or   softmax(z / T)

T > 1 softens over-confident probabilities, T < 1 sharpens. The order never changes: not of the samples (binary, or
within and between labels), not of the classes of one sample. (With more than two classes the order of *samples* by
the probability of one class can change, as softmax couples the classes.)
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Num
from scipy import optimize, special

from scanfuse.metrics.classification import calibration as metrics

__all__ = ["Kind", "Temperature", "fit_temperature", "logits_of", "probabilities_of"]

Kind = Literal["binary", "multiclass", "multilabel"]

_LOWEST, _HIGHEST = 0.05, 20.0
_SMALLEST = 1e-12


class Temperature(NamedTuple):
    """A fitted temperature and what it does on the samples it was fitted on.

    Attributes:
        value: T; 1 where it could not be fitted.
        nll_before, nll_after: negative log likelihood, mean over known targets.
        ece_before, ece_after: calibration error, 15 bins; several labels are pooled.
        note: why it could not be fitted; "" where it was.
    """

    value: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    note: str = ""


def probabilities_of(
    logits: Float[np.ndarray, "n c"], kind: Kind, temperature: float = 1.0
) -> Float64[np.ndarray, "n c"]:
    """sigmoid of each logit over T (binary, multilabel), or softmax over the columns (multiclass)."""
    z = np.asarray(logits, np.float64) / temperature
    return special.softmax(z, axis=1) if kind == "multiclass" else special.expit(z)


def logits_of(probabilities: Float[np.ndarray, "n c"], kind: Kind) -> Float64[np.ndarray, "n c"]:
    """Logits that `probabilities_of` maps to these probabilities, which are kept 1e-12 from 0 and 1.

    The log-odds, or for multiclass the logarithm (logits are known up to a constant of the sample only).
    """
    p = np.clip(np.asarray(probabilities, np.float64), _SMALLEST, 1 - _SMALLEST)
    return np.log(p) if kind == "multiclass" else special.logit(p)


def fit_temperature(
    logits: Float[np.ndarray, "n c"],
    target: Num[np.ndarray, "n k"],
    defined: Bool[np.ndarray, "n k"],
    kind: Kind,
) -> Temperature:
    """The temperature with the smallest negative log likelihood between 0.05 and 20.

    The likelihood has one maximum in 1 / T. At either end of the range there is nothing to fit (the scores separate
    the classes perfectly, or say nothing): T stays 1 and the note says why. So too with a single class.

    Args:
        logits: (n, c): c = 1 for binary, the number of classes or of labels otherwise.
        target: (n, k): 0 or 1; for multiclass k = 1 and the class number.
        defined: (n, k), False where the target is not known.
        kind: binary, multiclass or multilabel.

    Raises:
        ValueError: shapes that do not fit, or logits that are not finite.

    Source: Guo, Pleiss, Sun, Weinberger 2017.
    """
    z, y, known = np.asarray(logits, np.float64), np.asarray(target), np.asarray(defined, bool)
    columns = 1 if kind == "multiclass" else z.shape[1]
    if z.ndim != 2 or y.shape != (len(z), columns) or known.shape != y.shape:
        raise ValueError(f"logits, target and defined have shapes {z.shape}, {y.shape} and {known.shape}")
    if not np.isfinite(z).all():
        raise ValueError(f"{int((~np.isfinite(z)).sum())} logits are not finite")
    if kind == "multiclass":
        z, y = z[known[:, 0]], y[known[:, 0], 0].astype(int)
    else:
        z, y = z[known][:, None], y[known].astype(int)

    def nll(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        if kind == "multiclass":
            return float(np.mean(special.logsumexp(scaled, axis=1) - scaled[np.arange(len(y)), y]))
        return float(np.mean(np.logaddexp(0, np.where(y == 1, -scaled[:, 0], scaled[:, 0]))))

    if not len(y):
        nan = float("nan")
        return Temperature(1.0, nan, nan, nan, nan, "no validation sample has a known target")
    before, error = nll(0.0), _ece(z, y, kind, 1.0)
    if np.unique(y).size < 2:
        note = "the validation samples are all of one class"
    else:
        ends = np.log(_LOWEST), np.log(_HIGHEST)
        found = float(optimize.minimize_scalar(nll, bounds=ends, method="bounded", options={"xatol": 1e-9}).x)
        value = float(np.exp(found))
        if found > ends[0] + 1e-3 and found < ends[1] - 1e-3:
            return Temperature(value, before, nll(found), error, _ece(z, y, kind, value))
        note = "the validation samples are separated perfectly" if value < 1 else "the scores say nothing"
    return Temperature(1.0, before, before, error, error, f"temperature left at 1: {note}")


def _ece(z: np.ndarray, y: np.ndarray, kind: Kind, temperature: float) -> float:
    p = probabilities_of(z, kind, temperature)
    target, probability = metrics.top_label(y, p) if kind == "multiclass" else (y, p[:, 0])
    return float(metrics.ece(target, probability)[0])
