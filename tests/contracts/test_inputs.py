"""What every input kind holds, run over the listing of their folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import scanfuse
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs import Fitted, Inputs
from scanfuse.data.inputs.boxed_pairs import BoxedPairs, BoxSettings
from scanfuse.data.inputs.image_pairs import ImagePairs, PairSettings
from scanfuse.data.inputs.image_table import CaseSettings, ImageTable
from scanfuse.data.inputs.labelled_images import LabelledImages, LabelledImageSettings
from scanfuse.data.inputs.labelled_volumes import LabelledVolumes, LabelledVolumeSettings
from scanfuse.data.inputs.series_table import SeriesSettings, SeriesTable
from scanfuse.data.inputs.view_pairs import ViewPairs, ViewSettings
from scanfuse.data.inputs.volumes import VolumePairs, VolumeSettings
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest
from scanfuse.data.synthetic import brats, copd, harvard, msrs, mura, pad_ufes, volume_manifest

BINARY = Labels("binary", ("0", "1"))


def _image_pairs(seed: int) -> Inputs:
    return ImagePairs(PairSettings(crop=24, flips=True), seed=seed)


def _view_pairs(seed: int) -> Inputs:
    return ViewPairs(ViewSettings(size=32, view_dropout=0.3), labels=BINARY, folds=FoldConfig(), seed=seed)


def _volumes(seed: int) -> Inputs:
    return VolumePairs(VolumeSettings(patch=12, flips=True), seed=seed)


def _boxed_pairs(seed: int) -> Inputs:
    classes = ("bicycle", "car", "person")
    return BoxedPairs(BoxSettings(size=64, rgb_dropout=0.2), classes=classes, seed=seed, epochs=20)


def _series_table(seed: int) -> Inputs:
    settings = SeriesSettings(size=32, slices=4, drop_ct=0.2, drop_table=0.2)
    return SeriesTable(settings, labels=BINARY, folds=FoldConfig(), seed=seed)


def _image_table(seed: int) -> Inputs:
    settings = CaseSettings(size=32, drop_image=0.2, drop_table=0.2)
    return ImageTable(settings, labels=BINARY, folds=FoldConfig(), seed=seed)


def _labelled_images(seed: int) -> Inputs:
    settings = LabelledImageSettings(
        inputs=("t1ce", "flair"), positives=("HGG",), slice="axial:middle", size=24, window="percentile"
    )
    return LabelledImages(settings, labels=BINARY, folds=FoldConfig(), seed=seed)


def _labelled_volumes(seed: int) -> Inputs:
    settings = LabelledVolumeSettings(inputs=("t1ce", "flair"), positives=("HGG",), size=12)
    return LabelledVolumes(settings, labels=BINARY, folds=FoldConfig(), seed=seed)


def _scans(root: Path) -> Path:
    return volume_manifest.write(root, volume_manifest.Options(patients=12, size=24))


# For every kind: made with a seed, and small data for it.
KINDS: dict[str, tuple[Callable[[int], Inputs], Callable[[Path], Path]]] = {
    "boxed_pairs": (_boxed_pairs, lambda root: msrs.write(root, msrs.Options(scenes=8, frames=2, size=64))),
    "image_pairs": (_image_pairs, lambda root: harvard.write(root, harvard.Options(cases=6, slices=2, size=40))),
    "labelled_images": (_labelled_images, _scans),
    "labelled_volumes": (_labelled_volumes, _scans),
    "volumes": (_volumes, lambda root: brats.write(root, brats.Options(patients=12, size=24))),
    "image_table": (_image_table, lambda root: pad_ufes.write(root, pad_ufes.Options(patients=30, size=40))),
    "series_table": (_series_table, lambda root: copd.write(root, copd.Options(patients=20, slices=4, size=32))),
    "view_pairs": (_view_pairs, lambda root: mura.write(root, mura.Options(patients=30, size=40))),
}
# Files of the folder that are parts of a kind.
PARTS = {
    "epochs": "image_pairs",
    "fitted_table": "image_table",
    "tabled": "image_table",
    "grids": "volumes",
    "labelled": "labelled_images",
    "layout_settings": "image_table",
    "pairing": "view_pairs",
    "perturbed": "series_table",
    "registered": "image_pairs",
    "slices": "image_pairs",
    "view_settings": "view_pairs",
}
NAMES = sorted(KINDS)


def by_hand(manifest: Manifest, sample: dict[str, Any], kind: Inputs) -> dict[str, Any]:
    """A sample of the data set as a user gives it by hand: a file per modality, or the row of a table."""
    row = manifest.table[manifest.table["id"] == sample["meta"]["id"]]
    files = sample["meta"]["paths"]
    return {
        name: files[name] if name in files else row.iloc[0].to_dict()
        for name in kind.modalities
        if sample["present"][name]
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp(name) / "data") for name, (_, write) in KINDS.items()}


def kind_and_data(name: str, folders: dict[str, Path], seed: int = 5) -> tuple[Inputs, Manifest]:
    kind = KINDS[name][0](seed)
    manifest = kind.open(folders[name])
    kind.prepare(manifest.subset("train"))
    return kind, manifest


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, whatever is nested."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return True  # meta holds pictures and paths; the tensors are what is compared


def test_every_file_of_the_folder_is_here() -> None:
    files = {path.stem for path in (Path(scanfuse.__file__).parent / "data/inputs").glob("*.py")} - {"__init__"}
    assert len(KINDS) == 8 and files == {*KINDS, *PARTS} and set(PARTS.values()) <= set(KINDS)


@pytest.mark.parametrize("name", NAMES)
def test_members_of_the_protocol(name: str, folders: dict[str, Path]) -> None:
    kind, manifest = kind_and_data(name, folders)
    members = {member for member in vars(Inputs) if not member.startswith("_")} | set(Inputs.__annotations__)
    assert members >= {"open", "check", "prepare", "restore", "dataset", "collate", "sample", "modalities"}
    assert [member for member in sorted(members) if not hasattr(kind, member)] == []
    assert len(kind.modalities) == len(set(kind.modalities)) > 0 and isinstance(kind.mixed_sizes, bool)
    assert [finding for finding in kind.check(folders[name]) if finding.severity == "error"] == []
    fitted = kind.prepare(manifest.subset("train"))
    assert isinstance(fitted, Fitted)
    kind.restore(fitted)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("train", [True, False])
def test_samples_and_batches_have_one_form(name: str, train: bool, folders: dict[str, Path]) -> None:
    kind, manifest = kind_and_data(name, folders)
    part = manifest.subset("train")
    data = kind.dataset(part, train=train)
    assert len(data) >= 4 and len(data.targets) == len(data)
    samples = [data[index] for index in range(4)]
    for sample in samples:
        assert set(sample["present"]) == set(kind.modalities)
        assert {"id", "group", "target"} <= set(sample["meta"])
        for modality in kind.modalities:
            assert isinstance(sample[modality], torch.Tensor) and torch.isfinite(sample[modality]).all()
            assert bool(sample[modality].any()) == sample["present"][modality]
    assert [sample["meta"]["target"] for sample in samples] == data.targets[:4]
    assert {sample["meta"]["group"] for sample in samples} <= set(part.table["group"])
    batch = kind.collate(samples)
    assert set(batch) == set(samples[0])
    assert batch["meta"] == [sample["meta"] for sample in samples]
    for modality in kind.modalities:
        for together, sample in zip(batch[modality], samples, strict=True):
            alone = sample[modality]  # what is shorter than others in the batch is padded with zeros
            assert torch.equal(together[: len(alone)], alone) and not together[len(alone) :].any()
        assert batch["present"][modality].tolist() == [sample["present"][modality] for sample in samples]


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_by_hand_equals_that_of_the_data_set(name: str, folders: dict[str, Path]) -> None:
    kind, manifest = kind_and_data(name, folders)
    data = kind.dataset(manifest.subset("test"), train=False)
    for index in range(len(data)):
        held = data[index]
        made = kind.sample(by_hand(manifest, held, kind), id="mine")
        assert made["meta"]["id"] == "mine" and set(made) == set(held)
        assert same({key: made[key] for key in kind.modalities}, {key: held[key] for key in kind.modalities})
        assert made["present"] == held["present"] and set(made["meta"]) == set(held["meta"])
    named = kind.sample(by_hand(manifest, held, kind))
    assert named["meta"]["id"] and named["meta"]["target"] == ""


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_and_epoch_give_the_same_batch(name: str, folders: dict[str, Path]) -> None:
    def batch(seed: int, epoch: int) -> dict[str, Any]:
        kind, manifest = kind_and_data(name, folders, seed)
        data = kind.dataset(manifest.subset("train"), train=True)
        data.set_epoch(epoch)
        return kind.collate([data[index] for index in (2, 0, 3, 1)])

    assert same(batch(1, 2), batch(1, 2))
    assert not same(batch(1, 2), batch(1, 3)) and not same(batch(1, 2), batch(2, 2))


@pytest.mark.parametrize("name", NAMES)
def test_without_a_split_the_rows_are_the_same_and_none_is_made(name: str, folders: dict[str, Path]) -> None:
    kind, manifest = kind_and_data(name, folders)
    whole = kind.open(folders[name], split=False)
    assert sorted(whole.table["id"]) == sorted(manifest.table["id"]) and "val" not in set(whole.table["split"])
