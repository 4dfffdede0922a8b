"""Pictures and volumes with a target: inputs by any name, one to four, what is missing, targets, cubes, slices."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs.labelled import LabelledDataset
from scanfuse.data.inputs.labelled_images import LabelledImages, LabelledImageSettings
from scanfuse.data.inputs.labelled_volumes import LabelledVolumes, LabelledVolumeSettings, fitted_cube
from scanfuse.data.labels import Labels
from scanfuse.data.transforms.augment import Augmentation, augment_volume
from scanfuse.data.transforms.lightbox import lightbox
from scanfuse.errors import UserError

BINARY = Labels("binary", ("0", "1"))


def pictures(root: Path, columns: dict[str, Any], count: int = 12, **table: list[str]) -> Path:
    """A manifest.csv of 8 x 8 pictures; of each column the grey value of row n is columns[name] + n."""
    root.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[str]] = {"id": [f"r{n}" for n in range(count)], "group": [f"g{n}" for n in range(count)]}
    rows["target"] = ["HGG" if n % 2 else "LGG" for n in range(count)]
    for name, grey in columns.items():
        rows[name] = [f"{name}{n}.png" for n in range(count)]
        for n in range(count):
            Image.fromarray(np.full((8, 8), grey + n, np.uint8)).save(root / f"{name}{n}.png")
    pd.DataFrame(rows | table).to_csv(root / "manifest.csv", index=False)
    return root


def images(root: Path, folds: FoldConfig = FoldConfig(), **settings: Any) -> LabelledImages:  # noqa: B008
    given = LabelledImageSettings(**{"size": 8, "positives": ("HGG",), **settings}).with_inputs(root)
    assert isinstance(given, LabelledImageSettings)
    return LabelledImages(given, labels=BINARY, folds=folds, seed=3)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_one_to_four_columns_by_any_name_are_found(count: int, tmp_path: Path) -> None:
    names = ("Fused MRI", "b", "another", "z")[:count]
    root = pictures(tmp_path, {name: 20 * place for place, name in enumerate(names, start=1)})
    kind = images(root)
    assert kind.modalities == tuple(name.lower() for name in names)
    sample = kind.dataset(kind.open(root, split=False), train=False)[3]
    for place, name in enumerate(kind.modalities, start=1):
        assert sample[name].shape == (1, 8, 8)
        torch.testing.assert_close(sample[name], torch.full((1, 8, 8), (20.0 * place + 3) / 255), rtol=0, atol=1e-3)
    assert sample["target"].tolist() == [1.0] and sample["mask"].tolist() == [True]
    assert sample["meta"]["id"] == "r3" and sample["meta"]["group"] == "g3"


def test_five_columns_of_files_must_be_chosen_from(tmp_path: Path) -> None:
    root = pictures(tmp_path, dict.fromkeys("abcde", 10), age=["50"] * 12)
    with pytest.raises(UserError, match=r"Name one to 4 columns .* --inputs; columns of files: a, b, c, d, e\."):
        images(root)
    assert images(root, inputs=("C", "e")).modalities == ("c", "e")
    with pytest.raises(UserError, match="Say which files"):
        LabelledImageSettings().with_inputs(tmp_path / "none")
    for wrong in (("a", "A"), ("",), tuple("abcde"), ("target",), ("mask",)):
        with pytest.raises(ValueError):
            LabelledImageSettings(inputs=wrong)


def test_colour_gives_three_channels(tmp_path: Path) -> None:
    root = pictures(tmp_path, {"a": 10})
    Image.fromarray(np.full((8, 8, 3), (255, 0, 51), np.uint8)).save(root / "a0.png")
    sample = (kind := images(root, colour=True)).dataset(kind.open(root, split=False), train=False)[0]
    torch.testing.assert_close(sample["a"][:, 4, 4], torch.tensor([1.0, 0.0, 0.2]), rtol=0, atol=1e-3)
    grey = (kind := images(root)).dataset(kind.open(root, split=False), train=False)[0]
    assert grey["a"].shape == (1, 8, 8)
    torch.testing.assert_close(float(grey["a"][0, 4, 4]), 0.299 + 0.114 * 0.2, rtol=0, atol=1e-3)


def test_what_is_missing_is_zeros_kept_dropped_or_refused(tmp_path: Path) -> None:
    root = pictures(tmp_path, {"a": 10, "b": 60})
    table = pd.read_csv(root / "manifest.csv", dtype=str)
    table.loc[2, "b"] = ""
    table.to_csv(root / "manifest.csv", index=False)
    names = {"inputs": ("a", "b")}
    with pytest.raises(UserError, match="no b path for id 'r2'"):
        images(root, **names).open(root)
    assert len(images(root, **names, incomplete="drop").open(root)) == 11
    kind = images(root, **names, incomplete="keep")
    manifest = kind.open(root)
    assert len(manifest) == 12
    data = kind.dataset(manifest, train=True)
    sample = data[[row.id for row in manifest.rows].index("r2")]
    assert sample["present"] == {"a": True, "b": False} and not sample["b"].any() and sample["a"].any()
    assert kind.collate([sample, data[0]])["present"]["b"].tolist() == [False, True]
    table.loc[2, "a"] = ""
    table.to_csv(root / "manifest.csv", index=False)
    manifest = kind.open(root)
    with pytest.raises(UserError, match="r2 has no file of a or b"):
        kind.dataset(manifest, train=False)[[row.id for row in manifest.rows].index("r2")]


def test_targets_count_as_one_by_name_and_folds_hold_out_every_patient_once(tmp_path: Path) -> None:
    root = pictures(tmp_path, {"a": 10}, count=20)
    with pytest.raises(UserError, match="With --positives GBM there are no two classes; targets: HGG, LGG"):
        images(root, positives=("GBM",)).open(root)
    plain = images(root, positives=())
    assert set(plain.settings.read(root, split=True).table["target"]) == {"HGG", "LGG"}
    held_out = []
    for fold in range(4):
        kind = images(root, FoldConfig(folds=4, fold=fold), test_fraction=0.0)
        manifest = kind.open(root)
        assert set(manifest.table["target"]) == {"0", "1"} and manifest.positive == "HGG"
        assert manifest.table.groupby("group")["split"].nunique().max() == 1
        held_out += list(manifest.subset("test").table["id"])
        assert set(manifest.subset("test").table["target"]) == {"0", "1"}
    assert sorted(held_out) == sorted(f"r{n}" for n in range(20))


@pytest.mark.parametrize("cache_mb", [0.0, 100.0])
def test_the_cache_changes_no_value(cache_mb: float, scans: Path) -> None:
    def dataset(size: float) -> LabelledDataset:
        settings = LabelledVolumeSettings(inputs=("t1ce",), positives=("HGG",), size=12, cache_mb=size)
        kind = LabelledVolumes(settings, labels=BINARY, folds=FoldConfig(), seed=3)
        return kind.dataset(kind.open(scans), train=True)

    one, other = dataset(cache_mb), dataset(0.0)
    for index in (0, 1, 0):
        assert torch.equal(one[index]["t1ce"], other[index]["t1ce"])


def test_a_cube_is_true_to_scale_and_keeps_the_mean() -> None:
    """20 x 10 x 5 voxels of 1 x 2 x 2 mm are 20 x 20 x 10 mm: 8 x 8 x 4 places of a cube of 8."""
    random = np.random.default_rng(0)
    volume = random.random((20, 10, 5)).astype(np.float32)
    cube = fitted_cube(volume + 1, (1.0, 2.0, 2.0), 8)
    assert cube.shape == (8, 8, 8) and not cube[..., :2].any() and not cube[..., 6:].any()
    assert (cube[..., 2:6] >= 1).all()
    assert abs(float(cube[..., 2:6].mean()) - float(volume.mean()) - 1) < 0.02
    larger = fitted_cube(np.ones((2, 2, 2), np.float32), (1.0, 1.0, 1.0), 8)
    assert (larger == 1).all()


def test_the_same_brain_in_other_voxels_is_the_same_cube(tmp_path: Path) -> None:
    volume = np.zeros((12, 12, 12), np.float32)
    volume[2:10, 3:9, 4:10] = np.random.default_rng(0).random((8, 6, 6)).astype(np.float32) + 0.5
    paths = {}
    for name, array, spacing in (("one", volume, 2.0), ("other", volume.repeat(2, 0).repeat(2, 1).repeat(2, 2), 1.0)):
        paths[name] = tmp_path / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(array, np.diag([-spacing, -spacing, spacing, 1])), paths[name])
    settings = LabelledVolumeSettings(inputs=("a",), size=8, percentiles=(0, 100))
    kind = LabelledVolumes(settings, labels=BINARY, folds=FoldConfig(), seed=0)
    one, other = (kind.sample({"a": paths[name]})["a"] for name in ("one", "other"))
    torch.testing.assert_close(one, other, rtol=0, atol=2e-3)


def test_volumes_move_together_and_by_what_is_drawn() -> None:
    volumes = torch.rand(1, 9, 9, 9).repeat(2, 1, 1, 1)
    still = Augmentation(flip=0.0, rotate_degrees=0.0, shift=0.0, scale=0.0).draw_volume(np.random.default_rng(0))
    torch.testing.assert_close(augment_volume(volumes, still), volumes)
    mirrored = Augmentation(flip=1.0, rotate_degrees=0.0, shift=0.0, scale=0.0).draw_volume(np.random.default_rng(0))
    torch.testing.assert_close(augment_volume(volumes, mirrored), volumes.flip(-1))
    moved = augment_volume(volumes, Augmentation().draw_volume(np.random.default_rng(0)))
    assert torch.equal(moved[0], moved[1]) and not torch.allclose(moved, volumes)
    shifted = np.eye(3, 4)
    shifted[2, 3] = 2 / 9  # one slice
    torch.testing.assert_close(augment_volume(volumes, shifted)[:, :-1], volumes[:, 1:], rtol=0, atol=1e-5)


def test_a_lightbox_shows_slices_in_order() -> None:
    volume = torch.arange(24.0)[:, None, None].expand(24, 2, 3)
    found = lightbox(volume)
    assert found.shape == (6, 12)
    assert found[::2, ::3].flatten().tolist() == [float(number) for number in range(1, 24, 2)]
    assert lightbox(torch.zeros(5, 7, 4, 4)).shape == (5, 12, 16)


def test_a_picture_beside_volumes_is_not_sliced_and_a_wrong_wish_is_refused(scans: Path, tmp_path: Path) -> None:
    """A table that notes slices of its volumes may hold pictures that were made of them."""
    table = pd.read_csv(scans / "manifest.csv", dtype=str).head(4)
    for name in ("t1ce", "flair"):
        table[name] = [str(scans / path) for path in table[name]]
    table["fused"] = "made.png"
    table["slice_choice"] = "axial:middle"
    Image.fromarray(np.full((24, 24), 51, np.uint8)).save(tmp_path / "made.png")
    table.to_csv(tmp_path / "manifest.csv", index=False)
    kind = images(tmp_path, inputs=("t1ce", "fused"), size=24)
    batch = kind.collate([kind.dataset(kind.open(tmp_path, split=False), train=False)[0]])
    assert batch["t1ce"].any()
    torch.testing.assert_close(batch["fused"], torch.full((1, 1, 24, 24), 0.2), rtol=0, atol=1e-3)
    pixels, placement = kind.picture(batch, "fused")
    assert pixels.shape == placement.source == (24, 24) and (pixels == 51).all()
    strict = images(tmp_path, inputs=("fused",), slice="axial:middle")
    with pytest.raises(UserError, match="is no volume and has no axial slices"):
        strict.dataset(strict.open(tmp_path, split=False), train=False)[0]


def test_faults_of_volumes_are_found(scans: Path, tmp_path: Path) -> None:
    table = pd.read_csv(scans / "manifest.csv", dtype=str)
    table["t1ce"] = [str(scans / path) for path in table["t1ce"]]
    settings = LabelledVolumeSettings(inputs=("t1ce",), positives=("HGG",), size=12)
    kind = LabelledVolumes(settings, labels=BINARY, folds=FoldConfig(), seed=0)

    def found() -> list[tuple[str, str]]:
        table[["id", "group", "split", "target", "t1ce"]].to_csv(tmp_path / "manifest.csv", index=False)
        return [(finding.severity, finding.kind) for finding in kind.check(tmp_path)]

    table["split"] = ["train"] * 8 + ["val"] * 4 + ["test"] * 4
    table["target"] = ["HGG", "LGG"] * 8
    assert found() == []
    table.loc[9, "t1ce"] = table.loc[8, "t1ce"]
    assert found() == [("warning", "duplicate")]
    table.loc[9, "t1ce"] = table.loc[0, "t1ce"]
    assert found() == [("error", "duplicate")]
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(b"no volume")
    table.loc[9, "t1ce"] = str(damaged)
    assert found() == [("error", "unreadable")]
