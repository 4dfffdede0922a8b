"""Made-up bone X-rays in the MURA v1.1 layout: seven body parts in two projections, of patients that never lived.

Odd images of a study are frontal, even ones lateral projections. The sign of the abnormal class is a displaced
fracture of the main bone, the shadow a dense island in it; `_evidence` says how they are spread over the views, so
that the best single view reaches an area of 0.77 under the ROC curve and both views 1.0. Nothing here is fit for a
medical statement.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from scanfuse.config import Section
from scanfuse.data.layouts.mura import PARTS
from scanfuse.data.synthetic._evidence import Evidence, draw
from scanfuse.data.synthetic._film import (
    Array,
    capsule,
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

__all__ = ["FACTS", "MadeStudy", "Options", "render", "studies", "write"]

FACTS = Facts(
    counted="patients",
    seconds=0.02,
    trained="xfmamba --preset tiny: test AUROC 0.93 in 4.5 minutes on two CPU cores",
)

Point = tuple[float, float]
Bone = tuple[Point, Point, float, float]
"""Start, stop, radius at either end. The first bone of a projection is the main one."""


class Options(Section):
    """How many patients, how large, and of which parts."""

    patients: int = Field(1600, ge=5, le=99_999, description="patients, one in five of them in the valid set")
    size: int = Field(96, ge=32, le=2048, description="side of the longer edge in pixels; up to a fifth narrower")
    seed: int = Field(0, ge=0, description="seed of everything")
    parts: tuple[str, ...] = Field(PARTS, min_length=1, description="body parts, of the seven")

    @field_validator("parts")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            if part not in PARTS:
                raise ValueError(f"the body parts are {', '.join(PARTS)}")
        return value


@dataclass(frozen=True)
class MadeStudy:
    """One study: number of the patient and of his study (from 1), what is shown, and the pictures in order."""

    patient: int
    number: int
    part: str
    is_positive: bool
    evidence: Evidence
    pictures: list[Array]


def studies(options: Options) -> Iterator[MadeStudy]:
    """All studies, patient by patient.

    About 1.25 studies a patient, half of them abnormal; 10 % have one image, 15 % three, 5 % four, the others two.
    """
    for patient in range(1, options.patients + 1):
        random = np.random.default_rng([options.seed, patient])
        for number in range(1, 2 + int(random.random() < 0.25)):
            part = str(random.choice(list(options.parts)))
            positive = bool(random.random() < 0.5)
            count = int(random.choice([1, 2, 3, 4], p=[0.1, 0.7, 0.15, 0.05]))
            evidence = draw(random, positive, only="a" if count == 1 else None)
            pictures = render(part, evidence, count=count, size=options.size, random=random)
            yield MadeStudy(patient, number, part, positive, evidence, pictures)


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/MURA-v1.1 with its four header-less csv files; one patient in five is in the valid set.

    The same options give the same bytes. <root>/truth.csv says what each study shows; it is no part of the layout.

    Args:
        root: folder; made where it is missing.
        options: see `Options`.

    Returns:
        `root`.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    listed: dict[str, list[str]] = {"train": [], "valid": []}
    images: dict[str, list[str]] = {"train": [], "valid": []}
    truth = ["study,label,sign_a,sign_b,shadow_a,shadow_b"]
    for study in studies(options):
        published = "valid" if study.patient % 5 == 0 else "train"
        name = "positive" if study.is_positive else "negative"
        label = int(study.is_positive)
        folder = f"MURA-v1.1/{published}/XR_{study.part}/patient{study.patient:05d}/study{study.number}_{name}"
        listed[published].append(f"{folder}/,{label}")
        shown = [int(value) for value in (label, *study.evidence.sign, *study.evidence.shadow)]
        truth.append(",".join([f"{study.part}-patient{study.patient:05d}-study{study.number}", *map(str, shown)]))
        for image, pixels in enumerate(study.pictures, start=1):
            path = f"{folder}/image{image}.png"
            images[published].append(path)
            save(root / path, encoded(pixels, "PNG"))
    for published in ("train", "valid"):
        write_text(root / f"MURA-v1.1/{published}_labeled_studies.csv", "\n".join(listed[published]) + "\n")
        write_text(root / f"MURA-v1.1/{published}_image_paths.csv", "\n".join(images[published]) + "\n")
    write_text(root / "truth.csv", "\n".join(truth) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up bones, no patients: {options.patients} numbers, size {options.size}, seed {options.seed}, "
        "in the layout of MURA v1.1.\nWritten by ScanFuse. Not for any medical statement.\n",
    )
    return root


def render(part: str, evidence: Evidence, *, count: int, size: int, random: np.random.Generator) -> list[Array]:
    """`count` pictures of one study, uint8 (h, w): frontal, lateral, frontal, lateral."""
    level = random.uniform(0.35, 0.65)  # of sign and shadow along the main bone, the same in all views
    apart = level + random.choice([-1, 1]) * 0.22
    build = random.uniform(0.9, 1.12)
    pictures = []
    for index in range(count):
        view = index % 2
        narrow = int(size * random.uniform(0.8, 1.0))
        pictures.append(
            _picture(
                _PARTS[part][view],
                sign=level if evidence.sign[view] else None,
                shadow=apart if evidence.shadow[view] else None,
                shape=(size, narrow),
                build=build,
                random=random,
            )
        )
    return pictures


def _picture(
    bones: Sequence[Bone],
    *,
    sign: float | None,
    shadow: float | None,
    shape: tuple[int, int],
    build: float,
    random: np.random.Generator,
) -> Array:
    x, y = grid(*shape)
    turn, zoom = np.radians(random.normal(0, 6)), random.uniform(0.93, 1.08)
    cos, sin = np.cos(turn) / zoom, np.sin(turn) / zoom
    x, y = x - random.normal(0, 0.04), y - random.normal(0, 0.04)
    x, y = cos * x + sin * y, -sin * x + cos * y
    warp = 0.012 * smooth_noise(random, shape, shape[0] / 6)
    x, y = x + warp, y - warp
    flesh = np.zeros(shape)
    for start, stop, first, last in bones:
        _, reach = capsule(x, y, start, stop, (first * 1.25 + 0.12, last * 1.25 + 0.12))
        flesh = np.maximum(flesh, np.sqrt(np.clip(1 - reach**2, 0, None)))
    depth = 0.30 * flesh * (1 + 0.05 * smooth_noise(random, shape, shape[0] / 12))
    texture = 1 + 0.10 * smooth_noise(random, shape, shape[0] / 70)
    for index, bone in enumerate(bones):
        main = index == 0
        depth = depth + build * texture * _bone(x, y, bone, sign if main else None, shadow if main else None, random)
    picture = expose(random, depth, gain=random.uniform(0.85, 1.15), noise=random.uniform(0.01, 0.02))
    picture = _lead_letter(picture, random)
    return np.rint(picture * 255).astype(np.uint8)


def _bone(
    x: Array, y: Array, bone: Bone, sign: float | None, shadow: float | None, random: np.random.Generator
) -> Array:
    """A tube of dense cortex around spongy bone, with wider, thinner-walled ends; a fracture, an island."""
    start, stop, first, last = bone
    length = float(np.hypot(stop[0] - start[0], stop[1] - start[1]))
    ux, uy = (stop[0] - start[0]) / length, (stop[1] - start[1]) / length
    radius = (first + last) / 2
    along = (x - start[0]) * ux + (y - start[1]) * uy
    across = -(x - start[0]) * uy + (y - start[1]) * ux
    gap = np.ones_like(x)
    if sign is not None:
        # An oblique break; what lies beyond it is pushed sideways and a little turned.
        plane = along - sign * length - random.choice([-1, 1]) * random.uniform(0.2, 0.6) * across
        step = random.choice([-1, 1]) * random.uniform(0.7, 1.0) * max(radius, 0.1)
        beyond = soft_step(plane, 0.01)
        x, y = x + uy * step * beyond, y - ux * step * beyond
        gap = 1 - 0.95 * np.exp(-((plane / 0.05) ** 2))
    share, reach = capsule(x, y, start, stop, (first, last))
    # Ends flare towards the joints and hold spongy bone; round bones (carpals, heads) are all end.
    end = np.exp(-((share / 0.10) ** 2)) + np.exp(-(((1 - share) / 0.10) ** 2))
    if length < 2 * radius:
        end = np.ones_like(end)
    reach = reach / (1 + (0.28 if length >= 2 * radius else 0.05) * end)
    wall = 0.66 + 0.26 * end
    outer = np.sqrt(np.clip(1 - reach**2, 0, None))
    inner = np.sqrt(np.clip(wall**2 - reach**2, 0, None))
    depth = (1.6 * (outer - inner) + 0.32 * inner) * gap
    if shadow is not None:
        # Bones that leave the picture still show the island inside it.
        ends = sorted([(-0.7 - start[1]) / (uy * length), (0.7 - start[1]) / (uy * length)])
        shadow = min(max(shadow, ends[0]), ends[1])
        place = (start[0] + ux * shadow * length, start[1] + uy * shadow * length)
        depth = depth + 1.8 * ellipse_depth(x, y, place, (max(0.95 * radius, 0.12),) * 2)
    return depth


def _lead_letter(picture: Array, random: np.random.Generator) -> Array:
    """The side marker of a film: a small bright L or R near a corner, on either class alike."""
    height, width = picture.shape
    tall = max(5, height // 16)
    wide = max(3, tall // 2)
    top = int(random.integers(2, max(3, height // 8)))
    left = int(random.integers(2, max(3, width // 8)))
    if random.random() < 0.5:
        left = width - left - wide
    picture = picture.copy()
    picture[top : top + tall, left : left + max(1, wide // 3)] = 0.97
    if random.random() < 0.5:
        picture[top + tall - max(1, wide // 3) : top + tall, left : left + wide] = 0.97
    else:
        picture[top : top + tall // 2, left : left + wide] = 0.97
    return picture


def _finger(x: float, knuckle: float, tip: float, spread: float, radius: float) -> list[Bone]:
    """Metacarpal and three phalanges, upwards."""
    joints = [knuckle, *np.linspace(knuckle, tip, 6)[[2, 4, 5]]]
    places = [(x + spread * (knuckle + 0.45 - level), level) for level in [knuckle + 0.62, *joints]]
    bones = []
    for index, (low, high) in enumerate(itertools.pairwise(places)):
        r = radius * (1 - 0.14 * index)
        bones.append(((low[0], low[1] - 0.05), (high[0], high[1] + 0.05), r, r * 0.9))
    return [(a, b, float(r), float(s)) for a, b, r, s in bones]


def _hand(overlap: float) -> list[Bone]:
    fingers = [
        _finger(0.06 * overlap, 0.12, -0.86, 0.02, 0.085),
        _finger(-0.22 * overlap, 0.16, -0.76, -0.12, 0.075),
        _finger(0.32 * overlap, 0.15, -0.74, 0.14, 0.075),
        _finger(0.54 * overlap, 0.24, -0.52, 0.30, 0.065),
    ]
    thumb: list[Bone] = [
        ((-0.34 * overlap, 0.62), (-0.66, 0.28), 0.08, 0.07),
        ((-0.69, 0.23), (-0.84, -0.06), 0.065, 0.055),
    ]
    return [*(bone for finger in fingers for bone in finger), *thumb, *_carpals(overlap, 0.76)]


def _carpals(overlap: float, level: float) -> list[Bone]:
    places = [(-0.24, 0.0), (-0.06, -0.02), (0.12, -0.02), (0.28, 0.02), (-0.17, 0.15), (0.02, 0.15), (0.2, 0.16)]
    return [((overlap * x - 0.015, level + y), (overlap * x + 0.015, level + y), 0.085, 0.085) for x, y in places]


_WRIST: tuple[list[Bone], list[Bone]] = (
    [
        ((-0.16, 1.1), (-0.20, 0.02), 0.13, 0.20), ((0.28, 1.1), (0.30, 0.10), 0.10, 0.11), *_carpals(1.1, -0.24),
        ((-0.24, -0.42), (-0.36, -1.0), 0.085, 0.08), ((-0.02, -0.44), (-0.06, -1.05), 0.085, 0.08),
        ((0.2, -0.42), (0.22, -1.05), 0.075, 0.07), ((0.38, -0.38), (0.46, -1.0), 0.07, 0.065),
    ],
    [
        ((-0.04, 1.1), (-0.02, 0.02), 0.13, 0.18), ((0.08, 1.1), (0.10, 0.08), 0.10, 0.10), *_carpals(0.45, -0.24),
        ((-0.06, -0.42), (-0.08, -1.05), 0.085, 0.08), ((0.04, -0.42), (0.06, -1.05), 0.08, 0.075),
    ],
)  # fmt: skip
_ELBOW: tuple[list[Bone], list[Bone]] = (
    [
        ((0.0, -1.15), (0.02, -0.14), 0.14, 0.22), ((-0.16, 0.10), (-0.20, 1.15), 0.15, 0.11),
        ((0.18, 0.12), (0.20, 1.15), 0.11, 0.11),
    ],
    [
        ((-0.28, -1.15), (-0.20, 0.12), 0.14, 0.18), ((-0.10, 0.38), (1.1, 0.44), 0.15, 0.10),
        ((0.06, 0.24), (1.1, 0.22), 0.11, 0.10),
    ],
)  # fmt: skip
_FOREARM: tuple[list[Bone], list[Bone]] = (
    [
        ((-0.17, -0.82), (-0.17, 0.80), 0.10, 0.15), ((0.19, -0.88), (0.17, 0.76), 0.14, 0.09),
        ((0.0, -1.3), (0.02, -1.02), 0.16, 0.24), ((-0.08, 0.98), (0.08, 1.0), 0.12, 0.12),
    ],
    [
        ((0.08, -0.80), (0.04, 0.80), 0.10, 0.14), ((-0.10, -0.88), (-0.06, 0.78), 0.14, 0.09),
        ((0.75, -1.0), (0.12, -0.98), 0.14, 0.17), ((-0.02, 0.98), (0.06, 1.0), 0.12, 0.12),
    ],
)  # fmt: skip
_HUMERUS: tuple[list[Bone], list[Bone]] = (
    [
        ((0.06, -0.70), (0.0, 0.78), 0.17, 0.16), ((-0.12, -0.80), (-0.04, -0.74), 0.20, 0.20),
        ((-0.85, -0.95), (-0.34, -0.88), 0.06, 0.10), ((0.14, 1.02), (0.16, 1.3), 0.12, 0.12),
        ((-0.14, 1.0), (-0.14, 1.3), 0.13, 0.12),
    ],
    [
        ((0.0, -0.72), (0.05, 0.78), 0.16, 0.15), ((0.02, -0.82), (0.04, -0.76), 0.19, 0.19),
        ((0.06, 1.0), (0.75, 1.12), 0.14, 0.11),
    ],
)  # fmt: skip
_SHOULDER: tuple[list[Bone], list[Bone]] = (
    [
        ((0.30, -0.24), (0.44, 1.15), 0.19, 0.15), ((0.16, -0.34), (0.22, -0.28), 0.23, 0.23),
        ((-0.95, -0.72), (0.22, -0.74), 0.07, 0.08), ((-0.30, -0.46), (-0.26, 0.30), 0.09, 0.05),
        ((-0.30, -0.40), (-0.62, 0.62), 0.07, 0.05), ((-1.0, -0.30), (-0.62, 0.02), 0.045, 0.045),
        ((-1.0, 0.05), (-0.64, 0.34), 0.045, 0.045), ((-1.0, 0.42), (-0.70, 0.66), 0.045, 0.045),
    ],
    [
        ((0.06, -0.26), (0.16, 1.15), 0.18, 0.15), ((0.02, -0.34), (0.08, -0.30), 0.22, 0.22),
        ((0.02, -0.3), (-0.42, 0.80), 0.05, 0.05), ((0.02, -0.34), (0.46, -0.66), 0.06, 0.07),
        ((0.0, -0.36), (-0.34, -0.70), 0.06, 0.07), ((-0.95, -0.25), (-0.45, 0.15), 0.045, 0.045),
        ((-0.95, 0.15), (-0.5, 0.5), 0.045, 0.045),
    ],
)  # fmt: skip
_FINGER: tuple[list[Bone], list[Bone]] = (
    [
        ((0.0, 0.62), (0.0, -0.12), 0.15, 0.12), ((0.0, -0.26), (0.02, -0.62), 0.11, 0.10),
        ((0.02, -0.74), (0.03, -0.96), 0.095, 0.06), ((0.0, 1.3), (0.0, 0.80), 0.15, 0.17),
    ],
    [
        ((-0.10, 0.62), (0.02, -0.12), 0.13, 0.10), ((0.05, -0.25), (0.02, -0.62), 0.095, 0.085),
        ((0.0, -0.73), (-0.06, -0.95), 0.08, 0.05), ((-0.16, 1.3), (-0.13, 0.80), 0.14, 0.15),
    ],
)  # fmt: skip
_PARTS: dict[str, tuple[list[Bone], list[Bone]]] = {
    "ELBOW": _ELBOW,
    "FINGER": _FINGER,
    "FOREARM": _FOREARM,
    "HAND": (_hand(1.0), _hand(0.35)),
    "HUMERUS": _HUMERUS,
    "SHOULDER": _SHOULDER,
    "WRIST": _WRIST,
}
