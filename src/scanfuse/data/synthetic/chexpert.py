"""Made-up chest X-rays in the CheXpert v1.0 layout: frontal and lateral, 14 findings, of patients that never lived.

Drawn are cardiomegaly, edema, consolidation, atelectasis, pneumothorax, pleural effusion, lung lesion and support
devices. A finding shows in the frontal view (0.4), the lateral view (0.4) or both (0.2); a round shadow is a lung
lesion only if both views show it. So for each of them the best single view reaches an area of 0.8 under the ROC
curve and both views 1.0. Lung opacity, enlarged cardiomediastinum, pneumonia and no finding follow from these;
pleural other and fracture never occur. Nothing here is fit for a medical statement.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import Field
from scipy import ndimage

from scanfuse.config import Section
from scanfuse.data.layouts.chexpert import FINDINGS
from scanfuse.data.synthetic._evidence import draw_agreement, draw_seen
from scanfuse.data.synthetic._film import (
    Array,
    blob,
    ellipse_depth,
    encoded,
    expose,
    grid,
    save,
    smooth_noise,
    soft_step,
)
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.files import write_text

__all__ = ["DRAWN", "FACTS", "Options", "render", "write"]

DRAWN = (
    "Cardiomegaly", "Lung Lesion", "Edema", "Consolidation", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Support Devices",
)  # fmt: skip

FACTS = Facts(
    counted="patients",
    seconds=0.025,
    trained="xfmamba --preset tiny --epochs 40: test AUROC 0.92 in 2.5 minutes on two CPU cores",
)
_PREVALENCE = 0.25


class Options(Section):
    """How many chests, and how large."""

    patients: int = Field(400, ge=5, le=99_999, description="patients, a fifth of them in the valid set")
    size: int = Field(96, ge=32, le=2048, description="side of the shorter edge in pixels")
    seed: int = Field(0, ge=0, description="seed of everything")


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/CheXpert-v1.0-small with train.csv and valid.csv; a fifth of the patients is in valid.

    Train patients have one to three studies; in one of six studies the lateral view is missing, one of ten has a
    second frontal view. In train.csv one of twelve values is uncertain (-1) and most negatives are blank, in
    valid.csv all are 0 or 1. The same options give the same bytes. <root>/truth.csv says what each study shows.

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
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(FINDINGS)
    rows: dict[str, list[str]] = {"train": [header], "valid": [header]}
    truth = ["study," + ",".join(f"{name} frontal,{name} lateral" for name in DRAWN)]
    for number in range(1, patients + 1):
        random = np.random.default_rng([seed, number, 7])
        published = "valid" if number % 5 == 0 else "train"
        sex, age = str(random.choice(["Male", "Female"])), int(random.integers(18, 91))
        for study in range(1, 1 + (1 if published == "valid" else int(random.choice([1, 2, 3], p=[0.6, 0.3, 0.1])))):
            has_lateral = bool(random.random() > 1 / 6)
            truth_of = {name: bool(random.random() < _PREVALENCE) for name in DRAWN}
            shown = {
                name: (draw_agreement if name == "Lung Lesion" else draw_seen)(random, truth_of[name], has_lateral)
                for name in DRAWN
            }
            truth.append(
                ",".join([f"patient{number:05d}-study{study}", *(str(int(v)) for name in DRAWN for v in shown[name])])
            )
            values = _values(_findings(truth_of), published, random)
            views = ["frontal"] + ["frontal"] * int(random.random() < 0.1) + ["lateral"] * has_lateral
            anatomy = random.normal(size=6)
            projection = str(random.choice(["AP", "PA"]))
            for index, view in enumerate(views, start=1):
                side = int(view == "lateral")
                pixels = render(view, {name: shown[name][side] for name in DRAWN}, anatomy, size=size, random=random)
                path = f"CheXpert-v1.0-small/{published}/patient{number:05d}/study{study}/view{index}_{view}.jpg"
                save(root / path, encoded(pixels, "JPEG"))
                position = projection if view == "frontal" else ""
                rows[published].append(",".join([path, sex, str(age), view.title(), position, *values]))
    for published, lines in rows.items():
        write_text(root / "CheXpert-v1.0-small" / f"{published}.csv", "\n".join(lines) + "\n")
    write_text(root / "truth.csv", "\n".join(truth) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up chests, no patients: {patients} numbers, size {size}, seed {seed}, in the CheXpert v1.0 layout.\n"
        "Written by ScanFuse. Not for any medical statement.\n",
    )
    return root


def render(view: str, shown: Mapping[str, bool], anatomy: Array, *, size: int, random: np.random.Generator) -> Array:
    """One picture, uint8 (size, w); `anatomy` is six standard normal numbers that the views of a study share."""
    shape = (size, round(size * (1.0 if view == "lateral" else random.uniform(1.05, 1.2))))
    x, y = grid(*shape)
    x, y = (x - random.normal(0, 0.03)) / random.uniform(0.96, 1.06), y - random.normal(0, 0.03)
    turn = np.radians(random.normal(0, 2))
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    depth = (_lateral if view == "lateral" else _frontal)(x, y, shown, anatomy, random)
    picture = expose(random, depth, gain=random.uniform(0.95, 1.1), noise=0.012)
    return np.rint(picture * 255).astype(np.uint8)


def _findings(drawn: Mapping[str, bool]) -> dict[str, bool]:
    findings = dict.fromkeys(FINDINGS, False) | dict(drawn)
    findings["Enlarged Cardiomediastinum"] = drawn["Cardiomegaly"]
    findings["Pneumonia"] = drawn["Consolidation"]
    findings["Lung Opacity"] = any(drawn[name] for name in ("Lung Lesion", "Edema", "Consolidation", "Atelectasis"))
    findings["No Finding"] = not any(held for name, held in drawn.items() if name != "Support Devices")
    return findings


def _values(findings: Mapping[str, bool], published: str, random: np.random.Generator) -> list[str]:
    values = []
    for name in FINDINGS:
        value = "1.0" if findings[name] else "0.0"
        if published == "train":
            if name != "No Finding" and random.random() < 1 / 12:
                value = "-1.0"
            elif value == "0.0" and random.random() < 0.8:
                value = ""
        values.append(value)
    return values


def _frontal(x: Array, y: Array, shown: Mapping[str, bool], anatomy: Array, random: np.random.Generator) -> Array:
    """The patient's left is on the right of the picture, where most of the heart lies."""
    wide = 0.86 + 0.04 * anatomy[0]
    chest = soft_step(wide + 0.10 * soft_step(y, 0.6) - np.abs(x), 0.06)
    neck = soft_step(0.30 - np.abs(x), 0.08)
    shoulders = soft_step(y + 0.92 - 0.35 * np.clip(np.abs(x) - 0.3, 0, None), 0.06)
    body = np.maximum(chest * shoulders, neck)
    depth = 1.0 * body
    dome = {side: 0.52 + 0.03 * anatomy[1] - 0.05 * (side < 0) for side in (-1, 1)}
    lung = np.zeros_like(x)
    for side in (-1, 1):
        u = (side * x - 0.43) / (0.36 + 0.02 * anatomy[0])
        floor = dome[side] - 0.16 + 0.30 * u**2 * np.where(u > 0, 1.0, 0.55)
        apex = -0.82 + 0.42 * u**2
        inside = soft_step(1 - np.abs(u), 0.08) * soft_step(y - apex, 0.05) * soft_step(floor - y, 0.025)
        if shown["Pleural Effusion"] and side == 1:
            inside = inside * soft_step(floor - 0.30 - 0.25 * np.clip(u, -1, 1) - y + 0.10, 0.04)
        lung = lung + inside
    vessels = np.abs(smooth_noise(random, x.shape, x.shape[0] / 34))
    hila = blob(x, y, (-0.22, -0.08), 0.26, 0.9) + blob(x, y, (0.24, -0.12), 0.26, 0.9)
    depth = depth - 0.78 * lung + 0.10 * lung * vessels * (0.3 + hila)
    depth = depth + lung * _opacities(x, y, shown, ((-0.42, 0.12), (0.44, -0.20)), random)
    if shown["Pneumothorax"]:
        u = (x - 0.43) / 0.36
        edge = -0.82 + 0.42 * u**2 + 0.26
        depth = depth - 0.18 * lung * (x > 0) * soft_step(edge - y, 0.015)
        depth = depth + 0.32 * lung * (x > 0) * np.exp(-(((y - edge) / 0.022) ** 2))
    size = (0.34 if not shown["Cardiomegaly"] else 0.56) + 0.01 * anatomy[2]
    heart = ellipse_depth(x, y, (0.14 + 0.35 * (size - 0.34), 0.22), (size, 0.33 + 0.25 * (size - 0.34)), 0.45)
    column = soft_step(0.13 - np.abs(x - 0.01), 0.04)
    arch = ellipse_depth(x, y, (0.10, -0.36), (0.13, 0.14))
    depth = depth + 0.80 * heart * (0.35 + 0.65 * lung) + 0.55 * column * body + 0.30 * arch
    depth = depth + 0.06 * column * np.cos(y * 28) * body
    ribs = np.zeros_like(x)
    for index in range(8):
        level = -0.74 + 0.165 * index
        for slope, strength in ((0.30, 0.16), (-0.22, 0.07)):
            curve = level + slope * np.abs(x) ** 1.4 + (0.0 if slope > 0 else 0.22)
            ribs = ribs + strength * np.exp(-(((y - curve) / 0.028) ** 2))
    depth = depth + ribs * soft_step(wide - np.abs(x), 0.03) * soft_step(np.abs(x) - 0.12, 0.03) * body * (y < 0.75)
    for side in (-1, 1):
        collar = -0.70 - 0.16 * (side * x - 0.1) + 0.03 * np.sin(6 * x)
        depth = depth + 0.30 * np.exp(-(((y - collar) / 0.035) ** 2)) * (side * x > 0.08) * (side * x < 0.80)
    if shown["Support Devices"]:
        depth = depth + _device(x, y, ((0.46, -0.55), (0.06, -0.42), (0.12, 0.15)))
    return depth


def _lateral(x: Array, y: Array, shown: Mapping[str, bool], anatomy: Array, random: np.random.Generator) -> Array:
    """The spine is on the left of the picture, the breastbone on the right."""
    back = -0.72 + 0.10 * np.cos(1.6 * (y + 0.1)) - 0.14
    front = 0.58 + 0.18 * np.sin(1.3 * (y + 0.35)) + 0.03 * anatomy[0]
    body = soft_step(x - back, 0.05) * soft_step(front - x, 0.05)
    arms = blob(x, y, (-0.15, -1.25), 0.55, 0.5)
    depth = 1.15 * body + 0.6 * arms * body
    u = (x - (-0.02)) / 0.56
    floor = 0.42 + 0.03 * anatomy[1] - 0.30 * u - 0.10 * np.cos(2.4 * u) + 0.10
    apex = -0.78 + 0.30 * u**2
    lung = soft_step(x - back - 0.17, 0.05) * soft_step(front - 0.10 - x, 0.05)
    lung = lung * soft_step(y - apex, 0.06) * soft_step(floor - y, 0.03)
    if shown["Pleural Effusion"]:
        # The gutter behind the dome fills first, with a rising meniscus at the back.
        lung = lung * soft_step(0.24 + 0.45 * np.clip(u + 0.65, 0, 0.7) - y, 0.04)
    vessels = np.abs(smooth_noise(random, x.shape, x.shape[0] / 34))
    hila = blob(x, y, (-0.02, -0.10), 0.32, 0.9)
    depth = depth - 0.82 * lung + 0.10 * lung * vessels * (0.4 + hila) + 0.14 * hila * lung
    depth = depth + lung * _opacities(x, y, shown, ((-0.30, 0.12), (-0.10, -0.32)), random)
    if shown["Pneumothorax"]:
        edge = apex + 0.30
        depth = depth - 0.18 * lung * soft_step(edge - y, 0.015)
        depth = depth + 0.32 * lung * np.exp(-(((y - edge) / 0.022) ** 2))
    size = (0.27 if not shown["Cardiomegaly"] else 0.43) + 0.01 * anatomy[2]
    heart = ellipse_depth(x, y, (0.30 - 0.7 * (size - 0.27), 0.20), (size, 0.30), 0.5)
    depth = depth + 0.75 * heart * (0.3 + 0.7 * lung)
    spine = back + 0.20
    column = np.exp(-(((x - spine) / 0.085) ** 2))
    depth = depth + 0.35 * column * body * (1 + 0.35 * np.cos(y * 24))
    for index in range(7):
        curve = -0.62 + 0.17 * index + 0.42 * (x - back) ** 1.0 * 0.8
        depth = depth + 0.07 * np.exp(-(((y - curve) / 0.025) ** 2)) * body * soft_step(x - spine, 0.03)
    depth = depth + 0.28 * np.exp(-(((x - front + 0.07) / 0.03) ** 2)) * soft_step(y + 0.75, 0.05) * soft_step(
        0.45 - y, 0.1
    )
    if shown["Support Devices"]:
        depth = depth + _device(x, y, ((0.38, -0.60), (0.06, -0.46), (0.14, 0.14)))
    return depth


def _opacities(
    x: Array,
    y: Array,
    shown: Mapping[str, bool],
    places: tuple[tuple[float, float], tuple[float, float]],
    random: np.random.Generator,
) -> Array:
    """Edema, consolidation, plate-like atelectasis and a round lesion, as optical depth within the lung."""
    depth = np.zeros_like(x)
    (patch_x, patch_y), (lesion_x, lesion_y) = places
    if shown["Edema"]:
        haze = smooth_noise(random, x.shape, x.shape[0] / 26)
        depth = depth + 0.34 * (1 + 0.45 * haze) * np.exp(-((np.hypot(x, y + 0.05) / 0.75) ** 2))
    if shown["Consolidation"]:
        ragged = 1 + 0.18 * smooth_noise(random, x.shape, x.shape[0] / 18)
        centre = (patch_x + random.normal(0, 0.03), patch_y + random.normal(0, 0.04))
        depth = depth + 0.62 * blob(x, y, centre, 0.23, 0.5) * ragged
    if shown["Atelectasis"]:
        level = 0.30 + random.normal(0, 0.03) + 0.12 * x
        depth = depth + 0.55 * np.exp(-(((y - level) / 0.024) ** 2))
    if shown["Lung Lesion"]:
        centre = (lesion_x + random.normal(0, 0.05), lesion_y + random.normal(0, 0.06))
        depth = depth + 0.75 * ellipse_depth(x, y, centre, (0.12, 0.12)) ** 0.5
    return depth


def _device(x: Array, y: Array, path: tuple[tuple[float, float], ...]) -> Array:
    """A metal box under the skin and a lead along `path`."""
    box = soft_step(0.11 - np.abs(x - path[0][0]), 0.012) * soft_step(0.085 - np.abs(y - path[0][1]), 0.012)
    lead = np.zeros_like(x)
    for (x0, y0), (x1, y1) in itertools.pairwise(path):
        share = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2), 0, 1)
        distance = np.hypot(x - x0 - share * (x1 - x0), y - y0 - share * (y1 - y0))
        lead = np.maximum(lead, np.exp(-((distance / 0.016) ** 2)))
    return 2.2 * ndimage.gaussian_filter(np.maximum(box, lead), 0.3)
