"""Precision-recall curves and the confusion matrix: hand cases, and what they must have in common with the table."""

import numpy as np
import pytest
from detection_cases import golden_map, random_images, repeated

from scanfuse.metrics.detection.average_precision import average_precision
from scanfuse.metrics.detection.confusion import confusion
from scanfuse.metrics.detection.curves import precision_recall
from scanfuse.metrics.detection.inputs import checked, iou_matrix, with_sides
from scanfuse.metrics.detection.matching import match

A, B, C, FAR = [0, 0, 40, 40], [100, 0, 140, 40], [200, 0, 240, 40], [300, 300, 340, 340]


def test_a_curve_by_hand() -> None:
    """Right, wrong, right, of three objects."""
    matches = match([checked([A, FAR, B], [0.9, 0.8, 0.7], [0, 0, 0], [A, B, C], [0, 0, 0])], 1)
    curve = precision_recall(matches, 0)
    assert curve.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.score.tolist() == [0.9, 0.8, 0.7]
    assert curve.at_recalls[[0, 33, 34, 66, 67, 100]].tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3, 0, 0])
    f1, score = curve.best_f1()
    assert f1 == pytest.approx(2 / 3) and score == 0.7


@pytest.mark.parametrize("name", ["plain", "crowd"])
def test_the_mean_of_a_curve_is_the_average_precision(name: str) -> None:
    matches = match(golden_map(name)[0], 3)
    table = average_precision(matches).precision[0]
    for label in range(3):
        for area_row, area in enumerate(matches.areas):
            for level_row, level in enumerate(matches.thresholds):
                curve = precision_recall(matches, label, iou=level, area=area)
                assert curve.at_recalls.mean() == pytest.approx(table[label, area_row, level_row], abs=1e-12)


def test_curves_without_anything() -> None:
    empty = precision_recall(match([checked([A], [0.5], [0], [], [])], 1), 0)
    assert empty.recall.size == empty.at_recalls.size == 0 and np.isnan(empty.best_f1()[0])
    missed = precision_recall(match([checked([], [], [], [A], [0])], 1), 0)
    assert missed.recall.size == 0 and missed.at_recalls.tolist() == [0.0] * 101
    wrong = precision_recall(match([checked([FAR], [0.5], [0], [A], [0])], 1), 0)
    assert wrong.best_f1()[0] == 0
    with pytest.raises(ValueError, match=r"IoU 0\.3 and area 'all' were not matched"):
        precision_recall(match([], 1), 0, iou=0.3)


def test_a_matrix_by_hand() -> None:
    """Class 0 found, class 0 taken for 1, class 1 missed, a stray of class 1, a low score, one in a crowd."""
    image = checked(
        [A, B, FAR, C, [500, 500, 520, 520]],
        [0.9, 0.8, 0.7, 0.1, 0.6],
        [0, 1, 1, 1, 0],
        [A, B, C, [450, 450, 600, 600]],
        [0, 0, 1, 0],
        [False, False, False, True],
    )
    matches = match([image], 2)
    assert confusion(matches)[0].tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert confusion(matches, confidence=0.05)[0].tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert confusion(matches, confidence=1.1)[0].tolist() == [[0, 0, 2], [0, 0, 1], [0, 0, 0]]
    assert confusion(matches, weights=[[2], [0]]).sum(axis=(1, 2)).tolist() == [8, 0]
    assert not confusion(match([], 2))[0].any()


def slow_matrix(images: list, num_classes: int, confidence: float) -> np.ndarray:
    counts = np.zeros((num_classes + 1, num_classes + 1))
    for image in images:
        kept = [d for d in np.argsort(-image.scores, kind="stable") if image.scores[d] >= confidence]
        truth = [t for t in range(len(image.true_boxes)) if not image.ignored[t]]
        free = set(truth)
        boxes, true = with_sides(image.boxes), with_sides(image.true_boxes)
        fit = iou_matrix(boxes, true)
        cover = iou_matrix(boxes, true, np.ones(len(true), bool))
        for d in kept:
            can = [t for t in free if fit[d, t] >= 0.5]
            if can:
                best = max(can, key=lambda t: (fit[d, t], image.true_classes[t] == image.classes[d]))
                free.remove(best)
                counts[image.true_classes[best], image.classes[d]] += 1
            elif not any(image.ignored[t] and cover[d, t] >= 0.5 for t in range(len(true))):
                counts[num_classes, image.classes[d]] += 1
        for t in free:
            counts[image.true_classes[t], num_classes] += 1
    return counts


@pytest.mark.parametrize("confidence", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_equals_a_slow_matrix_at_any_confidence(seed: int, confidence: float) -> None:
    images = random_images(seed)
    matches = match(images, 3)
    assert confusion(matches, confidence=confidence)[0].tolist() == slow_matrix(images, 3, confidence).tolist()
    times = np.random.default_rng(seed).integers(0, 3, len(images))
    weighted = confusion(matches, confidence=confidence, weights=times)[0]
    assert weighted.tolist() == slow_matrix(repeated(images, times), 3, confidence).tolist()
