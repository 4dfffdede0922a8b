"""Made-up mammograms in the CBIS-DDSM layout: tables, metadata.csv and 16-bit DICOM, of patients that never lived.

Every breast holds a benign finding in both views: a smooth mass (mass tables) or coarse calcifications (calc
tables). The sign of the malignant class is a spiculated mass, the shadow a cluster of fine calcifications;
`_evidence` says how they are spread over CC and MLO, so that the best single view reaches an area of 0.77 under
the ROC curve and both views 1.0.

The quirks of the published data are kept: paths in the tables that do not exist, line breaks in cells, backslashes in
metadata.csv, crop and mask in one series in either order (some in two), breasts with one view, several abnormalities
of different pathology, patients whose other breast is in the test table of the other kind. Nothing here is fit for a
medical statement.
"""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import pydicom.dataset
import pydicom.uid
from pydantic import Field
from scipy import ndimage

from scanfuse.config import Section
from scanfuse.data.synthetic._evidence import draw
from scanfuse.data.synthetic._film import Array, ellipse_depth, grid, save, smooth_noise, soft_step
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.files import write_text

__all__ = ["FACTS", "Options", "render", "write"]

FACTS = Facts(
    counted="patients",
    seconds=0.035,
    trained="xfmamba --preset tiny --crop body --window percentile: test AUROC 0.91 in 2.5 minutes on two CPU cores",
)

_ROOT_UID = "1.3.6.1.4.1.9590.100.1.2."
_FILM_CLASS = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture: digitised film
_MASS = ("mass shape", "mass margins")
_CALC = ("calc type", "calc distribution")


@dataclass
class _Files:
    """What is written besides pictures: rows of the four tables and of metadata.csv."""

    root: Path
    random: np.random.Generator
    tables: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    metadata: list[dict[str, str]] = field(default_factory=list)
    number: int = 0

    def uid(self) -> str:
        self.number += 1
        return f"{_ROOT_UID}{10_000_000 + self.number}{int(self.random.integers(10**9, 10**10))}"


class Options(Section):
    """How many patients, and how large the films."""

    patients: int = Field(1000, ge=5, le=99_999, description="patients, a fifth of them in the test tables")
    size: int = Field(128, ge=48, le=4096, description="height in pixels; the width is 0.6 of it")
    seed: int = Field(0, ge=0, description="seed of everything")


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes the four tables, metadata.csv and CBIS-DDSM/.../1-1.dcm; a fifth of the patients in the test tables.

    A patient has one or two breasts in the tables, half of the breasts are malignant, one in eight lacks a view,
    one in seven of the malignant ones is mixed. The first patient's left breast is in mass training, the right one
    in calc test. The same options give the same bytes. <root>/truth.csv says what each breast shows.

    Args:
        root: folder; made where it is missing.
        options: see `Options`.

    Returns:
        `root`.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    patients, size, seed = options.patients, options.size, options.seed
    files = _Files(root, np.random.default_rng([seed, 11]))
    truth = ["breast,kind,split,label,sign_cc,sign_mlo,shadow_cc,shadow_mlo"]
    for number in range(1, patients + 1):
        random = np.random.default_rng([seed, number, 13])
        split = "test" if number % 5 == 0 else "train"
        kind = "mass" if random.random() < 0.5 else "calc"
        sides = [str(random.choice(["LEFT", "RIGHT"]))] if random.random() < 0.7 else ["LEFT", "RIGHT"]
        places = [(side, kind, split) for side in sides]
        if number == 1:
            places = [("LEFT", "mass", "train"), ("RIGHT", "calc", "test")]
        for side, kind_here, split_here in places:
            truth.append(_breast(files, f"P_{number:05d}", side, kind_here, split_here, size, random))
    for kind in ("mass", "calc"):
        for split in ("train", "test"):
            rows = files.tables.get(f"{kind} {split}", [])
            write_text(root / f"{kind}_case_description_{split}_set.csv", _csv(rows, _columns(kind)))
    write_text(root / "metadata.csv", _csv(files.metadata, list(files.metadata[0])))
    write_text(root / "truth.csv", "\n".join(truth) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up breasts, no patients: {patients} numbers, size {size}, seed {seed}, in the layout of CBIS-DDSM.\n"
        "Written by ScanFuse. Not for any medical statement.\n",
    )
    return root


def render(
    view: str,
    side: str,
    *,
    kind: str,
    sign: bool,
    shadow: bool,
    anatomy: Array,
    size: int,
    random: np.random.Generator,
) -> tuple[Array, Array]:
    """One film, uint16 (size, 0.6 size), and the mask of its abnormality, uint8 0 and 255, of the same shape.

    Args:
        view: "CC" or "MLO".
        side: "LEFT" (chest wall on the left of the picture) or "RIGHT".
        kind: "mass" or "calc".
        sign, shadow: what this view shows.
        anatomy: six standard normal numbers that the views of a breast share.
        size: height in pixels.
        random: of everything else.
    """
    shape = (size, round(0.6 * size))
    x, y = grid(*shape)
    x = x + 1  # 0 at the chest wall
    reach, half = 1.25 + 0.08 * anatomy[0], 1.05 + 0.06 * anatomy[1]
    sag = 0.22 if view == "MLO" else 0.0
    # In MLO the picture runs up to the armpit along the chest wall.
    above = 1.75 if view == "MLO" else half
    outline = 1 - ((y - sag) / np.where(y < sag, above, half)) ** 2
    edge = reach * np.sqrt(np.clip(outline, 0, None)) - x
    breast = soft_step(edge, 0.03) * (outline > 0)
    thick = np.clip(edge / 0.45, 0, 1) ** 0.5 * breast
    tissue = smooth_noise(random, shape, size / 14) + 0.6 * smooth_noise(random, shape, size / 34)
    gland = soft_step(1 - np.hypot((x - 0.55) / (0.62 + 0.05 * anatomy[2]), (y - sag) / 0.62), 0.35)
    depth = 0.26 * thick + 0.26 * thick * gland * np.clip(0.75 + 0.30 * tissue, 0.1, 1.5)
    ducts = np.abs(smooth_noise(random, shape, size / 46))
    depth = depth + 0.05 * gland * thick * np.exp(-((ducts / 0.25) ** 2))
    depth = depth + 0.10 * np.exp(-((np.hypot(x - reach + 0.04, y - sag) / 0.07) ** 2))
    if view == "MLO":
        muscle = soft_step(0.66 + 0.04 * anatomy[5] - x - 0.36 * (y + 1.67), 0.03)
        depth = depth + (0.34 + 0.02 * tissue) * muscle * breast
    centre = (0.60 + 0.06 * anatomy[3], sag + 0.16 * anatomy[4] * 0.8)
    benign, mask = _finding(x, y, centre, kind, sign, random)
    depth = depth + benign
    if shadow:
        depth = depth + _cluster(x, y, (centre[0] - 0.05, centre[1] + (0.46 if centre[1] < sag else -0.46)), random)
    film = ndimage.gaussian_filter(depth, 0.3 * size / 128) + 0.012 * random.normal(size=shape) * (0.3 + breast)
    film = np.clip(0.02 + film, 0, 1)
    # The film label stands in the corner away from the breast.
    label = (
        slice(round(0.05 * size), round(0.09 * size)),
        slice(shape[1] - round(0.13 * size), shape[1] - round(0.02 * size)),
    )
    film[label] = 0.98
    values = np.rint(film * 65535).astype(np.uint16)
    outline_8bit = (mask * 255).astype(np.uint8)
    if side == "RIGHT":
        values, outline_8bit = values[:, ::-1], outline_8bit[:, ::-1]
    return np.ascontiguousarray(values), np.ascontiguousarray(outline_8bit)


def _finding(
    x: Array, y: Array, centre: tuple[float, float], kind: str, sign: bool, random: np.random.Generator
) -> tuple[Array, Array]:
    """Depth and mask: smooth mass or coarse calcifications; with `sign` a dense core with spicules in their place."""
    radius = 0.17
    distance = np.hypot(x - centre[0], y - centre[1])
    mask = distance < (1.8 if sign else 1.3) * radius
    if sign:
        angle = np.arctan2(y - centre[1], x - centre[0])
        spokes = np.zeros_like(x)
        for place in np.linspace(0, 2 * np.pi, 11, endpoint=False) + random.normal(0, 0.16, 11):
            off = np.abs(np.angle(np.exp(1j * (angle - place)))) * distance
            length = random.uniform(1.5, 2.5) * radius
            spokes = np.maximum(spokes, np.exp(-((off / 0.02) ** 2)) * soft_step(length - distance, 0.1))
        ragged = 0.8 * radius * (1 + 0.16 * np.sin(3 * angle + random.uniform(0, 6)) + 0.12 * np.sin(5 * angle))
        return 0.36 * soft_step(ragged - distance, 0.06) + 0.2 * spokes, mask
    if kind == "mass":
        return 0.24 * ellipse_depth(x, y, centre, (radius, 0.85 * radius), random.uniform(0, np.pi)), mask
    depth = np.zeros_like(x)
    for _ in range(3):
        place = (centre[0] + random.normal(0, 0.07), centre[1] + random.normal(0, 0.07))
        depth = np.maximum(depth, 0.34 * ellipse_depth(x, y, place, (0.06, 0.06)))
    return depth, mask


def _cluster(x: Array, y: Array, centre: tuple[float, float], random: np.random.Generator) -> Array:
    depth = np.zeros_like(x)
    for _ in range(14):
        place = (centre[0] + random.normal(0, 0.085), centre[1] + random.normal(0, 0.085))
        depth = depth + 0.55 * np.exp(-(((x - place[0]) ** 2 + (y - place[1]) ** 2) / 0.022**2))
    return np.clip(depth, 0, 0.6)


def _breast(
    files: _Files, patient: str, side: str, kind: str, split: str, size: int, random: np.random.Generator
) -> str:
    positive = bool(random.random() < 0.5)
    only = str(random.choice(["a", "b"])) if random.random() < 1 / 8 else None
    evidence = draw(random, positive, only=only)  # type: ignore[arg-type]
    anatomy = random.normal(size=6)
    # In a mixed breast the benign abnormality comes first: who reads only the first row gets the label wrong.
    pathologies = ["MALIGNANT"] if positive else [str(random.choice(["BENIGN", "BENIGN_WITHOUT_CALLBACK"]))]
    if positive and random.random() < 1 / 7:
        pathologies = ["BENIGN", "MALIGNANT"]
    density = str(int(random.integers(1, 5)))
    for index, view in enumerate(("CC", "MLO")):
        if only is not None and "ab".index(only) != index:
            continue
        film, mask = render(
            view,
            side,
            kind=kind,
            sign=evidence.sign[index],
            shadow=evidence.shadow[index],
            anatomy=anatomy,
            size=size,
            random=random,
        )
        name = f"{kind.title()}-{'Training' if split == 'train' else 'Test'}_{patient}_{side}_{view}"
        full = _series(files, patient, name, "full mammogram images", [film])
        for number, pathology in enumerate(pathologies, start=1):
            crop_path, mask_path = _region(files, patient, f"{name}_{number}", film, mask, random)
            row = {
                "patient_id": patient,
                "breast_density" if kind == "mass" else "breast density": density,
                "left or right breast": side,
                "image view": view,
                "abnormality id": str(number),
                "abnormality type": "mass" if kind == "mass" else "calcification",
                **dict.fromkeys(_MASS if kind == "mass" else _CALC, "N/A"),
                "assessment": str(int(random.integers(2, 6))),
                "pathology": pathology,
                "subtlety": str(int(random.integers(1, 6))),
                "image file path": f"{name}/{full}/000000.dcm",
                "cropped image file path": crop_path,
                "ROI mask file path": mask_path,
            }
            files.tables.setdefault(f"{kind} {split}", []).append(row)
    shown = (int(positive), *(int(v) for v in (*evidence.sign, *evidence.shadow)))
    return ",".join([f"{patient}-{side}", kind, split, *map(str, shown)])


def _region(
    files: _Files, patient: str, name: str, film: Array, mask: Array, random: np.random.Generator
) -> tuple[str, str]:
    """Writes crop and mask; returns what the table says of them, which need not be true."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    crop = film[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if random.random() < 0.1:
        first = _series(files, patient, name, "cropped images", [crop])
        second = _series(files, patient, name, "ROI mask images", [mask])
        return f"{name}/{first}/000000.dcm", f"{name}/{second}/000000.dcm\n"
    pictures = [crop, mask] if random.random() < 0.5 else [mask, crop]
    uid = _series(files, patient, name, "ROI mask images", pictures)
    return f"{name}/{uid}/000001.dcm\n", f"{name}/{uid}/000000.dcm"


def _series(files: _Files, patient: str, name: str, description: str, pictures: list[Array]) -> str:
    """Writes a series the way the downloader lays it out; returns "<study uid>/<series uid>" as in the tables."""
    study, series = files.uid(), files.uid()
    below = f"CBIS-DDSM/{name}/07-20-2016-DDSM-{study[-5:]}/1.000000-{description}-{series[-5:]}"
    for index, pixels in enumerate(pictures, start=1):
        _write_dicom(files.root / below / f"1-{index}.dcm", pixels, patient, study, series, description, index)
    files.metadata.append(
        {
            "Series UID": series,
            "Collection": "CBIS-DDSM",
            "3rd Party Analysis": "",
            "Data Description URI": "https://doi.org/10.7937/K9/TCIA.2016.7O02S9CY",
            "Subject ID": name,
            "Study UID": study,
            "Study Description": "",
            "Study Date": "07-20-2016",
            "Series Description": description,
            "Manufacturer": "",
            "Modality": "MG",
            "SOP Class Name": "Secondary Capture Image Storage",
            "SOP Class UID": _FILM_CLASS,
            "Number of Images": str(len(pictures)),
            "File Size": "",
            "File Location": ".\\" + below.replace("/", "\\"),
            "Download Timestamp": "",
        }
    )
    return f"{study}/{series}"


def _write_dicom(
    path: Path, pixels: Array, patient: str, study: str, series: str, description: str, index: int
) -> None:
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = _FILM_CLASS
    meta.MediaStorageSOPInstanceUID = f"{series}.{index}"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.ImplementationClassUID = pydicom.uid.PYDICOM_IMPLEMENTATION_UID
    dataset = pydicom.dataset.FileDataset(path.name, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = _FILM_CLASS
    dataset.SOPInstanceUID = f"{series}.{index}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientID = patient
    dataset.PatientName = "made up"
    dataset.Modality = "MG"
    dataset.SeriesDescription = description
    dataset.InstanceNumber = str(index)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    save(path, stream.getvalue())


def _columns(kind: str) -> list[str]:
    """Column names as published: the tables differ in one underscore."""
    own = _MASS if kind == "mass" else _CALC
    return [
        "patient_id", "breast_density" if kind == "mass" else "breast density", "left or right breast", "image view",
        "abnormality id", "abnormality type", *own, "assessment", "pathology", "subtlety", "image file path",
        "cropped image file path", "ROI mask file path",
    ]  # fmt: skip


def _csv(rows: list[dict[str, str]], columns: list[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
