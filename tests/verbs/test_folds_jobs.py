"""What follows a cross-validation, as whole jobs: ensembles, out-of-fold results, subgroups, checks of the data."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from opening import open_studies
from scanfuse.cli import main
from scanfuse.data.folds import with_fold
from scanfuse.tasks.classify.classes import Classes
from scanfuse.verbs.predict import load
from whole_jobs import FOLDS, Capture, fails, fold_command


def evaluated(arguments: list[str], out: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """evaluation.json and per_sample.csv of an evaluation."""
    assert main(["evaluate", *arguments, "--out", str(out), "--pictures", "0", "--quiet"]) == 0
    return json.loads((out / "evaluation.json").read_text()), rows(out)


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "per_sample.csv", dtype={"id": str, "group": str})


def split(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "split.csv", comment="#", dtype=str, keep_default_na=False)


def threshold(run: Path) -> float:
    return float(json.loads((run / "decision.json").read_text())["thresholds"][0])


def rates(y: pd.Series, called: pd.Series) -> dict[str, float]:
    return {"sensitivity": float(called[y == 1].mean()), "specificity": float((~called[y == 0]).mean())}


@pytest.fixture(scope="module")
def all_train(bones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the train studies of `bones` with no test part."""
    table = open_studies(bones, split=False).table
    table = table[table["split"] == "train"].assign(
        age=[str(20 + number) for number in range(sum(table["split"] == "train"))]
    )
    path = tmp_path_factory.mktemp("data") / "manifest.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def untested(all_train: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of data without a test part: each fold has one of its own."""
    path = tmp_path_factory.mktemp("folds") / "untested"
    assert main(fold_command(all_train, path, "--folds", "3", "--fold", "all")) == 0
    return path


@pytest.fixture(scope="module")
def on_test(
    bones_cv: Path, bones: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], pd.DataFrame, Path]:
    """The ensemble on the common test samples."""
    out = tmp_path_factory.mktemp("evaluations") / "e"
    return *evaluated([str(bones_cv), "--data", str(bones), "--ensemble"], out), out


@pytest.fixture(scope="module")
def out_of_fold(
    bones_cv: Path, bones: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], pd.DataFrame]:
    out = tmp_path_factory.mktemp("evaluations") / "e"
    return evaluated([*(str(bones_cv / name) for name in FOLDS), "--data", str(bones), "--on", "val"], out)


# ---- ensembles


def test_the_ensemble_is_the_mean_of_its_members(
    on_test: tuple[dict[str, Any], pd.DataFrame, Path], bones_cv: Path
) -> None:
    content, table, out = on_test
    assert content["methods"] == [*FOLDS, "ensemble"]
    wide = table.pivot(index="id", columns="method", values="p_abnormal")
    tested = split(bones_cv / "fold-0").query("split == 'test'")["id"]
    assert sorted(wide.index) == sorted(tested)
    np.testing.assert_allclose(wide["ensemble"], wide[FOLDS].mean(axis=1), atol=1e-12)
    assert (wide[FOLDS].std(axis=1) > 1e-4).all()  # else the mean would be that of one member
    ours = table[table["method"] == "ensemble"]
    y, p = ours["target"], ours["p_abnormal"]
    cell = content["cells"]["ensemble"]
    assert cell["auroc"]["mean"] == pytest.approx(roc_auc_score(y, p))
    cut = np.mean([threshold(bones_cv / name) for name in FOLDS])
    assert content["thresholds"]["ensemble"] == [pytest.approx(cut)]
    for name, value in rates(y, p >= cut).items():
        assert cell[name]["mean"] == pytest.approx(value)
    pairs = pd.read_csv(out / "per_sample_pairs.csv")
    wide = pairs.pivot(index="id", columns="method", values="p_abnormal")
    np.testing.assert_allclose(wide["ensemble"], wide[FOLDS].mean(axis=1), atol=1e-12)
    notes = " ".join(content["notes"])
    assert (
        "ensemble: the mean of the 3 members' calibrated probabilities; its threshold is the mean of theirs" in notes
    )
    assert "trained on different parts of the data; their test samples are the same" in notes
    assert "of 3 validates" not in notes  # true of one fold each


def test_folds_stand_beside_each_other_without_an_ensemble(
    on_test: tuple[dict[str, Any], pd.DataFrame, Path], bones_cv: Path, bones: Path, tmp_path: Path
) -> None:
    _, expected, _ = on_test
    content, table = evaluated(
        [str(bones_cv / "fold-0"), str(bones_cv / "fold-2"), "--data", str(bones)], tmp_path / "e"
    )
    assert content["methods"] == ["fold-0", "fold-2"]
    expected = expected[expected["method"].isin(["fold-0", "fold-2"])].drop(columns="part").reset_index(drop=True)
    pd.testing.assert_frame_equal(table, expected)
    assert any("their test samples are the same" in note for note in content["notes"])
    assert set(content["parts"]) == {"pairs"}  # a table of parts for each run only if it is asked for


def test_leaks_and_other_test_samples_are_refused(
    bones_cv: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = tmp_path / "leaky"
    shutil.copytree(bones_cv / "fold-1", run)
    notes = [line for line in (run / "split.csv").read_text().splitlines() if line.startswith("#")]
    table = split(run)
    patient = table.loc[table["split"] == "test", "group"].iloc[0]
    first = table.index[table["split"] == "train"][0]

    def save(changed: pd.DataFrame) -> None:
        (run / "split.csv").write_text("\n".join([*notes, changed.to_csv(index=False)]))

    both = [str(bones_cv / "fold-0"), str(run), "--data", str(bones), "--ensemble"]
    save(table.assign(group=table["group"].where(table.index != first, patient)))
    assert f"The cases {patient} are in the training of leaky" in fails(["evaluate", *both], capsys)
    save(table[table["id"] != table["id"][first]])  # unknown to this run alone: it would be one more test sample
    assert "fold-0 and leaky were trained on different splits" in fails(["evaluate", *both], capsys)
    message = fails(["evaluate", str(bones_cv / "fold-0"), "--data", str(bones), "--ensemble"], capsys)
    assert "needs two runs" in message
    message = fails(["evaluate", str(bones_cv), "--data", str(bones), "--on", "all"], capsys)
    assert "were trained on different splits" in message


def test_an_ensemble_predicts(
    on_test: tuple[dict[str, Any], pd.DataFrame, Path], bones_cv: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    _, expected, _ = on_test
    assert main(["predict", str(bones_cv), "--data", str(bones), "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "predictions.csv").set_index("id")
    each = table[[f"p_abnormal_{name}" for name in FOLDS]]
    np.testing.assert_allclose(table["p_abnormal"], each.mean(axis=1), atol=2e-6)
    np.testing.assert_allclose(table["sd_abnormal"], each.std(axis=1), atol=2e-6)
    cut = np.mean([threshold(bones_cv / name) for name in FOLDS])
    assert list(table["called"]) == ["abnormal" if p >= cut else "not abnormal" for p in table["p_abnormal"]]
    for name in FOLDS:
        theirs = expected[expected["method"] == name].set_index("id")["p_abnormal"]
        np.testing.assert_allclose(table.loc[theirs.index, f"p_abnormal_{name}"], theirs, atol=2e-6)

    a, b = sorted(bones.rglob("image*.png"))[:2]
    capsys.readouterr()
    inputs = ["--view_a", str(a), f"--view_b={b}"]
    runs = [str(bones_cv / "fold-0"), str(bones_cv / "fold-2")]
    assert main(["predict", *inputs, *runs, "--out", str(tmp_path / "one")]) == 0
    content = json.loads((tmp_path / "one" / f"{a.stem}.json").read_text())
    members = [load(bones_cv / name).predict(view_a=a, view_b=b).probabilities[0] for name in ("fold-0", "fold-2")]
    assert content["probabilities"]["abnormal"] == pytest.approx(np.mean(members))
    assert content["standard_deviations"]["abnormal"] == pytest.approx(np.std(members, ddof=1))
    assert [member["abnormal"] for member in content["members"].values()] == pytest.approx(members)
    assert f"(abnormal {np.mean(members):.3f}; abnormal is {min(members):.3f} to" in capsys.readouterr().out


def test_an_ensemble_needs_runs_of_one_task(bones_cv: Path, tmp_path: Path, capsys: Capture) -> None:
    other = tmp_path / "other"
    shutil.copytree(bones_cv / "fold-1", other)
    settings = yaml.safe_load((other / "config.yaml").read_text())
    settings["task"]["labels"] = ["broken"]
    (other / "config.yaml").write_text(yaml.safe_dump(settings))
    decision = json.loads((other / "decision.json").read_text()) | {"labels": ["broken"]}
    (other / "decision.json").write_text(json.dumps(decision))
    message = fails(["predict", str(bones_cv / "fold-0"), str(other), "--data", str(tmp_path)], capsys)
    assert message.startswith("other predicts other labels than fold-0")
    assert "no run folder" in fails(["predict", str(bones_cv / "fold-0"), "nothing", "--data", str(tmp_path)], capsys)
    assert "Name the run first" in fails(["predict", "--data", str(tmp_path)], capsys)


# ---- out of fold


def test_out_of_fold_every_patient_is_scored_once_by_the_fold_that_held_it_out(
    out_of_fold: tuple[dict[str, Any], pd.DataFrame], bones_cv: Path, bones: Path, tmp_path: Path
) -> None:
    content, table = out_of_fold
    assert content["methods"] == ["out of fold"]
    splits = {name: split(bones_cv / name) for name in FOLDS}
    trained = splits["fold-0"].query("split != 'test'")
    assert sorted(table["id"]) == sorted(trained["id"])
    for name, recorded in splits.items():
        held_out = recorded.query("split == 'val'")
        assert sorted(table.loc[table["run"] == name, "id"]) == sorted(held_out["id"])
    assert table.groupby("group")["run"].nunique().max() == 1
    _, alone = evaluated([str(bones_cv / "fold-1"), "--data", str(bones), "--on", "val"], tmp_path / "e")
    theirs = table[table["run"] == "fold-1"].set_index("id")["p_abnormal"]
    np.testing.assert_allclose(theirs, alone.set_index("id").loc[theirs.index, "p_abnormal"], atol=1e-9)

    cell = content["cells"]["out of fold"]
    assert cell["auroc"]["mean"] == pytest.approx(roc_auc_score(table["target"], table["p_abnormal"]))
    assert cell["auroc"]["low"] < cell["auroc"]["mean"] < cell["auroc"]["high"]
    cuts = table["run"].map({name: threshold(bones_cv / name) for name in FOLDS})
    assert cuts.nunique() > 1
    for name, value in rates(table["target"], table["p_abnormal"] >= cuts).items():
        assert cell[name]["mean"] == pytest.approx(value)
    assert any("chosen on these samples: the values are too good" in note for note in content["notes"])


def test_the_folds_of_an_out_of_fold_table(out_of_fold: tuple[dict[str, Any], pd.DataFrame]) -> None:
    content, table = out_of_fold
    part = content["parts"]["folds"]
    assert part["methods"] == [*FOLDS, "mean"]
    expected = [roc_auc_score(own["target"], own["p_abnormal"]) for _, own in table.groupby("run")]
    assert [part["cells"][name]["auroc"]["mean"] for name in FOLDS] == pytest.approx(expected)
    assert part["cells"]["mean"]["auroc"]["mean"] == pytest.approx(np.mean(expected))


def test_out_of_fold_needs_all_folds_and_no_ensemble(bones_cv: Path, bones: Path, capsys: Capture) -> None:
    data = ["--data", str(bones), "--on", "val"]
    lacking = (split(bones_cv / "fold-2")["split"] == "val").sum()
    message = fails(["evaluate", str(bones_cv / "fold-0"), str(bones_cv / "fold-1"), *data], capsys)
    assert f"{lacking} sample(s) are in the val part of none: give all folds" in message
    message = fails(["evaluate", str(bones_cv), *data, "--ensemble"], capsys)
    assert "the ensemble would be scored on its own training" in message


def test_out_of_fold_refuses_a_patient_in_training_and_validation(
    bones_cv: Path, bones: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(bones_cv, tmp_path / "cv")
    file = tmp_path / "cv" / "fold-2" / "split.csv"
    table = split(bones_cv / "fold-2")
    patient = table.loc[table["split"] == "val", "group"].iloc[0]
    first = table.index[table["split"] == "train"][0]
    table.assign(group=table["group"].where(table.index != first, patient)).to_csv(file, index=False)
    message = fails(["evaluate", str(tmp_path / "cv"), "--data", str(bones), "--on", "val"], capsys)
    assert f"The cases {patient} are in the training of fold-2 and among its val samples" in message


def test_without_a_test_part_every_fold_tests_its_own(
    untested: Path, all_train: Path, tmp_path: Path, capsys: Capture
) -> None:
    """No sample is scored by a run that was stopped, calibrated or cut on it, and no note says so."""
    content, table = evaluated([str(untested), "--data", str(all_train), "--by", "age"], tmp_path / "e")
    samples = pd.read_csv(all_train, dtype=str)
    assert sorted(table["id"]) == sorted(samples["id"])
    for name in FOLDS:
        recorded = split(untested / name)
        held_out = set(recorded.loc[recorded["split"] == "test", "id"])
        assert set(table.loc[table["run"] == name, "id"]) == held_out
    assert content["cells"]["out of fold"]["auroc"]["mean"] == pytest.approx(
        roc_auc_score(table["target"], table["p_abnormal"])
    )
    assert not any("too good" in note for note in content["notes"])
    # 40 or so different ages are four ranges of about the same number of studies.
    groups = content["parts"]["by age"]
    names = [name for name in groups["better"] if " to " in name]
    assert len(names) == 4
    for name in names:
        low, high = map(int, name.split(" to "))
        own = table[table["age"].between(low, high)]
        assert groups["cells"]["n"][name]["mean"] == len(own)
        assert groups["cells"]["auroc"][name]["mean"] == pytest.approx(
            roc_auc_score(own["target"], own["p_abnormal"])
        )
    message = fails(["evaluate", str(untested), "--data", str(all_train), "--ensemble"], capsys)
    assert "holds out another test part" in message
    fewer = tmp_path / "fewer.csv"
    samples.iloc[3:].to_csv(fewer, index=False)
    content, table = evaluated([str(untested), "--data", str(fewer)], tmp_path / "f")
    assert len(table) == len(samples) - 3
    assert any(note.startswith("3 sample(s) of the cross-validation are not in") for note in content["notes"])


def test_the_report_shows_no_threshold_where_each_fold_has_its_own(
    untested: Path, all_train: Path, tmp_path: Path
) -> None:
    shutil.copytree(untested, tmp_path / "cv")
    data = ["--data", str(all_train), "--quiet", "--pictures", "0"]
    assert main(["evaluate", str(tmp_path / "cv"), *data]) == 0
    page = (tmp_path / "cv" / "report.html").read_text()
    assert "out-of-fold-test" in page and "Reliability" in page
    assert "Confusion" not in page
    assert main(["evaluate", str(tmp_path / "cv" / "fold-0"), *data]) == 0
    page = (tmp_path / "cv" / "fold-0" / "report.html").read_text()
    assert page.count(f"Confusion at the threshold {threshold(tmp_path / 'cv' / 'fold-0'):.3f}") > 0


def test_data_are_checked_as_they_will_be_trained_on(all_train: Path, tmp_path: Path, capsys: Capture) -> None:
    """Two patients with the same picture are an error in the fold that parts them only."""
    table = pd.read_csv(all_train, dtype=str, keep_default_na=False)
    whole, labels = open_studies(all_train), Classes("binary", ("abnormal",)).targets
    folds = [with_fold(whole, labels, folds=4, fold=number).table.set_index("id")["split"] for number in range(4)]
    roles = pd.concat(folds, axis=1)
    a = roles.index[0]
    patient = table.set_index("id")["group"]
    others = [name for name in roles.index if patient[name] != patient[a]]
    # One fold has both in one split, another one does not.
    b = next(name for name in others if (roles.loc[a].to_numpy() == roles.loc[name].to_numpy()).sum() == 1)
    together = int(np.flatnonzero(roles.loc[a].to_numpy() == roles.loc[b].to_numpy())[0])
    apart = (together + 1) % 4
    path = tmp_path / "manifest.csv"
    table["view"] = table["view"].where(table["id"] != b, table.set_index("id").loc[a, "view"])
    table.to_csv(path, index=False)
    assert main(["data", "check", "--folds", "4", "xfmamba", str(path), f"--fold={together}"]) == 0
    assert "in the same split" in capsys.readouterr().out
    assert main(["data", "check", "xfmamba", str(path), "--folds", "4", "--fold", str(apart)]) == 2
    assert f"in {roles.loc[a].iloc[apart]} and {roles.loc[b].iloc[apart]}" in capsys.readouterr().out
    assert main(["data", "check", "xfmamba", str(path), "--folds", "99"]) == 2
    assert "error: 99 folds need at least as many patients" in capsys.readouterr().out
    assert "did you mean --split-seed?" in fails(["data", "check", "xfmamba", "x", "--split-sed", "1"], capsys)
    assert "Name the system and the folder" in fails(["data", "check", "xfmamba"], capsys)


# ---- subgroups


def test_body_parts_have_the_results_of_their_own_studies(
    on_test: tuple[dict[str, Any], pd.DataFrame, Path],
    out_of_fold: tuple[dict[str, Any], pd.DataFrame],
    bones_cv: Path,
) -> None:
    """MURA is reported by part without being asked; of several methods those of the ensemble are shown."""
    cuts = {name: threshold(bones_cv / name) for name in FOLDS}
    for content, table in (on_test[:2], out_of_fold):
        ours = table[table["method"] == content["methods"][-1]]
        part = content["parts"]["by part"]
        cells = {
            column: {row: cell["mean"] for row, cell in found.items()} for column, found in part["cells"].items()
        }
        assert part["counts"] == ["n", "abnormal"]
        assert list(part["better"]) == [*sorted(ours["part"].unique()), "group mean", "all"]
        defined = []
        for name, own in [*ours.groupby("part"), ("all", ours)]:
            y, p = own["target"], own["p_abnormal"]
            assert (cells["n"][name], cells["abnormal"][name]) == (len(own), y.sum())
            cut = own["run"].map(cuts) if "run" in own else np.mean(list(cuts.values()))
            for rate, value in rates(y, p >= cut).items():
                assert cells[rate][name] == (None if np.isnan(value) else pytest.approx(value))
            if y.nunique() < 2:
                assert cells["auroc"][name] is None
                continue
            assert cells["auroc"][name] == pytest.approx(roc_auc_score(y, p))
            defined += [cells["auroc"][name]] if name != "all" else []
        assert cells["auroc"]["group mean"] == pytest.approx(np.mean(defined))
        assert cells["n"]["group mean"] is None
        assert cells["auroc"]["all"] == content["cells"][content["methods"][-1]]["auroc"]["mean"]


def test_body_parts_are_scored_per_pair_too(on_test: tuple[dict[str, Any], pd.DataFrame, Path]) -> None:
    content, table, out = on_test
    part_of = dict(zip(table["id"], table["part"], strict=True))
    pairs = pd.read_csv(out / "per_sample_pairs.csv").query("method == 'ensemble'")
    parts = pairs["id"].str.split("__").str[0].map(part_of)
    found = content["parts"]["pairs by part"]["cells"]
    for name, own in pairs.groupby(parts):
        assert found["n"][name]["mean"] == len(own)
        if own["target"].nunique() > 1:
            assert found["auroc"][name]["mean"] == pytest.approx(roc_auc_score(own["target"], own["p_abnormal"]))
    text = (out / "table.md").read_text()
    assert "\nby part: " in text and "\npairs by part: " in text
    assert "| group | n | abnormal | auroc | sensitivity | specificity |" in text


def test_groups_by_any_column_and_the_report(bones_cv: Path, bones: Path, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    shutil.copytree(bones_cv / "fold-0", run)
    data = ["--data", str(bones), "--quiet", "--pictures", "0"]
    assert main(["evaluate", str(run), *data, "--by", "part", "--by", "published"]) == 0
    content = json.loads((run / "evaluation" / "test" / "evaluation.json").read_text())
    assert list(content["parts"]) == ["pairs", "by part", "pairs by part", "by published", "pairs by published"]
    assert list(content["parts"]["by published"]["better"]) == ["valid", "group mean", "all"]
    assert "WRIST" in (run / "report.html").read_text()
    message = fails(["evaluate", str(run), *data, "--by", "group"], capsys)
    assert message == "The data have no column 'group' for --by; there are: part, published."
