"""What a study's target text means: a class, a yes or no, or several findings of which some are unknown.

The manifest keeps targets as text so that they can be read, hashed and split:

    ""                               unknown; the study is used without a label
    "0", "1"                         binary, 1 = abnormal, malignant, positive; "0.0" and "1.0" mean the same
    "COVID-19"                       one of several classes
    "Edema=1;Fracture=0;Pneumonia="  several findings; an empty value is unknown and masked
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scanfuse.errors import UserError

__all__ = ["Labels", "join_findings", "plain_target"]

_WHOLE = re.compile(r"([0-9]+)\.0*")


@dataclass(frozen=True)
class Labels:
    """The classes or findings behind the targets of a manifest.

    Attributes:
        kind: "binary" (classes "0" and "1"), "multiclass" (exactly one holds), "multilabel" (each holds or not).
        names: classes in the order of their index, or findings in the order of the target vector.
    """

    kind: Literal["binary", "multiclass", "multilabel"]
    names: tuple[str, ...]

    @classmethod
    def of(cls, targets: Iterable[str]) -> "Labels":
        """Finds kind and names; classes are sorted, findings keep the order of the text.

        Give it the targets of the whole manifest: a single split may lack a class.

        Raises:
            UserError: no target at all, only one class, or rows with different findings.
        """
        known = [text for text in dict.fromkeys(map(plain_target, targets)) if text]
        if not known:
            raise UserError("No study has a target; name the column that holds it.")
        findings = [_names(text) for text in known if "=" in text]
        if findings:
            if len(findings) < len(known) or len(set(findings)) > 1:
                odd = next((text for text in known if "=" not in text or _names(text) != findings[0]), known[0])
                raise UserError(f"The target {odd!r} does not name the same findings as {known[0]!r}.")
            return cls("multilabel", findings[0])
        if set(known) <= {"0", "1"}:
            return cls("binary", ("0", "1"))
        if len(known) == 1:
            raise UserError(f"Every study has the target {known[0]!r}; a classifier needs at least two classes.")
        return cls("multiclass", tuple(sorted(known)))

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Target and mask of one study.

        Returns:
            binary, multiclass: int64 () class index (0 where unknown) and bool () known.
            multilabel: float32 (K,) of 0 and 1 (0 where unknown) and bool (K,) known.

        Raises:
            UserError: a class or finding that is not among the names, or a value other than 0, 1 and nothing.
        """
        text = plain_target(text)
        if self.kind != "multilabel":
            names = [plain_target(name) for name in self.names]
            if text and text not in names:
                raise UserError(f"The target {text!r} is none of {', '.join(self.names)}.")
            return np.array(names.index(text) if text else 0, np.int64), np.array(bool(text))
        if text and _names(text) != self.names:
            raise UserError(f"The target {text!r} does not name the findings {', '.join(self.names)}.")
        values = [part.rpartition("=")[2] for part in text.split(";")] if text else [""] * len(self.names)
        wrong = [value for value in values if value not in ("", "0", "1")]
        if wrong:
            raise UserError(f"The target {text!r} holds {wrong[0]!r}; a finding is 0, 1 or empty.")
        target = np.array([value == "1" for value in values], np.float32)
        return target, np.array([value != "" for value in values])


def plain_target(text: str) -> str:
    """The target with whole numbers written as such: pandas turns 0 and 1 beside a gap into "0.0" and "1.0".

    >>> plain_target("1.0"), plain_target("0.5"), plain_target("Edema=1.0;Fracture=")
    ('1', '0.5', 'Edema=1;Fracture=')
    """
    if "=" in text:
        return join_findings(_names(text), [plain_target(part.rpartition("=")[2]) for part in text.split(";")])
    found = _WHOLE.fullmatch(text)
    return found[1] if found else text


def join_findings(names: Sequence[str], values: Mapping[str, str] | Sequence[str]) -> str:
    """The target text of several findings: `names` with their values "0", "1" or ""."""
    listed = [values[name] for name in names] if isinstance(values, Mapping) else values
    return ";".join(f"{name}={value}" for name, value in zip(names, listed, strict=True))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.rpartition("=")[0] for part in text.split(";"))
