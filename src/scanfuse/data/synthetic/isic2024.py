"""Made-up lesions in the ISIC 2024 layout: pictures in an HDF5 container and a table of 55 columns.

Picture and table each know half of what makes a lesion malignant, see `scanfuse.data.synthetic._lesion`: at the
default share of malignant cases the best area under the ROC curve from one is 0.85, from both 1.0. In the table the
half is spread over six noisy measurements. Values are missing where the published table lacks them (age, sex, place),
and sizes of the crops vary as there. Nothing here is fit for a medical statement.
"""

import io
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.synthetic._film import encoded, save
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.data.synthetic._lesion import draw_case, draw_lesion
from scanfuse.files import write_text

__all__ = ["FACTS", "Options", "write"]

FACTS = Facts(counted="patients", seconds=0.02)

_PLACES = {"posterior torso": 0.31, "lower extremity": 0.26, "anterior torso": 0.22, "upper extremity": 0.18,
           "head/neck": 0.03}  # fmt: skip
_LOCATIONS = {
    "posterior torso": ("Torso Back Top Third", "Torso Back Middle Third", "Torso Back Bottom Third"),
    "anterior torso": ("Torso Front Top Half", "Torso Front Bottom Half"),
    "lower extremity": ("Left Leg - Upper", "Left Leg - Lower", "Right Leg - Upper", "Right Leg - Lower"),
    "upper extremity": ("Left Arm - Upper", "Left Arm - Lower", "Right Arm - Upper", "Right Arm - Lower"),
    "head/neck": ("Head & Neck",),
}
_CLINICS = ("Memorial Sloan Kettering Cancer Center", "Hospital Clinic de Barcelona", "FNQH Cairns")
_TELLING = {
    "tbp_lv_H": (54.0, -5.0), "tbp_lv_deltaLBnorm": (7.0, 1.6), "tbp_lv_norm_color": (3.0, 1.3),
    "tbp_lv_norm_border": (4.0, 1.4), "tbp_lv_minorAxisMM": (2.6, 0.8), "tbp_lv_stdL": (2.0, 0.7),
}  # fmt: skip
"""Measurements that know v: mean, and what one deviation of (0.8 v + 0.6 noise) adds."""
_PLAIN = {
    "tbp_lv_A": (20, 4), "tbp_lv_Aext": (15, 4), "tbp_lv_B": (28, 5), "tbp_lv_Bext": (27, 4), "tbp_lv_C": (35, 5),
    "tbp_lv_Cext": (31, 4), "tbp_lv_Hext": (61, 7), "tbp_lv_L": (42, 10), "tbp_lv_Lext": (49, 10),
    "tbp_lv_areaMM2": (8, 3), "tbp_lv_area_perim_ratio": (19, 4), "tbp_lv_color_std_mean": (0.9, 0.4),
    "tbp_lv_deltaA": (5, 2), "tbp_lv_deltaB": (1, 2), "tbp_lv_deltaL": (-7, 3), "tbp_lv_deltaLB": (8, 2),
    "tbp_lv_eccentricity": (0.75, 0.1), "tbp_lv_nevi_confidence": (50, 30), "tbp_lv_perimeterMM": (12, 4),
    "tbp_lv_radial_color_std_max": (0.8, 0.4), "tbp_lv_stdLExt": (2.2, 0.6), "tbp_lv_symm_2axis": (0.3, 0.1),
    "tbp_lv_symm_2axis_angle": (85, 50), "tbp_lv_x": (-3, 190), "tbp_lv_y": (1000, 400), "tbp_lv_z": (55, 85),
}  # fmt: skip
_COLUMNS = (
    "isic_id", "target", "patient_id", "age_approx", "sex", "anatom_site_general", "clin_size_long_diam_mm",
    "image_type", "tbp_tile_type", "tbp_lv_A", "tbp_lv_Aext", "tbp_lv_B", "tbp_lv_Bext", "tbp_lv_C", "tbp_lv_Cext",
    "tbp_lv_H", "tbp_lv_Hext", "tbp_lv_L", "tbp_lv_Lext", "tbp_lv_areaMM2", "tbp_lv_area_perim_ratio",
    "tbp_lv_color_std_mean", "tbp_lv_deltaA", "tbp_lv_deltaB", "tbp_lv_deltaL", "tbp_lv_deltaLB",
    "tbp_lv_deltaLBnorm", "tbp_lv_eccentricity", "tbp_lv_location", "tbp_lv_location_simple", "tbp_lv_minorAxisMM",
    "tbp_lv_nevi_confidence", "tbp_lv_norm_border", "tbp_lv_norm_color", "tbp_lv_perimeterMM",
    "tbp_lv_radial_color_std_max", "tbp_lv_stdL", "tbp_lv_stdLExt", "tbp_lv_symm_2axis", "tbp_lv_symm_2axis_angle",
    "tbp_lv_x", "tbp_lv_y", "tbp_lv_z", "attribution", "copyright_license", "lesion_id", "iddx_full", "iddx_1",
    "iddx_2", "iddx_3", "iddx_4", "iddx_5", "mel_mitotic_index", "mel_thick_mm", "tbp_lv_dnn_lesion_confidence",
)  # fmt: skip
"""Of the training table; the test table has those without the last ten and the target."""
TEST_COLUMNS = tuple(name for name in _COLUMNS[:45] if name != "target")


class Options(Section):
    """How many lesions, and how large."""

    patients: int = Field(400, ge=5, le=99_999, description="patients with one to five lesions each")
    size: int = Field(96, ge=24, le=512, description="median side of the crops in pixels")
    malignant: float = Field(0.25, gt=0, lt=1, description="share of malignant lesions (official data: 0.001)")
    seed: int = Field(0, ge=0, description="seed of everything")


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes the training table and its container, and those of a test set of eight further patients.

    The same options give the same bytes. <root>/truth.csv says u, v and the outcome of every lesion.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    truth = []
    for part, numbers in (
        ("train", range(options.patients)),
        ("test", range(options.patients, options.patients + 8)),
    ):
        rows, pictures = [], {}
        for number in numbers:
            random = np.random.default_rng([options.seed, number, 24])
            sex, age = str(random.choice(["male", "female"])), int(random.integers(4, 18)) * 5
            for lesion in range(int(random.integers(1, 6))):
                name = f"ISIC_{number:06d}{lesion}"
                malignant, u, v = draw_case(random, options.malignant)
                rows.append(_row(random, name, number, malignant, v, age, sex))
                side = int(np.clip(options.size * np.exp(random.normal(0, 0.2)), 16, 4 * options.size))
                pictures[name] = encoded(draw_lesion(random, u, size=side), "JPEG")
                truth.append(f"{name},{u:.4f},{v:.4f},{int(malignant)}")
        columns = list(_COLUMNS if part == "train" else TEST_COLUMNS)
        table = pd.DataFrame(rows)[columns]
        write_text(root / f"{part}-metadata.csv", table.to_csv(index=False, lineterminator="\n"))
        save(root / f"{part}-image.hdf5", _container(pictures))
    write_text(root / "truth.csv", "\n".join(["isic_id,u,v,malignant", *truth]) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up skin lesions, no patients: {options.patients} numbers, size {options.size}, seed {options.seed}, "
        "in the ISIC 2024 layout.\nWritten by ScanFuse. Not for any medical statement.\n",
    )
    return root


def _container(pictures: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, content in pictures.items():
            file.create_dataset(name, data=np.void(content))
    return stream.getvalue()


def _row(
    random: np.random.Generator, name: str, patient: int, malignant: bool, v: float, age: int, sex: str
) -> dict[str, str]:
    place = str(random.choice(list(_PLACES), p=list(_PLACES.values())))
    location = str(random.choice(_LOCATIONS[place]))
    diagnosis = ("Malignant", "Melanocytic", "Melanoma") if malignant else ("Benign", "", "")
    row = dict.fromkeys(_COLUMNS, "")
    row |= {key: f"{mean + size * random.normal():.6g}" for key, (mean, size) in _PLAIN.items()}
    row |= {key: f"{mean + size * (0.8 * v + 0.6 * random.normal()):.6g}" for key, (mean, size) in _TELLING.items()}
    row |= {
        "isic_id": name,
        "target": str(int(malignant)),
        "patient_id": f"IP_{patient:07d}",
        "age_approx": "NA" if random.random() < 0.05 else f"{age}.0",
        "sex": "NA" if random.random() < 0.1 else sex,
        "anatom_site_general": "NA" if random.random() < 0.05 else place,
        "clin_size_long_diam_mm": f"{np.exp(random.normal(1.2, 0.4)):.2f}",
        "image_type": "TBP tile: close-up",
        "tbp_tile_type": str(random.choice(["3D: XP", "3D: white"], p=[0.7, 0.3])),
        "tbp_lv_location": location,
        "tbp_lv_location_simple": location.split(" - ")[0].rsplit(" ", 2 if "Torso" in location else 0)[0],
        "attribution": str(random.choice(_CLINICS)),
        "copyright_license": "CC-BY",
        "lesion_id": f"IL_{name[5:]}" if malignant else "",
        "iddx_full": "::".join(part for part in diagnosis if part),
        "iddx_1": diagnosis[0],
        "iddx_2": diagnosis[1],
        "iddx_3": diagnosis[2],
        "mel_thick_mm": f"{random.uniform(0.2, 2):.1f}" if malignant and random.random() < 0.2 else "NA",
        "mel_mitotic_index": "0/mm^2" if malignant and random.random() < 0.1 else "NA",
        "tbp_lv_dnn_lesion_confidence": f"{100 * random.random():.4f}",
    }
    return row
