"""Boxes for the tests of detection metrics: the golden sets, and random ones with everything that may occur."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scanfuse.metrics.detection.inputs import ImageBoxes, checked

GOLDEN = Path(__file__).parents[2] / "golden"


def corners(xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def golden_map(name: str) -> tuple[list[ImageBoxes], dict[str, float]]:
    """The set "plain" or "crowd" and its published table."""
    with np.load(GOLDEN / "detection_map.npz") as file:
        g = {key.removeprefix(f"{name}_"): file[key] for key in file.files if key.startswith(name)}
    stats = json.loads((GOLDEN / "detection_map.json").read_text())["stats"][name]
    images = []
    for number in range(20):
        d, t = g["det_image"] == number, g["gt_image"] == number
        found = corners(g["det_xywh"][d]), g["det_score"][d], g["det_label"][d] - 1
        images.append(checked(*found, corners(g["gt_xywh"][t]), g["gt_label"][t] - 1, g["gt_iscrowd"][t]))
    return images, stats


def golden_misses(prefix: str, count: int, ignored: str) -> list[ImageBoxes]:
    """One of the sets of miss_rate.npz; `ignored` names the flags."""
    with np.load(GOLDEN / "miss_rate.npz") as file:
        g = dict(file.items())
    return [
        of_image(g, prefix, number, g[prefix + ignored][g[f"{prefix}gt_image"] == number]) for number in range(count)
    ]


def of_image(g: Mapping[str, np.ndarray], prefix: str, number: int, ignored: np.ndarray) -> ImageBoxes:
    d, t = g[f"{prefix}det_image"] == number, g[f"{prefix}gt_image"] == number
    zeros = np.zeros(d.sum(), int), np.zeros(t.sum(), int)
    found = corners(g[f"{prefix}det_xywh"][d]), g[f"{prefix}det_score"][d], zeros[0]
    return checked(*found, corners(g[f"{prefix}gt_xywh"][t]), zeros[1], ignored)


def random_images(seed: int, count: int = 12, *, crowds: bool = True) -> list[ImageBoxes]:
    """Three classes, the last rare; doubles, strays, wrong classes, ignored objects, empty images; no ties."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        m = 0 if number % 5 == 4 else int(rng.integers(0, 9))
        first = rng.random((m, 2)) * 500
        true = np.concatenate([first, first + np.exp(rng.uniform(1.5, 5.5, (m, 2)))], axis=1)
        labels = np.minimum(rng.integers(0, 7, m) // 3, 2)
        near = np.repeat(true, 2, axis=0)
        sides = np.tile(near[:, 2:] - near[:, :2], 2)
        near = near + rng.normal(0, 0.08, near.shape) * sides
        stray = rng.random((6, 2)) * 500
        stray = np.concatenate([stray, stray + np.exp(rng.uniform(1.5, 5.5, (6, 2)))], axis=1)
        boxes = np.concatenate([near, stray])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        classes = np.concatenate([np.repeat(labels, 2), rng.integers(0, 3, 6)])
        wrong = rng.random(len(classes)) < 0.15
        classes[wrong] = rng.integers(0, 3, wrong.sum())
        scores = rng.random(len(boxes)) * np.where(np.arange(len(boxes)) < 2 * m, 1, 0.7)
        ignored = (rng.random(m) < 0.15) & crowds
        images.append(checked(boxes, scores, classes, true, labels, ignored))
    return images


def repeated(images: list[ImageBoxes], times: np.ndarray) -> list[ImageBoxes]:
    """Every image as often as its weight says."""
    return [image for image, count in zip(images, times.astype(int), strict=True) for _ in range(count)]
