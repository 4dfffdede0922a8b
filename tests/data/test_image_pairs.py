"""Samples: registered crops, independence of workers, batches, and what cannot be stacked."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from scanfuse.config import build
from scanfuse.data.inputs.image_pairs import ImagePairDataset, PairSettings, collate_pairs
from scanfuse.data.manifest import Manifest
from scanfuse.data.readers import write_image
from scanfuse.errors import UserError


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Six 16 x 20 pairs: ct grey, and spect in colour with the same values in its red channel."""
    random = np.random.default_rng(0)
    rows = []
    for index in range(6):
        grey = random.integers(0, 256, (16, 20), dtype=np.uint8)
        colour = np.dstack([grey, random.integers(0, 256, (16, 20, 2), dtype=np.uint8)])
        write_image(tmp_path / "ct" / f"{index}.png", grey)
        write_image(tmp_path / "spect" / f"{index}.png", colour)
        paths = [str(tmp_path / name / f"{index}.png") for name in ("ct", "spect")]
        rows.append([str(index), f"g{index // 2}", "train", "", *paths])
    columns = ["id", "group", "split", "target", "ct", "spect"]
    return Manifest(pd.DataFrame(rows, columns=columns, dtype=str), ("ct", "spect"))


def batches(dataset: ImagePairDataset, workers: int = 0) -> list[dict[str, Any]]:
    return list(DataLoader(dataset, batch_size=2, num_workers=workers, collate_fn=collate_pairs))


def test_whole_pictures(manifest: Manifest) -> None:
    dataset = ImagePairDataset(manifest)
    sample = dataset[3]
    assert sample["ct"].shape == (1, 16, 20) and sample["spect"].shape == (3, 16, 20)
    assert sample["ct"].dtype == torch.float32
    meta = sample["meta"]
    assert (meta["id"], meta["group"]) == ("3", "g1") and meta["paths"]["ct"].name == "3.png"
    np.testing.assert_array_equal(np.rint(sample["ct"][0].numpy() * 255), meta["images"]["ct"].pixels)
    assert sample["present"] == {"ct": True, "spect": True}


@pytest.mark.parametrize("crop", [8, 16, 24])
def test_crops_and_flips_stay_registered(manifest: Manifest, crop: int) -> None:
    dataset = ImagePairDataset(manifest, crop=crop, flips=True, seed=1)
    seen = set()
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for sample in (dataset[index] for index in range(len(dataset))):
            assert sample["ct"].shape == (1, crop, crop)
            torch.testing.assert_close(sample["ct"][0], sample["spect"][0], rtol=0, atol=0)
            seen.add(sample["ct"].numpy().tobytes())
    assert len(seen) > 20  # of 24 draws


def test_small_pictures_are_reflected(manifest: Manifest) -> None:
    sample = ImagePairDataset(manifest, crop=24)[0]
    pixels = sample["meta"]["images"]["ct"].pixels
    assert sample["ct"].shape == (1, 24, 24)
    padded = np.pad(pixels, ((4, 4), (2, 2)), mode="reflect")
    np.testing.assert_array_equal(np.rint(sample["ct"][0].numpy() * 255), padded)


def test_workers_and_resume_do_not_change_the_draw(manifest: Manifest) -> None:
    reference = []
    for epoch in range(3):
        dataset = ImagePairDataset(manifest, crop=8, flips=True, seed=5)
        dataset.set_epoch(epoch)
        reference.append([batch["ct"] for batch in batches(dataset)])
    assert not torch.equal(reference[0][0], reference[1][0])
    dataset = ImagePairDataset(manifest, crop=8, flips=True, seed=5, keep_images=False)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=collate_pairs, persistent_workers=True)
    for epoch in range(3):
        dataset.set_epoch(epoch)  # the workers live on and must see it
        for got, wanted in zip(loader, reference[epoch], strict=True):
            torch.testing.assert_close(got["ct"], wanted, rtol=0, atol=0)
            assert got["meta"][0]["images"] == {}


def test_without_cache_the_file_is_read_again(manifest: Manifest, tmp_path: Path) -> None:
    cached, fresh = ImagePairDataset(manifest), ImagePairDataset(manifest, cache=False)
    before = cached[0]["ct"], fresh[0]["ct"]
    write_image(tmp_path / "ct" / "0.png", np.zeros((16, 20), np.uint8))
    assert torch.equal(cached[0]["ct"], before[0])
    assert not fresh[0]["ct"].any()


def test_missing_modality(manifest: Manifest) -> None:
    table = manifest.table.copy()
    table.loc[1, "spect"] = ""
    dataset = ImagePairDataset(Manifest(table, manifest.modalities), crop=8)
    assert dataset[1]["spect"].shape == (1, 8, 8) and not dataset[1]["spect"].any()
    batch = batches(dataset)[0]
    assert batch["present"]["spect"].tolist() == [True, False] and batch["present"]["ct"].tolist() == [True, True]
    assert batch["spect"].shape == (2, 3, 8, 8)
    table.loc[1, "ct"] = ""
    with pytest.raises(UserError, match="Sample '1' has no picture of any modality"):
        ImagePairDataset(Manifest(table, manifest.modalities))[1]


def test_a_colour_slice_without_signal_joins_a_colour_batch(manifest: Manifest, tmp_path: Path) -> None:
    write_image(tmp_path / "spect" / "1.png", np.zeros((16, 20, 3), np.uint8))
    batch = batches(ImagePairDataset(manifest))[0]
    assert batch["spect"].shape == (2, 3, 16, 20) and not batch["spect"][1].any()


def test_modalities_of_different_sizes(manifest: Manifest, tmp_path: Path) -> None:
    write_image(tmp_path / "spect" / "2.png", np.zeros((16, 21, 3), np.uint8))
    with pytest.raises(UserError) as caught:
        ImagePairDataset(manifest)[2]
    assert str(caught.value) == (
        f"{tmp_path}/ct/2.png is 16 x 20 and {tmp_path}/spect/2.png is 16 x 21 pixels: "
        "the modalities of a sample must be registered and of one size; resample one of them."
    )


def test_samples_of_different_sizes(manifest: Manifest, tmp_path: Path) -> None:
    for name in ("ct", "spect"):
        write_image(tmp_path / name / "1.png", np.arange(30, dtype=np.uint8).reshape(5, 6))
    with pytest.raises(UserError) as caught:
        batches(ImagePairDataset(manifest))
    assert str(caught.value) == (
        "0 is 16 x 20 and 1 is 5 x 6 pixels: one batch needs one size; set --crop N or --batch 1."
    )
    assert batches(ImagePairDataset(manifest, crop=8))[0]["ct"].shape == (2, 1, 8, 8)


def test_crops_beyond_reason_are_refused(manifest: Manifest) -> None:
    """A bound for memory when the settings are read, and four times the picture when it is."""
    assert build(PairSettings, {"crop": 8192}).crop == 8192
    with pytest.raises(UserError, match=r"'crop' cannot be 999999: .*at most 8192 pixels a side, which are 256 MB"):
        build(PairSettings, {"crop": 999_999})
    assert ImagePairDataset(manifest, crop=80)[0]["ct"].shape == (1, 80, 80)
    with pytest.raises(UserError, match="0 is 16 x 20 pixels, too small for crops of 81: set --crop to 80 or less"):
        ImagePairDataset(manifest, crop=81)[0]


def test_targets_in_order(manifest: Manifest) -> None:
    table = manifest.table.assign(target=list("010011"))
    assert ImagePairDataset(Manifest(table, manifest.modalities)).targets == list("010011")


def test_the_layout_is_checked_against_the_listing() -> None:
    for name, hint in (("harverd", "did you mean 'harvard'"), ("mura", "choose auto, harvard, manifest, paired")):
        with pytest.raises(UserError, match=f"(?i)unknown layout '{name}'; {hint}"):
            build(PairSettings, {"layout": name})


def test_fractions_must_leave_something_to_train_on() -> None:
    assert PairSettings(val_fraction=0.2, test_fraction=0.3).fractions == pytest.approx(
        {"train": 0.5, "val": 0.2, "test": 0.3}
    )
    with pytest.raises(UserError, match="nothing to train on"):
        _ = PairSettings(val_fraction=0.5, test_fraction=0.5).fractions


@pytest.mark.parametrize("pair", ["CT", "CT-", "-MRI", "CT-MRI-PET", "CT--MRI", ""])
def test_a_pair_is_two_names(pair: str) -> None:
    with pytest.raises(ValueError, match="two modalities"):
        PairSettings(pair=pair)
    assert PairSettings(pair="SPECT-MRI").modalities == ("spect", "mri")
