"""What the X-ray phantoms promise: the law of their signal, the same bytes again, the signal in the pixels."""

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from opening import open_pairs, open_studies
from scanfuse import config
from scanfuse.data.readers import read_image
from scanfuse.data.synthetic import _evidence, cbis_ddsm, chexpert, load, mura, names
from scanfuse.errors import UserError

MODULES = [mura, chexpert, cbis_ddsm]
# Best areas under the ROC curve: one view, both, and one view for a finding.
ONE_VIEW, BOTH_VIEWS, FINDING_ONE_VIEW = 0.77, 1.0, 0.8


def digest(root: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            whole.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()


def test_the_phantoms_are_found_by_name() -> None:
    assert {"mura", "chexpert", "cbis_ddsm"} <= set(names()) and load("mura") is mura


@pytest.mark.parametrize("name", ["mura", "chexpert", "cbis_ddsm"])
def test_results_on_phantoms_say_so(name: str, tmp_path: Path) -> None:
    root = load(name).write(tmp_path / "data", load(name).Options(patients=20, size=48))
    places = [root, *(path for path in root.iterdir() if path.is_dir() and name != "cbis_ddsm")]
    for place in places:
        assert open_studies(place).notes[-1] == "phantoms: made-up pictures of nobody"
    (root / "ABOUT.txt").unlink()
    assert not any("phantoms" in note for note in open_studies(root).notes)


def test_results_on_made_up_heads_say_so(tmp_path: Path) -> None:
    root = load("harvard").write(
        tmp_path / "data", load("harvard").Options(cases=4, slices=1, size=32, pair="CT-MRI")
    )
    for place in (root, root / "CT-MRI"):
        assert open_pairs(place, ("CT", "MRI")).notes[-1] == "phantoms: made-up pictures of nobody"


def ceiling(views: Literal["a", "b", "both"]) -> float:
    """The area under the ROC curve of the likelihood ratio of what the given views show, exact over the law."""
    positive, negative = (_distribution(_evidence.LAW[outcome], views) for outcome in (True, False))
    keys = sorted({*positive, *negative}, key=lambda key: _ratio(positive.get(key, 0.0), negative.get(key, 0.0)))
    area, below = 0.0, 0.0
    for key in keys:
        here = negative.get(key, 0.0)
        area += positive.get(key, 0.0) * (below + here / 2)
        below += here
    return area


def _ratio(positive: float, negative: float) -> float:
    return positive / negative if negative > 0 else float("inf")


def _distribution(law: Iterable[tuple[float, _evidence.Evidence]], views: str) -> dict[tuple[bool, ...], float]:
    found: dict[tuple[bool, ...], float] = {}
    for share, evidence in law:
        places = {"a": (0,), "b": (1,), "both": (0, 1)}[views]
        key = tuple(part[place] for part in (evidence.sign, evidence.shadow) for place in places)
        found[key] = found.get(key, 0.0) + share
    return found


def test_the_ceilings_follow_from_the_law() -> None:
    for outcomes in _evidence.LAW.values():
        assert sum(share for share, _ in outcomes) == pytest.approx(1)
    assert ceiling("a") == pytest.approx(ONE_VIEW) == pytest.approx(ceiling("b"))
    assert ceiling("both") == pytest.approx(BOTH_VIEWS)


def test_draws_reach_the_ceilings_and_not_more() -> None:
    random = np.random.default_rng(0)
    labels = random.random(6000) < 0.5
    drawn = [_evidence.draw(random, bool(label)) for label in labels]
    one = [2 * evidence.sign[0] + evidence.shadow[0] for evidence in drawn]
    both = [any(evidence.sign) or all(evidence.shadow) for evidence in drawn]
    assert roc_auc_score(labels, one) == pytest.approx(ONE_VIEW, abs=0.015)
    assert roc_auc_score(labels, both) == 1.0
    # A study with a single view is decided by it.
    alone = [_evidence.draw(random, bool(label), only="b") for label in labels[:200]]
    assert [evidence.sign for evidence in alone] == [(False, bool(label)) for label in labels[:200]]


@pytest.mark.parametrize("how", [_evidence.draw_seen, _evidence.draw_agreement])
def test_findings_reach_their_ceiling(how: object) -> None:
    random = np.random.default_rng(1)
    labels = random.random(8000) < 0.4
    drawn = np.array([how(random, bool(label)) for label in labels])  # type: ignore[operator]
    for view in (0, 1):
        assert roc_auc_score(labels, drawn[:, view]) == pytest.approx(FINDING_ONE_VIEW, abs=0.015)
    joint = drawn.all(axis=1) if how is _evidence.draw_agreement else drawn.any(axis=1)
    assert roc_auc_score(labels, joint) == 1.0


@pytest.mark.parametrize("module", MODULES)
def test_the_same_arguments_give_the_same_bytes(module: ModuleType, tmp_path: Path) -> None:
    first, again, other = (module.write(tmp_path / name, module.Options(patients=8, size=48, seed=seed))
                           for name, seed in (("a", 1), ("b", 1), ("c", 2)))  # fmt: skip
    assert digest(first) == digest(again) != digest(other)


@pytest.mark.parametrize("module", MODULES)
def test_numbers_out_of_range_are_refused(module: ModuleType) -> None:
    for arguments, message in (({"patients": 2}, "'patients' cannot be 2: input should be"), ({"size": 8}, "'size'")):
        with pytest.raises(UserError, match=message):
            config.build(module.Options, arguments)


@pytest.mark.parametrize("module", MODULES)
def test_fifty_patients_take_seconds(module: ModuleType, tmp_path: Path) -> None:
    start = time.process_time()
    module.write(tmp_path, module.Options(patients=50, size=96))
    # Own time, not wall time: other work on the machine must not fail the test. 200 studies then take under 20 s.
    assert time.process_time() - start < 5
    assert len(open_studies(tmp_path)) > 50


def test_mura_studies_have_one_to_four_images_of_both_classes(tmp_path: Path) -> None:
    manifest = open_studies(mura.write(tmp_path, mura.Options(patients=80, size=32)))
    assert {len(row.paths) for row in manifest.rows} == {1, 2, 3, 4}
    assert manifest.table["group"].nunique() == 80 < len(manifest)
    for split in ("train", "test"):
        assert 0.3 < (manifest.subset(split).table["target"] == "1").mean() < 0.7
    only = open_studies(mura.write(tmp_path / "one", mura.Options(patients=10, size=32, parts=("HAND",))))
    assert set(only.table["part"]) == {"HAND"}


def test_chexpert_has_uncertain_blanks_missing_laterals_and_clean_valid_labels(tmp_path: Path) -> None:
    root = chexpert.write(tmp_path, chexpert.Options(patients=50, size=32))
    train = (root / "CheXpert-v1.0-small/train.csv").read_text()
    valid = (root / "CheXpert-v1.0-small/valid.csv").read_text()
    assert "-1.0" in train and ",," in train and "-1.0" not in valid
    manifest = open_studies(root)
    roles = [tuple(sorted({slot.split("_")[0] for slot in row.paths})) for row in manifest.rows]
    assert set(roles) == {("frontal",), ("frontal", "lateral")} and "frontal_2" in manifest.modalities
    assert manifest.table["group"].value_counts().max() == 3


def test_cbis_keeps_the_quirks_of_the_published_tables(tmp_path: Path) -> None:
    root = cbis_ddsm.write(tmp_path, cbis_ddsm.Options(patients=60, size=48))
    mass = (root / "mass_case_description_train_set.csv").read_text()
    calc = (root / "calc_case_description_train_set.csv").read_text()
    assert "breast_density" in mass and "breast density" in calc and '.dcm\n"' in mass
    assert ".\\CBIS-DDSM\\" in (root / "metadata.csv").read_text()
    assert not (root / next(cell for cell in mass.split(",") if cell.startswith("Mass-Training"))).exists()
    assert any("benign and malignant" in note for note in open_studies(root).notes)


@pytest.mark.parametrize("part", mura.PARTS)
def test_a_fracture_and_an_island_change_the_bone_and_nothing_far_from_it(part: str) -> None:
    none, sign = _evidence.Evidence((False, False), (False, False)), _evidence.Evidence((True, False), (False, False))
    shadow = _evidence.Evidence((False, False), (False, True))
    # Brightness is compared over many draws: sign and shadow differ in random numbers from the plain picture.
    plain, broken, island = (
        [mura.render(part, evidence, count=2, size=64, random=np.random.default_rng(n)) for n in range(12)]
        for evidence in (none, sign, shadow)
    )
    mean = [
        np.mean([[pictures[view].mean() for view in (0, 1)] for pictures in found], axis=0)
        for found in (plain, broken, island)
    ]
    assert mean[1][0] < mean[0][0] - 0.1 and abs(mean[1][1] - mean[0][1]) < 3
    top = [np.mean([np.sort(pictures[1].ravel())[-60:-20].mean() for pictures in found]) for found in (plain, island)]
    assert top[1] > top[0]


@pytest.mark.parametrize("name", chexpert.DRAWN)
@pytest.mark.parametrize("view", ["frontal", "lateral"])
def test_each_finding_is_in_the_pixels_of_its_view(name: str, view: str) -> None:
    shown = [dict.fromkeys(chexpert.DRAWN, False) | {name: held} for held in (False, True)]
    anatomy = np.zeros(6)
    differences = []
    for seed in range(4):
        a, b = (chexpert.render(view, held, anatomy, size=64, random=np.random.default_rng(seed)) for held in shown)
        differences.append(np.abs(a.astype(float) - b).max())
    assert min(differences) > 35


def test_dicom_is_sixteen_bit_and_uses_its_range(tmp_path: Path) -> None:
    manifest = open_studies(cbis_ddsm.write(tmp_path, cbis_ddsm.Options(patients=6, size=64)))
    image = read_image(next(path for row in manifest.rows for path in row.paths.values()))
    assert image.pixels.dtype == np.uint16 and image.pixels.max() > 60000 and image.size == (64, 38)
