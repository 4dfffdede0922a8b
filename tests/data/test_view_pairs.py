"""Samples of two views: same movement, right geometry, missing views, quantised cache, and crops."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from opening import open_studies
from scanfuse.config import build
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs.view_pairs import VIEWS, ViewDataset, ViewPairs, ViewSettings, collate_views, view_sample
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest
from scanfuse.data.readers import read_image, write_image
from scanfuse.data.readers.image import finish
from scanfuse.data.synthetic import cbis_ddsm, mura
from scanfuse.data.transforms.augment import Augmentation, augment
from scanfuse.data.transforms.letterbox import Letterbox, body_box, letterbox
from scanfuse.data.transforms.placement import place
from scanfuse.errors import UserError


def grid_image(height: int, width: int, step: int = 8) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.where((rows // step + columns // step) % 2 == 0, 220, 40).astype(np.uint8)


def manifest_of(folder: Path, studies: list[dict[str, np.ndarray]], targets: list[str] | None = None) -> Manifest:
    """Studies of made arrays; slots in the order of first appearance."""
    slots = list(dict.fromkeys(slot for study in studies for slot in study))
    rows = []
    for number, study in enumerate(studies):
        paths = {}
        for slot, pixels in study.items():
            paths[slot] = str(folder / f"{number}_{slot}.png")
            write_image(paths[slot], pixels)
        target = (targets or ["0", "1"] * len(studies))[number]
        rows.append({"id": f"s{number}", "group": f"p{number}", "split": "train", "target": target}
                    | {slot: paths.get(slot, "") for slot in slots})  # fmt: skip
    return Manifest(pd.DataFrame(rows, dtype=str), tuple(slots))


@pytest.fixture
def pairs(tmp_path: Path) -> Manifest:
    image = grid_image(64, 64)
    return manifest_of(tmp_path, [{"frontal": image, "lateral": image} for _ in range(6)])


def test_both_views_move_alike_and_as_the_matrix_says(pairs: Manifest) -> None:
    movement = Augmentation(flip=0.5, rotate_degrees=30, shift=0.1, scale=0.2)
    data = ViewDataset(pairs, letterbox=Letterbox(64), augmentation=movement, seed=3)
    plain = ViewDataset(pairs, letterbox=Letterbox(64))
    for index in range(len(data)):
        sample = data[index]
        torch.testing.assert_close(sample["view_a"], sample["view_b"], rtol=0, atol=0)
        matrix = movement.draw(_after_dropout(3, 0, index))
        wanted = _nearest(plain[index]["view_a"][0].numpy(), matrix)
        # Bicubic and nearest differ at the edges of the cells, and by little beside them.
        assert np.mean(np.abs(sample["view_a"][0].numpy() - wanted) < 0.1) > 0.75
        assert not torch.allclose(sample["view_a"], plain[index]["view_a"], atol=0.05)


def _after_dropout(seed: int, epoch: int, index: int) -> np.random.Generator:
    random = np.random.default_rng([seed, epoch, index])
    random.random()  # the draw of the view dropout comes first
    return random


def _nearest(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    size = image.shape[0]
    rows, columns = np.mgrid[:size, :size]
    centres = np.stack([(2 * columns + 1) / size - 1, (2 * rows + 1) / size - 1, np.ones((size, size))])
    x, y = np.einsum("ij,jrc->irc", matrix, centres)
    i, j = (np.floor((value + 1) * size / 2).astype(int) for value in (y, x))
    inside = (i >= 0) & (i < size) & (j >= 0) & (j < size)
    return np.where(inside, image[i.clip(0, size - 1), j.clip(0, size - 1)], 0)


def test_movements_by_hand() -> None:
    views = torch.rand(2, 16, 16, generator=torch.manual_seed(0))
    still = Augmentation(flip=0, rotate_degrees=0, shift=0, scale=0).draw(np.random.default_rng(0))
    torch.testing.assert_close(augment(views, still), views, rtol=0, atol=1e-5)
    mirrored = Augmentation(flip=1, rotate_degrees=0, shift=0, scale=0).draw(np.random.default_rng(0))
    torch.testing.assert_close(augment(views, mirrored), views.flip(2), rtol=0, atol=1e-5)
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(augment(views, quarter), views.rot90(1, (1, 2)), rtol=0, atol=1e-5)
    shifted = augment(views, np.array([[1.0, 0.0, 2 * 3 / 16], [0.0, 1.0, 0.0]]))
    torch.testing.assert_close(shifted[:, :, :13], views[:, :, 3:], rtol=0, atol=1e-5)
    assert not shifted[:, :, 13:].any()


def test_a_movement_keeps_most_of_the_fine_detail() -> None:
    """Grain, the hardest case, shifted by half a pixel: cubic interpolation keeps 0.72 of its variance, linear 0.5.

    Weights at one half: (-3, 19, 19, -3) / 32 of the cubic kernel with a = -0.75; the sum of their squares is
    (18 + 722) / 1024 = 0.72 in one direction. At whole pixels nothing is lost.
    """
    grain = 0.5 + 0.1 * torch.randn(1, 128, 128, generator=torch.manual_seed(0)).clamp_(-4, 4)
    half = augment(grain, np.array([[1.0, 0.0, 1 / 128], [0.0, 1.0, 0.0]]))[:, 8:-8, 8:-8]
    assert float(half.var() / grain.var()) == pytest.approx(0.72, abs=0.03)


def test_what_is_drawn_depends_on_seed_epoch_and_index_alone(pairs: Manifest) -> None:
    def views(seed: int, epoch: int, order: list[int], cache: float = 512) -> dict[int, torch.Tensor]:
        data = ViewDataset(
            pairs, letterbox=Letterbox(32), augmentation=Augmentation(), view_dropout=0.5, seed=seed, cache_mb=cache
        )
        data.set_epoch(epoch)
        return {index: torch.cat([data[index][name] for name in VIEWS]) for index in order}

    first = views(1, 2, [0, 1, 2, 3, 4, 5])
    again = views(1, 2, [5, 3, 1, 0, 2, 4], cache=0)
    assert all(torch.equal(first[index], again[index]) for index in range(6))
    for other in (views(2, 2, [0]), views(1, 3, [0])):
        assert not torch.equal(first[0], other[0])


def test_view_dropout_takes_either_view_and_never_both(tmp_path: Path) -> None:
    image = grid_image(16, 16)
    studies = [{"frontal": image, "lateral": image} for _ in range(80)] + [{"frontal": image}]
    data = ViewDataset(manifest_of(tmp_path, studies), letterbox=Letterbox(16), view_dropout=0.5, seed=0)
    found = [tuple(data[index]["present"].values()) for index in range(80)]
    assert set(found) == {(True, True), (True, False), (False, True)}
    assert 25 <= found.count((True, True)) <= 55 and abs(found.count((True, False)) - found.count((False, True))) < 20
    alone = data[80]
    assert alone["present"] == {"view_a": True, "view_b": False} and not alone["view_b"].any()
    dropped = next(data[index] for index in range(80) if found[index] == (False, True))
    assert not dropped["view_a"].any() and set(dropped["meta"]["placements"]) == {"view_b"}


def test_a_lone_lateral_stands_in_the_second_place(tmp_path: Path) -> None:
    image = grid_image(16, 16)
    manifest = manifest_of(tmp_path, [{"frontal": image, "lateral": image}, {"lateral": image}])
    sample = ViewDataset(manifest, letterbox=Letterbox(16))[1]
    assert sample["present"] == {"view_a": False, "view_b": True}
    assert sample["meta"]["views"] == (None, "lateral") and sample["view_b"].any()


def test_studies_of_many_views_give_pairs_or_one_pair_each(tmp_path: Path) -> None:
    images = [np.full((16, 16), 40 * number, np.uint8) for number in range(1, 5)]
    slots = ["view", "view_2", "view_3", "view_4"]
    studies = [dict(zip(slots, images, strict=True)), {"view": images[0]}]
    manifest = manifest_of(tmp_path, studies)
    data = ViewDataset(manifest, letterbox=Letterbox(16))
    assert (
        len(data) == 7 and [pair.study for pair in data.pairs] == [0] * 6 + [1] and data.targets == ["0"] * 6 + ["1"]
    )
    assert len({data[index]["meta"]["id"] for index in range(7)}) == 7
    one = ViewDataset(manifest, letterbox=Letterbox(16), one_per_study=True, seed=4)
    assert len(one) == 2
    seen = set()
    for epoch in range(40):
        one.set_epoch(epoch)
        seen.add(one[0]["meta"]["views"])
    assert len(seen) == 6
    itself = ViewDataset(manifest, letterbox=Letterbox(16), single="self")[6]
    assert torch.equal(itself["view_a"], itself["view_b"]) and all(itself["present"].values())


@pytest.mark.parametrize(("height", "width"), [(30, 60), (61, 33), (17, 17)])
@pytest.mark.parametrize("aspect", ["pad", "stretch"])
def test_a_mark_finds_its_way_back_to_the_original(height: int, width: int, aspect: str) -> None:
    image = np.zeros((height * 3, width * 3), np.uint8)
    image[3 * 10 : 3 * 12, 3 * 4 : 3 * 6] = 255
    square, placement = letterbox(finish(Path("array"), image, stored="array"), Letterbox(64, aspect=aspect))  # type: ignore[arg-type]
    back = place(square, placement)
    assert back.shape == image.shape
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    centre = (np.average(rows, weights=back), np.average(columns, weights=back))
    assert centre == pytest.approx((32.5, 14.5), abs=0.6)
    if aspect == "pad":
        top, left, high, wide = placement.box
        assert high / wide == pytest.approx(height / width, rel=0.05) and max(high, wide) == 64
        outside = square.copy()
        outside[top : top + high, left : left + wide] = 0
        assert not outside.any()
    else:
        assert placement.box == (0, 0, 64, 64)


def test_shrinking_averages_so_that_thin_lines_stay() -> None:
    image = np.zeros((800, 800), np.uint8)
    image[:, 401] = 255
    square, _ = letterbox(finish(Path("a"), image, stored="array"), Letterbox(40))
    assert square.sum(axis=1) == pytest.approx(np.full(40, 1 / 20), abs=0.006)


def test_sixteen_bits_are_kept_to_eleven() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    square, _ = letterbox(finish(Path("a"), ramp, stored="array"), Letterbox(64))
    np.testing.assert_allclose(square, ramp / 65535, atol=1e-6)
    sample = view_sample({"view_a": ramp}, letterbox=Letterbox(64))
    np.testing.assert_allclose(sample["view_a"][0].numpy(), ramp / 65535, atol=2**-12)
    assert len(np.unique(sample["view_a"].numpy())) > 1500


def test_the_window_by_percentiles_ignores_a_label() -> None:
    image = np.random.default_rng(0).integers(1000, 3000, (100, 100)).astype(np.uint16)
    image[:3, :3] = 65535
    full, _ = letterbox(finish(Path("a"), image, stored="array"), Letterbox(100))
    window, _ = letterbox(finish(Path("a"), image, stored="array"), Letterbox(100, window="percentile"))
    assert np.ptp(full[10:, 10:]) < 0.04 and np.ptp(window[10:, 10:]) > 0.95


def test_the_crop_holds_the_largest_part_and_not_the_label() -> None:
    film = np.zeros((400, 300), np.float32)
    film[100:300, :150] = 0.4  # touches the border, as a breast does
    film[20:40, 220:290] = 1.0
    film[350:352, :] = 0.9  # a scratch
    top, left, height, width = body_box(film, margin=0.02)
    assert (top, left) == pytest.approx((92, 0), abs=4) and (top + height, left + width) == pytest.approx(
        (308, 158), abs=4
    )
    assert body_box(np.zeros((50, 40), np.float32)) == (0, 0, 50, 40)


def test_the_crop_on_a_mammogram_of_the_phantom(tmp_path: Path) -> None:
    manifest = open_studies(cbis_ddsm.write(tmp_path, cbis_ddsm.Options(patients=6, size=160)))
    for row in manifest.rows:
        for path in row.paths.values():
            image = read_image(path)
            _, placement = letterbox(image, Letterbox(64, crop="body"))
            _, left, height, width = placement.crop
            # The label lies in the outer corner at the top, the chest wall on the side of the breast's name.
            assert (left == 0) == ("LEFT" in row.id) or width == image.size[1]
            assert width < 0.95 * image.size[1] and height > 0.3 * image.size[0]


def test_targets_masks_and_batches(tmp_path: Path) -> None:
    image = grid_image(16, 16)
    studies = [{"frontal": image, "lateral": image}] * 3
    manifest = manifest_of(tmp_path, studies, ["x=1;y=", "x=0;y=1", ""])
    batch = collate_views([ViewDataset(manifest, letterbox=Letterbox(16))[index] for index in range(3)])
    assert batch["target"].tolist() == [[1, 0], [0, 1], [0, 0]] and batch["target"].dtype == torch.float32
    assert batch["mask"].tolist() == [[True, False], [True, True], [False, False]]
    assert batch["view_a"].shape == (3, 1, 16, 16) and batch["present"]["view_b"].tolist() == [True] * 3
    classes = manifest_of(tmp_path, studies, ["b", "a", ""])
    data = ViewDataset(classes, letterbox=Letterbox(16), labels=Labels("multiclass", ("a", "b", "c")))
    assert [data[index]["target"].tolist() for index in range(3)] == [[1], [0], [0]] and not data[2]["mask"].any()


def test_the_cache_stays_within_its_memory_and_changes_nothing(tmp_path: Path) -> None:
    manifest = open_studies(mura.write(tmp_path, mura.Options(patients=12, size=48)))
    cached = ViewDataset(manifest, letterbox=Letterbox(32), cache_mb=5 * 32 * 32 / 2**20)
    plain = ViewDataset(manifest, letterbox=Letterbox(32), cache_mb=0)
    for index in [*range(len(plain)), *range(len(plain))]:
        assert torch.equal(cached[index]["view_a"], plain[index]["view_a"])
    assert len(cached._cache.held) == 5 and not plain._cache.held


def test_a_sample_of_files_equals_that_of_the_data_set(pairs: Manifest) -> None:
    row = next(pairs.rows)
    made = view_sample({"view_a": row.paths["frontal"], "view_b": row.paths["lateral"]}, letterbox=Letterbox(32))
    held = ViewDataset(pairs, letterbox=Letterbox(32))[0]
    for name in VIEWS:
        assert torch.equal(made[name], held[name])
        assert made["meta"]["placements"][name] == held["meta"]["placements"][name]
    lone = view_sample({"view_b": grid_image(20, 30)}, letterbox=Letterbox(32))
    assert lone["present"] == {"view_a": False, "view_b": True} and not lone["view_a"].any()
    collate_views([made, lone])


def test_bad_requests_are_named(pairs: Manifest, tmp_path: Path) -> None:
    for call, message in (
        (lambda: Letterbox(4), "at least 8"),
        (lambda: Augmentation(flip=2), "chance"),
        (lambda: ViewDataset(pairs, view_dropout=2), "view_dropout"),
        (lambda: view_sample({"left": "a.png"}), "Unknown view 'left'"),
        (lambda: view_sample({"view_a": None}), "No view"),
        (lambda: view_sample({"view_a": tmp_path / "gone.png"}), "gone.png does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            call()
    path = next(pairs.rows).paths["frontal"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"0_frontal\.png is damaged"):
        ViewDataset(pairs, letterbox=Letterbox(16))[0]


def own_studies(folder: Path, targets: list[str]) -> Path:
    """A manifest.csv of a user, one study per patient; a target column where there are targets."""
    lines = ["study,patient,path" + (",label" if targets else "")]
    for number in range(12):
        write_image(folder / f"{number}.png", np.roll(grid_image(16 + number, 16), number, axis=1))
        cell = f",{targets[number % len(targets)]}" if targets else ""
        lines.append(f"s{number},p{number},{number}.png{cell}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def view_pairs(labels: Labels, **settings: object) -> ViewPairs:
    config = ViewSettings.model_validate({"size": 16} | settings)
    return ViewPairs(config, labels=labels, folds=FoldConfig(), seed=0)


CLASSES = Labels("multiclass", ("flu", "none"))


def test_to_predict_no_target_is_needed_and_an_unknown_one_is_passed_over(tmp_path: Path) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    options = {"options": ("target=label",)}
    for root, targets, wanted in ((plain, [], ""), (other, ["flu", "cold"], "flu")):
        root.mkdir()
        kind = view_pairs(CLASSES, **options)
        manifest = kind.open(own_studies(root, targets), split=False)
        data = kind.dataset(manifest, train=False)
        batch = kind.collate([data[0], data[1]])
        assert data.targets[:2] == [wanted, ""]
        assert batch["mask"].tolist() == [[bool(wanted)], [False]] and len(data) == 12
    with pytest.raises(UserError, match="no target column 'label'"):
        view_pairs(CLASSES, **options).open(plain)
    learned = view_pairs(CLASSES, **options)
    with pytest.raises(UserError, match="The target 'cold' is none of flu, none"):
        learned.dataset(learned.open(other), train=True)
    # Positive classes that are not there, and two targets in one study, are nothing to a prediction either.
    binary = view_pairs(Labels("binary", ("0", "1")), options=("positive=fever",))
    assert set(binary.open(other, split=False).table["target"]) == {"0"}
    with pytest.raises(UserError, match="no label 'fever'"):
        binary.open(other)
    table = other / "manifest.csv"
    table.write_text(table.read_text().replace("s1,p1,", "s0,p0,", 1))
    assert view_pairs(CLASSES).open(other, split=False).table["target"].iloc[0] == ""
    with pytest.raises(UserError, match="gives study 's0' the label 'cold' and 'flu'"):
        view_pairs(CLASSES).open(other)


def test_folds_are_those_of_the_settings_and_only_where_splits_are_wanted(tmp_path: Path) -> None:
    root = own_studies(tmp_path, ["flu", "none"])
    folds = [
        ViewPairs(ViewSettings(size=16), labels=CLASSES, folds=FoldConfig(folds=3, fold=fold), seed=0)
        for fold in range(3)
    ]
    assert all(kind.open(root).notes[-1].startswith(f"fold {number} of 3") for number, kind in enumerate(folds))
    assert set(folds[0].open(root, split=False).table["split"]) == {""}
    assert folds[0].check(root) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "mora"}, "Unknown layout 'mora'; did you mean 'mura'"),
        ({"layout": "harvard"}, "Unknown layout 'harvard'; choose auto, cbis_ddsm, chexpert, mura, studies"),
        ({"options": ("parts",)}, "expected name=value, not 'parts'"),
    ],
)
def test_settings_that_make_no_sense_are_named_at_once(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"(?i){message}") as caught:
        build(ViewSettings, settings)
    assert "\n" not in str(caught.value)


@pytest.mark.data
def test_real_chest_films_of_all_modes_and_sizes(real_data: Path) -> None:
    manifest = open_studies(real_data / "cxr-multiview")
    data = ViewDataset(manifest, letterbox=Letterbox(64))
    batch = collate_views([data[index] for index in range(len(data))])
    assert batch["view_a"].shape == (12, 1, 64, 64) and all(batch["present"][name].all() for name in VIEWS)
    for name in VIEWS:
        assert (batch[name].std(dim=(1, 2, 3)) > 0.05).all()
    sizes = {meta["placements"][name].source for meta in batch["meta"] for name in VIEWS}
    assert max(max(size) for size in sizes) == 4300 and min(min(size) for size in sizes) == 287
