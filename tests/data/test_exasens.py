"""The published table of Exasens, with its two header lines, says what a copy with one says."""

from pathlib import Path

import pytest

from scanfuse.data.layouts import Request, open_manifest
from scanfuse.data.synthetic import exasens
from scanfuse.errors import UserError

WHOLE = Request(split="none")


def test_both_forms_are_the_same_people(tmp_path: Path) -> None:
    plain, published = (
        open_manifest(
            exasens.write(tmp_path / form, exasens.Options(patients=40, form=form)),  # type: ignore[arg-type]
            "series_table",
            WHOLE,
            options={"target": "diagnosis"},
        )
        for form in ("plain", "published")
    )
    assert published.table.equals(plain.table) and published.notes == plain.notes
    assert len(plain) == 40 and (plain.table["MinIP"] == "").sum() > 20
    assert [name for name in plain.table if name not in ("id", "group", "split", "target", "ct")] == [
        *("MinIP", "AvgIP", "MinRP", "AvgRP", "Gender", "Age", "Smoking")
    ]


def test_the_published_table_by_hand(tmp_path: Path) -> None:
    (tmp_path / "Exasens.csv").write_bytes(
        b"\xef\xbb\xbfDiagnosis,ID,Imaginary Part,,Real Part,,Gender,Age,Smoking,,,,\r\n"
        b",,Min,Avg.,Min,Avg.,,,,,,,\r\n"
        b'COPD,301-4,-320.61,-300.5635307,-495.26,-464.1719907,1,77,2,,Gender,,"(1=Male, 0=Female)"\r\n'
        b'HC,H1,,,,,0,30,1,,Smoking,,"(1=Non-smoker, 2=Ex-smoker)"\r\n'
        b"Asthma,A1,,,,,0,40,3,,,,\r\n"
        b",,,,,,,,,,,,\r\n\r\n"
    )
    found = open_manifest(tmp_path, "series_table", WHOLE)
    assert found.table.drop(columns=["group", "split", "ct"]).values.tolist() == [
        ["301-4", "1", "-320.61", "-300.5635307", "-495.26", "-464.1719907", "1", "77", "2"],
        ["H1", "0", "", "", "", "", "0", "30", "1"],
    ]
    assert "1 people with asthma or an infection were left out" in found.notes


def test_a_row_without_a_diagnosis_and_a_table_without_people_are_one_line(tmp_path: Path) -> None:
    head = "Diagnosis,ID,MinIP,AvgIP,MinRP,AvgRP,Gender,Age,Smoking\n"
    (tmp_path / "Exasens.csv").write_text(head + "COPD,1,,,,,1,77,2\n,2,,,,,1,77,2\n")
    with pytest.raises(UserError, match="has the diagnosis ''"):
        open_manifest(tmp_path, "series_table", WHOLE)
    (tmp_path / "Exasens.csv").write_text(head + ",,,,,,,,\n")
    with pytest.raises(UserError, match="has no row"):
        open_manifest(tmp_path, "series_table", WHOLE)


@pytest.mark.data
def test_the_real_table(real_data: Path) -> None:
    found = open_manifest(real_data / "exasens", "series_table", WHOLE, options={"target": "diagnosis"})
    assert found.table["target"].value_counts().to_dict() == {"HC": 160, "COPD": 79, "Asthma": 80, "Infected": 80}
    assert found.notes == ()
