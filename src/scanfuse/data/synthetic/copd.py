"""Made-up patients in the COPD layout: chest CT with or without emphysema, and a clinical table with gaps.

CT and table each know half of what makes a patient ill, see `scanfuse.data.synthetic._lesion.draw_case`: the CT its
half by how much emphysema it shows, the table its half by pack-years, blood gases and complaints. Spirometry, in the
table too, knows all of it, as it defines the disease: a network must not see it. Nothing here is fit for a medical
statement.
"""

import io
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import stats

from scanfuse.config import Section
from scanfuse.data.series import Series, packed
from scanfuse.data.synthetic._chest import LUNG_MM, draw_chest, render
from scanfuse.data.synthetic._film import encoded, save
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.data.synthetic._lesion import draw_case
from scanfuse.files import write_text

__all__ = ["FACTS", "Options", "write"]

FACTS = Facts(counted="patients", seconds=0.2)
_COLUMNS = (
    "patient_id", "label", "age", "sex", "height_cm", "weight_kg", "pack_years", "smoking", "cat_score", "pao2_kpa",
    "paco2_kpa", "ph", "wbc", "eosinophils", "crp", "albumin", "haemoglobin", "FEV1", "FVC", "FEV1/FVC", "GOLD",
)  # fmt: skip
_GAPS = {"cat_score": 0.1, "pao2_kpa": 0.2, "paco2_kpa": 0.2, "ph": 0.2, "crp": 0.25, "eosinophils": 0.3,
         "pack_years": 0.05, "smoking": 0.05}  # fmt: skip
"""Column -> how often its value is missing."""
_FIELD_MM, _RAW_MM = 300.0, 360.0
_SERIES_MM = (-140.0, 130.0)


class Options(Section):
    """How many patients, how many slices of which size, and in which form."""

    patients: int = Field(400, ge=1, le=99_999, description="patients, each with a CT and a row")
    slices: int = Field(6, ge=2, le=400, description="slices of each patient")
    size: int = Field(64, ge=32, le=512, description="rows and columns of a slice")
    form: Literal["npz", "png", "dicom"] = Field(
        "npz", description="ct/ as prepared files in HU or as windowed pictures, or ct_raw/ as DICOM series"
    )
    copd: float = Field(0.45, gt=0, lt=1, description="share of patients with COPD")
    seed: int = Field(0, ge=0, description="seed of everything")


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes clinical.csv and ct/ (or ct_raw/, for scanfuse data prepare); the same options give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    lines = [",".join(_COLUMNS)]
    for number in range(options.patients):
        random = np.random.default_rng([options.seed, number, 40])
        is_ill, u, v = draw_case(random, options.copd)
        name = f"P{number + 1:05d}"
        lines.append(",".join(_row(random, name, is_ill, v)))
        chest = draw_chest(random, float(stats.norm.cdf(u)))
        if options.form == "dicom":
            heights = np.linspace(*_SERIES_MM, options.slices)
            hu, _ = render(random, chest, z_mm=heights, size=options.size, field_mm=_RAW_MM)
            _write_dicom(root / "ct_raw" / name, name, hu, heights, number)
            continue
        heights = np.linspace(*LUNG_MM, options.slices)
        hu, lung = render(random, chest, z_mm=heights, size=options.size, field_mm=_FIELD_MM)
        if options.form == "npz":
            place = np.linspace(0, 1, options.slices, dtype=np.float32)
            save(root / "ct" / f"{name}.npz", packed(Series(hu, True, lung, place, root)))
        else:
            unit = np.rint(np.clip((hu + 1350.0) / 1500, 0, 1) * 255).astype(np.uint8)
            for index, pixels in enumerate(unit):
                save(root / "ct" / name / f"slice_{index:03d}.png", encoded(pixels, "PNG"))
    write_text(root / "clinical.csv", "\n".join(lines) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up chests, no patients: {options.patients} of {options.slices} slices, size {options.size}, seed "
        f"{options.seed}, in the COPD layout.\nWritten by ScanFuse. Not for any medical statement.\n",
    )
    return root


def _row(random: np.random.Generator, name: str, is_ill: bool, v: float) -> list[str]:
    """A line of the table; `v` is all that it knows but for spirometry."""
    sex = str(random.choice(["female", "male"]))
    height = random.normal(163 if sex == "female" else 176, 6.5)
    told = v + 0.55 * random.normal(size=5)  # five values, each a blurred look at the same
    ratio = random.uniform(0.38, 0.69) if is_ill else random.uniform(0.71, 0.86)
    fvc = random.normal(3.4, 0.5)
    values = {
        "patient_id": name,
        "label": str(int(is_ill)),
        "age": f"{np.clip(64 + 9 * random.normal(), 40, 92):.0f}",
        "sex": sex,
        "height_cm": f"{height:.0f}",
        "weight_kg": f"{np.clip(76 + 13 * random.normal(), 42, 130):.0f}",
        "pack_years": f"{max(0.0, 26 + 14 * told[0]):.0f}",
        "smoking": ("never", "former", "current")[int(np.clip(round(1 + 0.8 * random.normal()), 0, 2))],
        "cat_score": f"{np.clip(14 + 6 * told[1], 0, 40):.0f}",
        "pao2_kpa": f"{np.clip(10.2 - 1.1 * told[2], 5, 14):.1f}",
        "paco2_kpa": f"{np.clip(5.4 + 0.5 * told[3], 3.5, 9):.1f}",
        "ph": f"{7.40 + 0.025 * random.normal():.2f}",
        "wbc": f"{np.clip(7.6 + 2.1 * random.normal(), 3, 20):.1f}",
        "eosinophils": f"{np.exp(-1.8 + 0.6 * random.normal()):.2f}",
        "crp": f"{np.exp(1.4 + 0.6 * told[4]):.1f}",
        "albumin": f"{np.clip(40 + 4 * random.normal(), 25, 52):.0f}",
        "haemoglobin": f"{np.clip(140 + 13 * random.normal(), 85, 185):.0f}",
        "FEV1": f"{ratio * fvc:.2f}",
        "FVC": f"{fvc:.2f}",
        "FEV1/FVC": f"{ratio:.2f}",
        "GOLD": str(1 + int(ratio < 0.6) + int(ratio < 0.5) + int(ratio < 0.42)) if is_ill else "0",
    }
    for column, chance in _GAPS.items():
        if random.random() < chance:
            values[column] = ""
    return [values[column] for column in _COLUMNS]


def _write_dicom(folder: Path, name: str, hu: np.ndarray, heights: np.ndarray, number: int) -> None:
    """A CT series, one file a slice, named in another order than that of the body, as scanners do."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    spacing = _RAW_MM / hu.shape[1]
    series = generate_uid(entropy_srcs=["scanfuse", name, "series"])
    order = np.random.default_rng([number, 41]).permutation(len(hu))
    for position, place in enumerate(order):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["scanfuse", name, str(place)])
        dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID = generate_uid(entropy_srcs=["scanfuse", name])
        dataset.SeriesInstanceUID, dataset.Modality, dataset.PatientID = series, "CT", name
        dataset.InstanceNumber = int(position + 1)
        dataset.Rows, dataset.Columns = hu.shape[1:]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
        dataset.PixelSpacing = [f"{spacing:.6f}", f"{spacing:.6f}"]
        dataset.SliceThickness = f"{heights[1] - heights[0]:.3f}"
        dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        edge = f"{-_RAW_MM / 2:.3f}"
        dataset.ImagePositionPatient = [edge, edge, f"{heights[place]:.3f}"]
        dataset.PixelData = (hu[place].astype(np.int32) + 1024).astype(np.uint16).tobytes()
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        save(folder / f"IM{position + 1:04d}.dcm", stream.getvalue())
