"""Pictures with a table: what becomes of a case, what may be missing, containers across processes, the layouts."""

import logging
import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs.fitted_table import read_row
from scanfuse.data.inputs.image_table import CaseSettings, ImageTable
from scanfuse.data.labels import Labels
from scanfuse.data.layouts import Request, open_manifest
from scanfuse.data.layouts.isic2024 import TRAIN_ONLY
from scanfuse.data.readers import read_image
from scanfuse.data.readers.hdf5 import Container
from scanfuse.data.synthetic import ham10000, isic2024, pad_ufes
from scanfuse.data.synthetic._lesion import draw_case, one_input
from scanfuse.data.transforms.skin import SkinAugmentation, augment_skin
from scanfuse.data.transforms.table import Table, TableSettings
from scanfuse.errors import UserError
from scanfuse.metrics.classification.ranking import auroc

BINARY = Labels("binary", ("0", "1"))


@pytest.fixture(scope="module")
def moles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty patients in the ISIC 2024 layout."""
    return isic2024.write(tmp_path_factory.mktemp("moles") / "data", isic2024.Options(patients=30, size=32, seed=1))


@pytest.fixture(scope="module")
def phones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty patients in the PAD-UFES-20 layout."""
    return pad_ufes.write(tmp_path_factory.mktemp("phones") / "data", pad_ufes.Options(patients=30, size=32, seed=1))


def kind(folds: FoldConfig | None = None, **settings: Any) -> ImageTable:
    return ImageTable(CaseSettings(**{"size": 24, **settings}), labels=BINARY, folds=folds or FoldConfig(), seed=4)


def test_what_the_picture_and_the_table_can_know() -> None:
    """The stated ceiling, against 40,000 drawn cases; together they decide every case."""
    random = np.random.default_rng(0)
    cases = np.array([draw_case(random, 0.25) for _ in range(40_000)])
    y, u, v = cases.T
    assert y.mean() == pytest.approx(0.25, abs=0.01)
    assert auroc(y, u) == pytest.approx(one_input(0.25), abs=0.01)
    assert auroc(y, v) == pytest.approx(one_input(0.25), abs=0.01)
    assert auroc(y, u + v) == 1


def test_the_official_tables(moles: Path) -> None:
    """55 and 44 columns in the official order; the eleven of the training alone are no features, with a reason."""
    train, test = (pd.read_csv(moles / f"{part}-metadata.csv", dtype=str) for part in ("train", "test"))
    assert len(train.columns) == 55 and len(test.columns) == 44
    assert set(train) - set(test) == set(TRAIN_ONLY)
    assert list(test) == [name for name in train if name in set(test)]
    case = kind()
    fitted = case.prepare(case.open(moles).subset("train"))
    features = case.table
    assert not set(features.names) & {*TRAIN_ONLY, "attribution", "tbp_tile_type", "image_type"}
    assert len(features.names) == 34 + 4  # numbers; sex, place, two locations
    assert sum(feature.kind == "categorical" for feature in features.features) == 4
    for name in TRAIN_ONLY[1:]:
        assert name in fitted.values["table"]["left_out"]
    with pytest.raises(UserError, match="'iddx_1' would give the target away: not in the published test table"):
        other = kind(table=TableSettings(columns=("age_approx", "iddx_1")))
        other.prepare(other.open(moles).subset("train"))


def test_the_test_table_is_predicted_and_not_split(moles: Path) -> None:
    case = kind()
    case.prepare(case.open(moles).subset("train"))
    test = case.open(moles / "test-metadata.csv", split=False)
    data = case.dataset(test, train=False)
    assert {row.paths["image"].name for row in test.rows} == {"test-image.hdf5"}
    sample = data[0]
    assert sample["present"] == {"image": True, "table": True} and not sample["mask"].any()
    with pytest.raises(UserError, match="has no targets"):
        case.open(moles / "test-metadata.csv")


def test_a_container_gives_what_a_folder_gives(moles: Path, tmp_path: Path) -> None:
    (tmp_path / "train-image" / "image").mkdir(parents=True)
    (tmp_path / "train-metadata.csv").write_bytes((moles / "train-metadata.csv").read_bytes())
    with h5py.File(moles / "train-image.hdf5") as file:
        for name in file:
            (tmp_path / "train-image" / "image" / f"{name}.jpg").write_bytes(file[name][()].tobytes())
    first, other = (open_manifest(root, "image_table", Request()) for root in (moles, tmp_path))
    assert list(first.table["split"]) == list(other.table["split"])
    for mine, theirs in zip(list(first.rows)[:5], list(other.rows)[:5], strict=True):
        here, there = (read_image(row.paths["image"], member=row.id) for row in (mine, theirs))
        assert np.array_equal(here.pixels, there.pixels) and here.source.name == there.source.stem


def _mean_in_worker(container: Container, names: list[str]) -> list[float]:
    return [float(container.read(name).pixels.mean()) for name in names]


def test_a_container_that_was_read_before_a_fork_is_opened_anew(moles: Path) -> None:
    path = moles / "train-image.hdf5"
    container = Container(path)
    names = sorted(container.names())[:12]
    here = _mean_in_worker(container, names)
    parent = container._file
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.starmap(_mean_in_worker, [(container, names), (container, names[::-1])])
    assert found == [here, here[::-1]]
    assert pickle.loads(pickle.dumps(container))._file is None  # a spawned worker opens its own
    assert container._file is parent
    inherited = Container(path)
    inherited._file, inherited._process = parent, container._process + 1
    assert inherited._opened() is not parent
    with pytest.raises(UserError, match="holds no picture 'ISIC_x'"):
        container.read("ISIC_x")
    with pytest.raises(UserError, match="holds many pictures"):
        read_image(path)


def test_workers_give_the_same_samples(moles: Path) -> None:
    case = kind()
    manifest = case.open(moles).subset("train")
    case.prepare(manifest)
    data = case.dataset(manifest, train=True)
    data[0]  # the parent has the container open when the workers start
    batches = [
        list(torch.utils.data.DataLoader(data, batch_size=8, num_workers=workers, collate_fn=case.collate))
        for workers in (0, 2)
    ]
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one["image"], other["image"]) and torch.equal(one["table"], other["table"])


class _Handles:
    """Of each sample read: the process, and how many handles on its container that process has opened itself."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> tuple[int, int, bool]:
        self.data[place]
        opened = [
            container for container in self.data._read.__self__._containers.values() if container._file is not None
        ]
        return os.getpid(), len(opened), all(container._process == os.getpid() for container in opened)


def test_every_worker_reads_through_one_handle_of_its_own(moles: Path) -> None:
    case = kind(cache_mb=0.0)
    manifest = case.open(moles).subset("train")
    case.prepare(manifest)
    data = case.dataset(manifest, train=True)
    data[0]
    loader = torch.utils.data.DataLoader(_Handles(data), batch_size=4, num_workers=2, collate_fn=list)
    found = [each for batch in loader for each in batch]
    assert len(found) == len(data) and len({process for process, _, _ in found}) == 2
    assert os.getpid() not in {process for process, _, _ in found}
    assert all(handles == 1 and own for _, handles, own in found)


def test_a_missing_picture_and_a_missing_table(phones: Path, tmp_path: Path) -> None:
    case = kind()
    manifest = case.open(phones)
    case.prepare(manifest.subset("train"))
    path = next(iter(manifest.rows)).paths["image"]
    alone = case.sample({"image": path})
    assert alone["present"] == {"image": True, "table": False} and not alone["table"].any()
    (tmp_path / "row.json").write_text('{"age": 71, "bleed": true, "img_id": "x.png"}')
    (tmp_path / "row.csv").write_text("age,bleed,diagnostic\n71,True,BCC\n")
    rows = [
        case.sample({"table": source})
        for source in (tmp_path / "row.json", tmp_path / "row.csv", {"age": "71", "bleed": "True"})
    ]
    assert all(row["present"] == {"image": False, "table": True} and not row["image"].any() for row in rows)
    assert torch.equal(rows[0]["table"], rows[1]["table"]) and torch.equal(rows[0]["table"], rows[2]["table"])
    assert int(rows[0]["table"][:, 1].sum()) == 2
    with pytest.raises(UserError, match="neither a picture nor a known value"):
        case.sample({"table": {"age": ""}}, id="nobody")
    (tmp_path / "two.csv").write_text("age\n1\n2\n")
    with pytest.raises(UserError, match="has 2 rows"):
        read_row(tmp_path / "two.csv")


def test_missing_pictures_are_an_error_unless_kept(tmp_path: Path) -> None:
    root = pad_ufes.write(tmp_path / "data", pad_ufes.Options(patients=20, size=24, seed=2))
    gone = [row.id for row in list(open_manifest(root, "image_table", Request()).rows)[:3]]
    for name in gone:
        (root / "images" / f"{name}.png").unlink()
    with pytest.raises(
        UserError, match=f"3 of .* cases have no picture, such as {gone[0]}.*--incomplete keep or drop"
    ):
        kind().open(root)
    case = kind(incomplete="keep")
    kept = case.open(root)
    assert any("3 of" in note and "their table alone" in note for note in kept.notes)
    case.prepare(kept.subset("train"))
    data = case.dataset(case.open(root, split=False), train=False)
    found = {data.row(index).id: data[index]["present"]["image"] for index in range(len(data))}
    assert [name for name, there in found.items() if not there] == gone
    assert len(kind(incomplete="drop").open(root)) == len(kept) - 3


def test_a_bad_cell_fails_alone(phones: Path, tmp_path: Path) -> None:
    case = kind()
    manifest = case.open(phones)
    case.prepare(manifest.subset("train"))
    table = manifest.table.copy()
    table.loc[1, "age"] = "old"
    data = case.dataset(type(manifest)(table, manifest.modalities, manifest.notes), train=False)
    with pytest.raises(UserError, match="age is 'old', but a number is expected"):
        data[1]
    assert data[0]["present"]["table"]


def test_inputs_are_dropped_in_training_alone_and_never_both(phones: Path) -> None:
    case = kind(drop_image=0.4, drop_table=0.4)
    manifest = case.open(phones).subset("train")
    case.prepare(manifest)
    data = case.dataset(manifest, train=True)
    drawn = set()
    for epoch in range(3):
        data.set_epoch(epoch)
        drawn |= {tuple(data[index]["present"].values()) for index in range(len(data))}
    assert drawn == {(True, True), (True, False), (False, True)}
    still = case.dataset(manifest, train=False)
    assert all(all(still[index]["present"].values()) for index in range(len(still)))
    with pytest.raises(ValueError, match="at most 1 together"):
        CaseSettings(drop_image=0.6, drop_table=0.6)


def test_folds_fit_their_own_table(phones: Path) -> None:
    fitted = []
    for fold in range(3):
        case = kind(FoldConfig(folds=3, fold=fold))
        fitted.append(case.prepare(case.open(phones).subset("train")).tensors["table"])
    assert not torch.equal(fitted[0], fitted[1]) and not torch.equal(fitted[1], fitted[2])


def test_a_leak_is_said_when_it_is_fitted_and_when_it_is_checked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = ham10000.write(tmp_path / "data", ham10000.Options(patients=60, size=24))
    file = root / "HAM10000_metadata.csv"
    table = pd.read_csv(file, dtype=str)
    table["ruler"] = [f"{10 * (dx in ('mel', 'bcc', 'akiec')) + n % 7}" for n, dx in enumerate(table["dx"])]
    table.to_csv(file, index=False)
    case = kind()
    with caplog.at_level(logging.INFO, logger="scanfuse"):
        case.prepare(case.open(root).subset("train"))
    assert "ruler alone tells the classes apart" in caplog.text
    assert "dx (the target itself)" in caplog.text and "dx_type (known only once" in caplog.text
    assert any("ruler alone" in finding.message for finding in case.check(root))


def test_colours_arrive(tmp_path: Path) -> None:
    """RGBA is laid on black, colour keeps its channels, grey has three equal ones."""
    pixels = np.zeros((24, 24, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 200, 255
    pixels[:12, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    case = kind()
    rows = pd.DataFrame({"age": ["1", "2", "3"]}, dtype=str)
    case.restore(Table.fit(rows, ["0", "1", "0"]).fitted())
    image = case.sample({"image": tmp_path / "a.png"})["image"]
    assert float(image[0, 20].mean()) == pytest.approx(200 / 255) and not image[1:].any() and not image[:, 3].any()
    grey = case.sample({"image": tmp_path / "grey.png"})["image"]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2]) and float(grey[0, 0, 0]) > 0.5


def test_the_augmentation_repeats_itself_and_each_part_does_something() -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    off = {"flips": False, "rotate_degrees": 0.0, "shift": 0.0, "scale": 0.0, "light": 0.0, "hue": 0.0}

    def one(seed: int, **on: Any) -> torch.Tensor:
        return augment_skin(image, SkinAugmentation(**{**off, **on}), np.random.default_rng(seed))

    assert torch.equal(one(0), image)
    for name, value in (
        ("flips", True),
        ("rotate_degrees", 20.0),
        ("shift", 0.1),
        ("scale", 0.2),
        ("light", 0.3),
        ("hue", 0.1),
        ("erase", 1.0),
    ):
        assert torch.equal(one(3, **{name: value}), one(3, **{name: value})), name
        assert len({float(one(seed, **{name: value}).double().square()[0, :9].sum()) for seed in range(6)}) > 1, name
    turned = one(5, flips=True)
    assert torch.equal(turned.flatten().sort().values, image.flatten().sort().values)
    with pytest.raises(UserError, match="negative"):
        SkinAugmentation(light=-0.1)
