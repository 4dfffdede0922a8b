"""Layouts of RGB + infrared pairs with boxes: read what the phantoms wrote, and name what is wrong."""

import csv
import hashlib
import importlib
import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import pytest

from scanfuse import config
from scanfuse.data.boxed_pairs import (
    BoxedPair,
    BoxedPairs,
    block_of,
    leaks,
    paired_files,
    picture_size,
    read_annotations,
    with_lists,
)
from scanfuse.data.boxes import Boxes, ClassMap, iou
from scanfuse.data.layouts import Request, boxed_manifest, coco_pairs, flir_aligned, llvip, m3fd, msrs
from scanfuse.data.layouts import names as layouts
from scanfuse.data.readers import read_image
from scanfuse.data.synthetic import names as phantoms
from scanfuse.data.transforms.thermal import thermal_unit
from scanfuse.errors import UserError

LAYOUTS = ("boxed_manifest", "coco_pairs", "flir_aligned", "llvip", "m3fd", "msrs")
SCENES, FRAMES, SIZE = 6, 2, 80


def layout(name: str) -> ModuleType:
    return importlib.import_module(f"scanfuse.data.layouts.{name}")


def write(name: str, root: Path, **options: object) -> Path:
    """A phantom, its options checked as on the command line."""
    module = importlib.import_module(f"scanfuse.data.synthetic.{name}")
    return Path(module.write(root, config.build(module.Options, options)))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small data set in each layout; do not write into them."""
    root = tmp_path_factory.mktemp("roads")
    return {name: write(name, root / name, scenes=SCENES, frames=FRAMES, size=SIZE, seed=2) for name in LAYOUTS}


@pytest.fixture
def copied(made: dict[str, Path], tmp_path: Path):  # type: ignore[no-untyped-def]
    def copy(name: str) -> Path:
        return Path(shutil.copytree(made[name], tmp_path / name))

    return copy


def message(call, *arguments: object, **options: object) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def truth_of(root: Path) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (root / "truth.csv").open() as file:
        for row in csv.DictReader(file):
            found[row["id"]].append(row)
    return found


def as_boxes(rows: list[dict[str, str]], classes: tuple[str, ...]) -> Boxes:
    kept = [row for row in rows if row["class"] in classes]
    edges = [[float(row[edge]) for edge in ("left", "top", "right", "bottom")] for row in kept]
    return Boxes.of(edges, [classes.index(row["class"]) for row in kept], classes)


# --- every layout -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_says_what_it_is_and_has_a_phantom(name: str) -> None:
    module = layout(name)
    assert all(getattr(module, fact) for fact in ("LAYOUT", "CITATION", "LICENCE", "HOW_TO_GET", "RANK"))
    assert module.KIND == "boxed_pairs" and name in layouts() and name in phantoms()


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_was_written_is_read(name: str, made: dict[str, Path]) -> None:
    found = layout(name).list_pairs(made[name])
    assert len(found.pairs) == SCENES * FRAMES
    groups = Counter(pair.group for pair in found.pairs)
    assert len(groups) == SCENES and set(groups.values()) == {FRAMES} and not leaks(found.pairs)
    annotated, tally = read_annotations(found)
    truth = truth_of(made[name])
    tolerance = 0.9 if name == "msrs" else 1e-3  # its boxes are drawn by hand, as it were
    for pair in found.pairs:
        wanted = as_boxes(truth[pair.id], found.classes.classes)
        boxes = annotated[pair.id].boxes
        assert len(boxes) == len(wanted)
        for box, kind in zip(wanted.xyxy, wanted.names, strict=True):
            apart = np.abs(boxes.xyxy - box).max(axis=1)
            assert min(apart[[other == kind for other in boxes.names]]) < tolerance
        rgb, ir = read_image(pair.rgb, grey_if_equal=False), read_image(pair.ir)
        assert rgb.size == ir.size == annotated[pair.id].size and rgb.channels == 3 and ir.channels == 1
        assert 0.3 < np.ptp(thermal_unit(ir.pixels)) <= 1
    assert sum(tally.boxes.values()) == sum(len(as_boxes(rows, found.classes.classes)) for rows in truth.values())
    assert not tally.faults and not tally.clipped


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_arguments_give_the_same_bytes(name: str, made: dict[str, Path], tmp_path: Path) -> None:
    digests = []
    for root, seed in ((made[name], None), (tmp_path / "again", 2), (tmp_path / "other", 3)):
        if seed is not None:
            write(name, root, scenes=SCENES, frames=FRAMES, size=SIZE, seed=seed)
        whole = hashlib.sha256()
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            whole.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
        digests.append(whole.hexdigest())
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_not_taken_for_each_other(name: str, made: dict[str, Path], tmp_path: Path) -> None:
    home = next((path for path in made[name].iterdir() if path.is_dir() and path.name in HOMES), made[name])
    asked = Request(("rgb", "ir"))
    assert layout(name).matches(made[name], asked) and layout(name).matches(home, asked)
    assert not layout(name).matches(tmp_path, asked)
    fitting = [other for other in LAYOUTS if layout(other).matches(home, asked)]
    assert max(fitting, key=lambda other: layout(other).RANK) == name
    assert (
        f"is not in the layout {name!r}" in message(layout(name).list_pairs, tmp_path)
        if name != "boxed_manifest"
        else True
    )


HOMES = ("LLVIP", "M3FD_Detection", "align")


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_missing_thermal_frame_is_named(name: str, copied) -> None:  # type: ignore[no-untyped-def]
    root = copied(name)
    lost = layout(name).list_pairs(root).pairs[3].ir
    lost.unlink()
    said = message(layout(name).list_pairs, root)
    assert lost.stem.removesuffix("_PreviewData") in said


@pytest.mark.parametrize("name", LAYOUTS)
def test_pictures_of_other_sizes_and_broken_ones_are_named(name: str, copied) -> None:  # type: ignore[no-untyped-def]
    root = copied(name)
    found = layout(name).list_pairs(root)
    broken = found.pairs[1].ir
    height, width = picture_size(broken)
    PIL.Image.new("L", (width + 8, height)).save(broken)
    assert f"{broken} {width + 8} x {height}; a pair must be registered" in message(read_annotations, found)
    broken.write_bytes(b"no picture")
    assert f"{broken} cannot be opened as a picture" in message(read_annotations, found)


@pytest.mark.parametrize("name", ["llvip", "m3fd", "flir_aligned", "msrs"])
def test_a_missing_annotation_is_named(name: str, copied) -> None:  # type: ignore[no-untyped-def]
    root = copied(name)
    lost = layout(name).list_pairs(root).pairs[2].boxes[0]
    lost.unlink()
    assert f"{lost}" in message(layout(name).list_pairs, root)


@pytest.mark.parametrize("name", LAYOUTS)
def test_some_classes_only(name: str, made: dict[str, Path]) -> None:
    whole, part = layout(name).list_pairs(made[name]), layout(name).list_pairs(made[name], classes=["Person"])
    assert part.classes.classes == ("person",)
    (_, everything), (_, people) = read_annotations(whole), read_annotations(part)
    assert people.boxes == {"person": everything.boxes["person"]}
    # Two sets of one picture are counted one by one.
    others = sum(everything.boxes.values()) - everything.boxes["person"] + sum(everything.dropped.values())
    assert sum(people.dropped.values()) >= others and (name == "msrs" or sum(people.dropped.values()) == others)
    assert "There is no class 'cat'" in message(layout(name).list_pairs, made[name], classes=["cat"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_numbers_out_of_range_are_refused(name: str, tmp_path: Path) -> None:
    for option, value in (("scenes", 1), ("scenes", 901), ("frames", 21), ("size", 50), ("misalign", 65.0)):
        assert f"The setting {option!r} cannot be {value}" in message(write, name, tmp_path, **{option: value})
    assert not list(tmp_path.iterdir())


def test_infrared_can_be_shifted(tmp_path: Path) -> None:
    """The boxes stay on RGB."""
    roots = [msrs_phantom(tmp_path / str(shift), shift) for shift in (0.0, 6.0)]
    plain, shifted = (msrs.list_pairs(root).pairs[0] for root in roots)
    first, second = (read_image(pair.ir).pixels.astype(float) for pair in (plain, shifted))
    assert np.abs(first - second).mean() > 3
    assert (roots[0] / "truth.csv").read_text().count("\n") == (roots[1] / "truth.csv").read_text().count("\n")


def msrs_phantom(root: Path, misalign: float) -> Path:
    return write("msrs", root, scenes=2, frames=1, size=96, seed=1, misalign=misalign)


# --- each layout --------------------------------------------------------------------------------------------------


def test_llvip_splits_by_place(made: dict[str, Path], copied) -> None:  # type: ignore[no-untyped-def]
    found = llvip.list_pairs(made["llvip"])
    assert {pair.group: pair.split for pair in found.pairs} == {
        f"place-0{number}": "test" if number == 6 else "train" for number in range(1, 7)
    }
    assert "10 of the 12025 pairs of the published train set" in found.notes
    root = copied("llvip")
    for folder in ("visible", "infrared"):
        (root / "LLVIP" / folder / "train/010001.jpg").rename(root / "LLVIP" / folder / "test/010001.jpg")
    asked = Request(("rgb", "ir"), split="published")
    leaky = llvip.read(root, asked, llvip.Options())
    assert leaky.notes[0] == "leaky: 1 scene(s) are in more than one given split, such as place-01"
    for folder in ("visible", "infrared"):
        shutil.rmtree(root / "LLVIP" / folder / "test")
    assert "the published test set is not here" in llvip.list_pairs(root).notes


def test_m3fd_has_published_names_and_no_split(made: dict[str, Path], tmp_path: Path) -> None:
    found = m3fd.list_pairs(made["m3fd"])
    assert {pair.split for pair in found.pairs} == {""}
    assert found.pairs[-1].group == "00500-00599"
    text = "".join(path.read_text() for path in (made["m3fd"] / "M3FD_Detection/Annotation").iterdir())
    assert "<name>People</name>" in text and "<name>Car</name>" in text and "<name>person" not in text
    assert len({pair.group for pair in m3fd.list_pairs(made["m3fd"], block=200).pairs}) == 3
    lists = {"train": tmp_path / "train.txt", "test": tmp_path / "test.txt"}
    lists["train"].write_text("00000\n00001.png\nVis/00100.png\n")
    lists["test"].write_text("00200\n")
    listed = m3fd.list_pairs(made["m3fd"], lists=lists)
    assert [(pair.id, pair.split) for pair in listed.pairs] == [
        ("00000", "train"), ("00001", "train"), ("00100", "train"), ("00200", "test"),
    ]  # fmt: skip
    assert listed.notes[-1] == "split by given lists; 8 of 12 pairs are in none of them"
    lists["test"].write_text("00000\n")
    assert "names '00000', which is already in the train list" in message(m3fd.list_pairs, made["m3fd"], lists=lists)
    lists["test"].write_text("99999\n")
    assert "names '99999', which is not in the data set" in message(m3fd.list_pairs, made["m3fd"], lists=lists)
    assert "not for 'valid'" in message(m3fd.list_pairs, made["m3fd"], lists={"valid": lists["train"]})


def test_m3fd_scenes_can_be_given(made: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "scenes.txt"
    names = [pair.id for pair in m3fd.list_pairs(made["m3fd"]).pairs]
    path.write_text("".join(f"{name} {'a' if name < '00300' else 'b'}\n" for name in names))
    assert Counter(pair.group for pair in m3fd.list_pairs(made["m3fd"], scenes=path).pairs) == {"a": 6, "b": 6}
    path.write_text("00000 a\n")
    assert "gives no scene for 00001 (11 of 12 pairs)" in message(m3fd.list_pairs, made["m3fd"], scenes=path)
    path.write_text("00000 a\n00000,b\n")
    assert "line 2 gives 00000 a second scene" in message(m3fd.list_pairs, made["m3fd"], scenes=path)
    path.write_text("00000\n")
    assert "line 1 is '00000'; expected a name and a scene" in message(m3fd.list_pairs, made["m3fd"], scenes=path)


def test_flir_drops_dogs_and_reads_the_lists(copied, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = flir_phantom(tmp_path / "dogs")
    found = flir_aligned.list_pairs(root)
    _, tally = read_annotations(found)
    assert set(tally.boxes) <= {"person", "car", "bicycle"} and tally.dropped["dog"] > 0
    assert any(note.startswith("left out by name: ") and "dog" in note for note in tally.notes())
    assert Counter(pair.split for pair in found.pairs) == {"train": 20, "test": 5}
    assert min(pair.id for pair in found.pairs if pair.split == "test") == "FLIR_08863"
    # Lists may lie in ImageSets/Main and may lack the suffix.
    (root / "align/ImageSets/Main").mkdir(parents=True)
    for name in ("align_train.txt", "align_validation.txt"):
        text = (root / "align" / name).read_text().replace("_PreviewData", "")
        (root / "align" / name).unlink()
        (root / "align/ImageSets/Main" / name).write_text(text)
    again = flir_aligned.list_pairs(root / "align")
    assert [(pair.id, pair.split) for pair in again.pairs] == [(pair.id, pair.split) for pair in found.pairs]
    (root / "align/ImageSets/Main/align_validation.txt").write_text("FLIR_00001_PreviewData\n")
    assert "names FLIR_00001, which is already in align_train.txt" in message(flir_aligned.list_pairs, root)
    (root / "align/ImageSets/Main/align_validation.txt").unlink()
    assert "align_validation.txt is not here" in flir_aligned.list_pairs(root).notes


def flir_phantom(root: Path) -> Path:
    return write("flir_aligned", root, scenes=25, frames=1, size=80, seed=0)


def test_msrs_sets_differ_and_their_union_is_whole(made: dict[str, Path], copied) -> None:  # type: ignore[no-untyped-def]
    truth = truth_of(made["msrs"])
    shown = Counter(row["shown"] for rows in truth.values() for row in rows)
    counts = {}
    for labels in ("union", "visible", "infrared", "fusion"):
        found = msrs.list_pairs(made["msrs"], labels=labels)
        counts[labels] = sum(read_annotations(found)[1].boxes.values())
        assert labels in found.notes[0]
    assert counts["visible"] == shown["both"] + shown["rgb"] and counts["infrared"] == shown["both"] + shown["ir"]
    assert counts["union"] == sum(shown.values()) > counts["fusion"]
    for pair in msrs.list_pairs(made["msrs"]).pairs:
        night = {row["night"] for row in truth[pair.id]}
        assert not night or night == {str(int(pair.condition == "night"))}
    # The published files have these; so have ours.
    texts = [path.read_text() for path in (made["msrs"] / "labels/fusion").iterdir()]
    assert all("  " in text and not text.endswith("\n") for text in texts if text)
    root = copied("msrs")
    shutil.rmtree(root / "labels/fusion")
    assert "has no set 'fusion'; it has visible, infrared" in message(msrs.list_pairs, root, labels="fusion")


def test_msrs_in_published_splits(copied, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = copied("msrs")
    shutil.copytree(root, tmp_path / "both/train")
    shutil.copytree(root, tmp_path / "both/test")
    shutil.rmtree(tmp_path / "both/test/vi")
    assert {pair.split for pair in msrs.list_pairs(tmp_path / "both").pairs} == {"train"}
    assert "12 of the 1083 published train pairs" in msrs.list_pairs(tmp_path / "both").notes


def test_coco_pairs_take_their_split_from_the_files(copied) -> None:  # type: ignore[no-untyped-def]
    root = copied("coco_pairs")
    found = coco_pairs.list_pairs(root)
    assert Counter(pair.split for pair in found.pairs) == {"train": 10, "test": 2}
    assert json.loads((root / "train_coco.json").read_text())["categories"][0]["id"] == 0
    assert Counter(pair.group for pair in coco_pairs.list_pairs(root, group_pattern=r"^(..)").pairs) == {"00": 12}
    (root / "test_coco.json").rename(root / "more.json")
    assert "does not say its split" in message(coco_pairs.list_pairs, root)
    (root / "more.json").unlink()
    one = coco_pairs.list_pairs(root)
    assert {pair.split for pair in one.pairs} == {""}
    assert "2 of 12 pairs are in no annotation file and are left out" in one.notes
    shutil.copy(root / "train_coco.json", root / "test.json")
    assert "lists '00000.png', which test.json lists too" in message(coco_pairs.list_pairs, root)
    (root / "test.json").unlink()
    content = json.loads((root / "train_coco.json").read_text())
    content["images"][0]["width"] = 640
    (root / "train_coco.json").write_text(json.dumps(content))
    assert "says that 00000.png has 640 x 60 pixels, but it has 80 x 60" in message(
        read_annotations, coco_pairs.list_pairs(root)
    )
    content["images"][0]["file_name"] = "77777.png"
    (root / "train_coco.json").write_text(json.dumps(content))
    assert "lists '77777.png', which is not in" in message(coco_pairs.list_pairs, root)


def test_manifests_of_ones_own(copied) -> None:  # type: ignore[no-untyped-def]
    root = copied("boxed_manifest")
    found = boxed_manifest.list_pairs(root)
    assert Counter(pair.split for pair in found.pairs) == {"train": 8, "val": 2, "test": 2}
    assert {pair.condition for pair in found.pairs} == {"day", "night"}
    assert read_image(found.pairs[0].ir).pixels.dtype == np.uint16
    assert boxed_manifest.list_pairs(root / "manifest.csv").pairs == found.pairs
    lines = (root / "manifest.csv").read_text().splitlines()

    def with_line(number: int, text: str) -> Path:
        (root / "manifest.csv").write_text("\n".join([*lines[:number], text, *lines[number + 1 :]]) + "\n")
        return root

    first = lines[1].split(",")
    assert "has no boxes in row 1; fill it" in message(
        boxed_manifest.list_pairs, with_line(1, ",".join([*first[:5], "", first[6]]))
    )
    assert "boxes/none.txt in row 1, which does not exist" in message(
        boxed_manifest.list_pairs, with_line(1, ",".join([*first[:5], "boxes/none.txt", first[6]]))
    )
    assert "boxes are .xml, .txt or .json files" in message(
        boxed_manifest.list_pairs, with_line(1, ",".join([*first[:5], "manifest.csv", first[6]]))
    )
    assert "has the split 'dev'" in message(
        boxed_manifest.list_pairs, with_line(1, ",".join([*first[:2], "dev", *first[3:]]))
    )
    assert "is in train and test" in message(
        boxed_manifest.list_pairs, with_line(1, ",".join([*first[:2], "test", *first[3:]]))
    )
    assert "has no column 'group'" in message(
        boxed_manifest.list_pairs, with_line(0, lines[0].replace("group", "scene"))
    )
    with_line(0, lines[0])
    (root / "classes.txt").unlink()
    assert "classes.txt does not exist; write the class names into it" in message(boxed_manifest.list_pairs, root)


def test_two_annotations_of_a_manifest_are_united(copied) -> None:  # type: ignore[no-untyped-def]
    root = copied("boxed_manifest")
    lines = (root / "manifest.csv").read_text().splitlines()
    (root / "more.txt").write_text("1 0.5 0.2 0.05 0.05\n")
    table = [lines[0] + ",boxes_ir", lines[1] + ",more.txt", *(line + "," for line in lines[2:])]
    plain = read_annotations(boxed_manifest.list_pairs(root))[1]
    (root / "manifest.csv").write_text("\n".join(table) + "\n")
    found = boxed_manifest.list_pairs(root)
    assert [len(pair.boxes) for pair in found.pairs[:2]] == [2, 1]
    assert read_annotations(found)[1].boxes["car"] == plain.boxes["car"] + 1


# --- parts --------------------------------------------------------------------------------------------------------


def test_blocks_of_numbers() -> None:
    assert block_of("00123", 100) == "00100-00199" and block_of("00099", 100) == "00000-00099"
    assert block_of("FLIR_08863", 50) == "FLIR_08850-08899" and block_of("00007N", 20) == "00000-00019"
    assert block_of("street", 100) == "street"


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    for folder in ("a", "b", "empty"):
        (tmp_path / folder).mkdir()
    for name in ("x.png", "y.png"):
        PIL.Image.new("L", (4, 4)).save(tmp_path / "a" / name)
    PIL.Image.new("L", (4, 4)).save(tmp_path / "b/x.jpg")
    (tmp_path / "b/notes.txt").write_text("no picture")
    assert f"{tmp_path / 'a/y.png'} has no partner in {tmp_path / 'b'}" in message(
        paired_files, tmp_path / "a", tmp_path / "b"
    )
    PIL.Image.new("L", (4, 4)).save(tmp_path / "b/x.png")
    assert "holds x.jpg and x.png; keep one" in message(paired_files, tmp_path / "a", tmp_path / "b")
    assert "holds no picture" in message(paired_files, tmp_path / "empty", tmp_path / "a")


def test_ids_are_unique_and_lists_are_lists(tmp_path: Path) -> None:
    pair = BoxedPair("a", "g", "", tmp_path / "a.png", tmp_path / "b.png", ())
    assert "more than once" in message(BoxedPairs, (pair, pair), ClassMap(("car",)))
    assert "holds no pair" in message(BoxedPairs, (), ClassMap(("car",)))
    (tmp_path / "list.txt").write_text("\n\n")
    assert "is an empty list" in message(
        with_lists, BoxedPairs((pair,), ClassMap(("car",))), {"train": tmp_path / "list.txt"}
    )


# --- the real samples ---------------------------------------------------------------------------------------------


@pytest.mark.data
def test_the_real_msrs_pairs(real_data: Path) -> None:
    counts = {}
    for labels in ("union", "visible", "infrared"):
        found = msrs.list_pairs(real_data / "msrs", labels=labels)
        tally = read_annotations(found)[1]
        counts[labels] = sum(tally.boxes.values())
        assert len(found.pairs) == 12 and not tally.faults and not tally.clipped
    assert counts == {"union": 79, "visible": 37, "infrared": 70}  # 28 objects are in both sets
    assert Counter(pair.condition for pair in found.pairs) == {"night": 8, "day": 4}


@pytest.mark.data
def test_the_real_m3fd_pairs(real_data: Path) -> None:
    found = coco_pairs.list_pairs(real_data / "m3fd")
    annotated, tally = read_annotations(found)
    assert [pair.id for pair in found.pairs] == ["00000", "00001"] and tally.boxes == {"Car": 17, "People": 5}
    assert annotated["00000"].size == (768, 1024)
    assert iou(annotated["00000"].boxes.xyxy, np.array([[46.0, 372, 82, 478]])).max() == 1
    people = coco_pairs.list_pairs(real_data / "m3fd", classes=["people"])
    assert read_annotations(people)[1].dropped == {"Car": 17}
