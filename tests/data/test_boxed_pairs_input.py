"""Boxed pairs as training sees them: every option of augmentation matters, in the part of the batch it is for."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from scanfuse.data.inputs.boxed_pairs import BoxedPairs, BoxSettings

OFF: dict[str, Any] = dict.fromkeys(
    ("mosaic", "flip", "scale", "shift", "rotate", "hue", "saturation", "value", "contrast", "brightness"), 0.0
) | {"size": 64, "close_mosaic": 0}
EPOCHS = 4


def batch(root: Path, *, train: bool = True, epoch: int = 0, seed: int = 3, **settings: object) -> dict[str, Any]:
    """Every pair of the training part."""
    kind = BoxedPairs(
        BoxSettings(**{**OFF, **settings}), classes=("bicycle", "car", "person"), seed=seed, epochs=EPOCHS
    )
    data = kind.dataset(kind.open(root).subset("train"), train=train)
    data.set_epoch(epoch)
    return kind.collate([data[index] for index in range(len(data))])


def differ(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Which of RGB, infrared and boxes are not the same."""
    pairs = {name: (one[name], other[name]) for name in ("rgb", "ir")}
    pairs["boxes"] = (one["objects"]["boxes"], other["objects"]["boxes"])
    return {name for name, (a, b) in pairs.items() if not torch.equal(a, b)}


MOVED = {"rgb", "ir", "boxes"}
OPTIONS: dict[str, tuple[float, set[str]]] = {
    "mosaic": (1.0, MOVED),
    "flip": (1.0, MOVED),
    "scale": (0.5, MOVED),
    "shift": (0.2, MOVED),
    "rotate": (20.0, MOVED),
    "hue": (0.3, {"rgb"}),
    "saturation": (0.7, {"rgb"}),
    "value": (0.4, {"rgb"}),
    "contrast": (0.3, {"ir"}),
    "brightness": (0.2, {"ir"}),
    "rgb_dropout": (1.0, {"rgb"}),
    "ir_dropout": (1.0, {"ir"}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_what_it_is_for_and_only_in_training(name: str, roads: Path) -> None:
    value, parts = OPTIONS[name]
    assert differ(batch(roads), batch(roads, **{name: value})) == parts
    assert differ(batch(roads, train=False), batch(roads, train=False, **{name: value})) == set()


def test_without_augmentation_training_sees_the_pictures_themselves(roads: Path) -> None:
    trained, plain = batch(roads), batch(roads, train=False)
    assert differ(trained, plain) <= {"rgb"}
    torch.testing.assert_close(trained["rgb"], plain["rgb"], rtol=0, atol=1e-6)  # a colour matrix of ones


def test_the_options_do_not_do_the_same(roads: Path) -> None:
    found = [batch(roads, **{name: value}) for name, (value, _) in OPTIONS.items()]
    for one, other in itertools.combinations(found, 2):
        assert differ(one, other)


def test_the_last_epochs_go_without_mosaic(roads: Path) -> None:
    plain = batch(roads)
    for epoch in range(EPOCHS):
        parts = differ(plain, batch(roads, epoch=epoch, mosaic=1.0, close_mosaic=2))
        assert parts == (MOVED if epoch < 2 else set())


def test_a_seed_and_an_epoch_draw_the_same_and_others_do_not(roads: Path) -> None:
    drawn = {"mosaic": 0.5, "flip": 0.5, "scale": 0.5, "hue": 0.1, "contrast": 0.3, "ir_dropout": 0.3}
    once = batch(roads, **drawn)
    assert differ(once, batch(roads, **drawn)) == set()
    assert differ(once, batch(roads, cache_mb=0, **drawn)) == set()
    assert differ(once, batch(roads, epoch=1, **drawn)) == MOVED
    assert differ(once, batch(roads, seed=4, **drawn)) == MOVED


def test_a_sensor_that_was_taken_away_is_zero_and_told(roads: Path) -> None:
    found = batch(roads, ir_dropout=0.5)
    gone = ~found["present"]["ir"]
    assert gone.any() and not gone.all() and found["present"]["rgb"].all()
    assert not found["ir"][gone].any() and all(bool(each.any()) for each in found["ir"][~gone])


def test_both_sensors_are_never_taken_away_at_once(roads: Path) -> None:
    found = batch(roads, rgb_dropout=0.5, ir_dropout=0.5)
    assert (found["present"]["rgb"] ^ found["present"]["ir"]).all()


@pytest.mark.parametrize("thermal", ["full", "percentile"])
def test_the_range_of_infrared_and_the_size_matter_everywhere(thermal: str, roads: Path) -> None:
    plain = batch(roads, train=False)
    assert batch(roads, train=False, size=96)["rgb"].shape[-2:] == (96, 96)
    found = differ(plain, batch(roads, train=False, thermal=thermal))
    assert found == ({"ir"} if thermal == "percentile" else set())  # of 8 bits "full" is what auto takes
