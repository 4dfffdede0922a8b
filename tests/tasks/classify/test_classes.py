"""What is predicted: kinds, labels, targets as text, and the logits they stand for."""

import pandas as pd
import pytest
import torch

from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.tasks.classify.classes import Classes, ClassSettings, classes_of, one_logit, parse_target

ABNORMAL = Classes("binary", ("abnormal",))
SPECIES = Classes("multiclass", ("cat", "dog", "horse"))
FINDINGS = Classes("multilabel", ("Edema", "Fracture"))


@pytest.mark.parametrize(
    ("classes", "text", "values", "mask"),
    [
        (ABNORMAL, "1", [1], [True]),
        (ABNORMAL, "", [0], [False]),
        (SPECIES, "horse", [2], [True]),
        (FINDINGS, "Edema=1;Fracture=", [1, 0], [True, False]),
        (FINDINGS, "", [0, 0], [False, False]),
    ],
)
def test_targets(classes, text, values, mask):
    found = parse_target(text, classes)
    assert (found[0].tolist(), found[1].tolist()) == (values, mask)
    assert found[0].shape == (classes.num_targets,)


def manifest_of(*targets: str) -> Manifest:
    names = [f"s{number}" for number in range(len(targets))]
    table = pd.DataFrame({"id": names, "group": names, "split": "train", "target": targets, "image": "x.png"})
    return Manifest(table, ("image",))


def test_settings_are_filled_from_the_targets_of_the_data():
    filled = ClassSettings(positive="malignant").filled(manifest_of("0", "1", ""))
    assert (filled.kind, filled.labels) == ("binary", ("malignant",))
    assert classes_of(filled) == Classes("binary", ("malignant",))
    assert classes_of(ClassSettings().filled(manifest_of("dog", "cat"))) == Classes("multiclass", ("cat", "dog"))
    assert classes_of(ClassSettings().filled(manifest_of("Edema=1;Fracture=0"))) == FINDINGS
    assert classes_of(ClassSettings()) == Classes("binary", ("positive",))  # built without data
    with pytest.raises(UserError, match="are binary, but --kind asks for multilabel"):
        ClassSettings(kind="multilabel").filled(manifest_of("0", "1"))
    with pytest.raises(UserError, match="name cat, dog, but --labels asks for dog, horse"):
        ClassSettings(labels=("dog", "horse")).filled(manifest_of("dog", "cat"))
    with pytest.raises(UserError, match="needs --labels"):
        classes_of(ClassSettings(kind="multiclass"))


def test_wrong_targets_and_labels():
    with pytest.raises(UserError, match="target '2' is none of 0, 1"):
        parse_target("2", ABNORMAL)
    with pytest.raises(UserError, match="cannot have 2 label"):
        Classes("binary", ("normal", "abnormal"))
    with pytest.raises(UserError, match="twice"):
        Classes("multilabel", ("a", "a"))


def test_two_outputs_of_a_binary_network_are_one_logit():
    two = torch.randn(5, 2, dtype=torch.float64)
    one = one_logit(two, ABNORMAL)
    torch.testing.assert_close(one.sigmoid()[:, 0], two.softmax(1)[:, 1])
    with pytest.raises(ValueError, match="3 outputs, the task needs 1"):
        one_logit(torch.zeros(1, 3), ABNORMAL)
