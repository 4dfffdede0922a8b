"""RGB + infrared pairs with boxes, as the layouts of such data sets list them.

A layout's `read` gives `BoxedPairs`: one `BoxedPair` for each moment, with its files and its scene, and what the
classes are called. `read_annotations` then opens the boxes, checks them against the pictures and says what was
dropped. Layouts only list files; pictures are not decoded here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import PIL.Image

from scanfuse.data.annotations import Annotated, Faulty, Tally, coco, read_boxes
from scanfuse.data.boxes import ClassMap, union
from scanfuse.data.manifest import Manifest
from scanfuse.data.readers import SUFFIXES, stem
from scanfuse.errors import UserError

__all__ = [
    "BoxedPair",
    "BoxedPairs",
    "block_of",
    "find_folder",
    "listed",
    "paired_files",
    "picture_size",
    "read_annotations",
    "read_lines",
    "with_lists",
]


@dataclass(frozen=True)
class BoxedPair:
    """One moment through both sensors.

    Attributes:
        id: unique in the data set.
        group: the scene; pairs of one scene look alike and must not be in two splits.
        split: "train", "val", "test" or "" (none published).
        rgb, ir: the pictures.
        boxes: the annotation; two files are united, none means that the pair is not annotated.
        picture: its file name inside a COCO file, else "".
        condition: "day", "night" or "" where the data set does not say.
    """

    id: str
    group: str
    split: str
    rgb: Path
    ir: Path
    boxes: tuple[Path, ...]
    picture: str = ""
    condition: str = ""


@dataclass(frozen=True)
class BoxedPairs:
    """What a layout found.

    Attributes:
        pairs: in the order of their ids.
        classes: which class names count, which are dropped.
        names: what the class numbers of YOLO files mean; empty for other formats.
        notes: what a reader of the results must know.

    Raises:
        UserError: no pair at all, or an id that occurs twice.
    """

    pairs: tuple[BoxedPair, ...]
    classes: ClassMap
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.pairs:
            raise UserError("The data set holds no pair; check the folder.")
        seen: set[str] = set()
        for pair in self.pairs:
            if pair.id in seen:
                raise UserError(f"The data set holds the id {pair.id!r} more than once; give every pair its own.")
            seen.add(pair.id)

    def only(self, classes: Sequence[str]) -> "BoxedPairs":
        """The same pairs with some of the classes; the others are dropped and counted. All if `classes` is empty."""
        return replace(self, classes=self.classes.only(classes)) if classes else self


def read_annotations(found: BoxedPairs, *, faulty: Faulty = "refuse") -> tuple[dict[str, Annotated], Tally]:
    """The boxes of all annotated pairs by id, and what was counted, clipped and dropped.

    Args:
        found: of a layout.
        faulty: "refuse" raises at the first box that cannot be used, "drop" leaves such boxes out and lists them.

    Raises:
        UserError: a picture that cannot be opened, two pictures of a pair that differ in size, an annotation for
            another size, or what the format's reader finds wrong.
    """
    files: dict[Path, dict[str, Annotated]] = {}
    boxes: dict[str, Annotated] = {}
    for pair in found.pairs:
        size = check_sizes(pair)
        parts = [_annotated(pair, path, size, found, files, faulty) for path in pair.boxes]
        if parts:
            boxes[pair.id] = _united(parts)
    return boxes, Tally.of(boxes.values())


def check_sizes(pair: BoxedPair) -> tuple[int, int]:
    """Height and width of both pictures; UserError if they differ, or a file cannot be opened."""
    size, other = picture_size(pair.rgb), picture_size(pair.ir)
    if size != other:
        raise UserError(
            f"{pair.rgb} has {size[1]} x {size[0]} pixels and {pair.ir} {other[1]} x {other[0]}; a pair must be "
            "registered to one size."
        )
    return size


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width, from the head of the file."""
    try:
        with PIL.Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; complete the data set or remove the pair.") from error
    except (OSError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be opened as a picture ({error}); copy it again.") from error


def paired_files(rgb: Path, ir: Path) -> list[tuple[str, Path, Path]]:
    """(name, RGB file, infrared file) of two folders that must hold the same names, sorted by name.

    Raises:
        UserError: a folder without pictures, two files of one name, or a picture without its partner.
    """
    listed = [_pictures(folder) for folder in (rgb, ir)]
    for own, other, place in ((listed[0], listed[1], ir), (listed[1], listed[0], rgb)):
        alone = sorted(set(own) - set(other))
        if alone:
            more = f" ({len(alone) - 1} more such)" if len(alone) > 1 else ""
            raise UserError(
                f"{own[alone[0]]} has no partner in {place}{more}; add the missing picture or remove this one."
            )
    return [(name, listed[0][name], listed[1][name]) for name in sorted(listed[0])]


def listed(folders: Mapping[str, Path]) -> Manifest:
    """The pictures of one folder per sensor as samples without boxes, a row a name.

    Args:
        folders: "rgb", "ir" -> a folder; one may be absent.

    Raises:
        UserError: see `paired_files`.
    """
    names = tuple(folders)
    if len(names) == 2:
        files = paired_files(folders["rgb"], folders["ir"])
        rows = [{"id": name, "rgb": str(rgb), "ir": str(ir)} for name, rgb, ir in files]
    else:
        rows = [{"id": name, names[0]: str(path)} for name, path in _pictures(folders[names[0]]).items()]
    table = pd.DataFrame(rows, dtype=str).reindex(columns=["id", "rgb", "ir"], fill_value="")
    return Manifest(table.assign(group=table["id"], split="", target=""), ("rgb", "ir"))


def find_folder(root: Path, *names: str) -> Path | None:
    """The first folder of these names in `root`, whatever its case."""
    if not root.is_dir():
        return None
    below = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    return next((below[name.lower()] for name in names if name.lower() in below), None)


def read_lines(path: Path) -> list[str]:
    """The lines of a list, without blanks and empty ones; UserError if it cannot be read or is empty."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list ({error}).") from error
    found = [line for line in lines if line]
    if not found:
        raise UserError(f"{path} is an empty list; give one name a line.")
    return found


def block_of(name: str, block: int) -> str:
    """The block of consecutive numbers that a name's last number falls into, such as "00100-00199".

    Digits before the last number stay: "FLIR_00123_RGB" -> "FLIR_00100-00149" for blocks of 50. A name without a
    number is a block of its own.
    """
    match = re.search(r"^(.*?)(\d+)\D*$", name)
    if match is None or block < 1:
        return name
    digits = match.group(2)
    first = int(digits) // block * block
    return f"{match.group(1)}{first:0{len(digits)}d}-{first + block - 1:0{len(digits)}d}"


def with_lists(found: BoxedPairs, lists: Mapping[str, str | Path]) -> BoxedPairs:
    """The pairs that given lists name, in the splits that they stand for.

    Args:
        found: of a layout.
        lists: "train", "val", "test" -> a text file with one name a line (an id, or a path whose stem is one).

    Raises:
        UserError: a list cannot be read, names a pair that is not there or in another list too, or another split.
    """
    pairs = {pair.id: pair for pair in found.pairs}
    chosen: dict[str, BoxedPair] = {}
    for split, path in lists.items():
        if split not in ("train", "val", "test"):
            raise UserError(f"Lists are for train, val and test, not for {split!r}.")
        for line in read_lines(Path(path)):
            name = line if line in pairs else stem(line)
            if name not in pairs:
                raise UserError(f"{path} names {line!r}, which is not in the data set.")
            if name in chosen:
                raise UserError(f"{path} names {line!r}, which is already in the {chosen[name].split} list.")
            chosen[name] = replace(pairs[name], split=split)
    note = f"split by given lists; {len(pairs) - len(chosen)} of {len(pairs)} pairs are in none of them"
    listed = tuple(chosen[pair.id] for pair in found.pairs if pair.id in chosen)
    return replace(found, pairs=listed, notes=(*found.notes, note))


def leaks(pairs: Iterable[BoxedPair]) -> tuple[str, ...]:
    """The groups that are in more than one split, sorted."""
    splits: dict[str, set[str]] = {}
    for pair in pairs:
        splits.setdefault(pair.group, set()).add(pair.split)
    return tuple(sorted(group for group, found in splits.items() if len(found - {""}) > 1))


def _annotated(
    pair: BoxedPair,
    path: Path,
    size: tuple[int, int],
    found: BoxedPairs,
    files: dict[Path, dict[str, Annotated]],
    faulty: Faulty,
) -> Annotated:
    if path.suffix.lower() != ".json":
        return read_boxes(path, size=size, classes=found.classes, names=found.names, faulty=faulty)
    if path not in files:
        files[path] = coco.read(path, classes=found.classes, faulty=faulty)
    if pair.picture not in files[path]:
        raise UserError(f"{path} does not list the picture {pair.picture!r} of {pair.id}; add it to its images.")
    annotated = files[path][pair.picture]
    if annotated.size != size:
        raise UserError(
            f"{path} says that {pair.picture} has {annotated.size[1]} x {annotated.size[0]} pixels, but it has "
            f"{size[1]} x {size[0]}; its boxes would be in the wrong places."
        )
    return annotated


def _united(parts: Sequence[Annotated]) -> Annotated:
    first = parts[0]
    for other in parts[1:]:
        dropped = {name: first.dropped.get(name, 0) + other.dropped.get(name, 0)
                   for name in [*first.dropped, *other.dropped]}  # fmt: skip
        first = Annotated(
            union(first.boxes, other.boxes),
            first.size,
            first.rounded + other.rounded,
            first.clipped + other.clipped,
            dropped,
            (*first.faults, *other.faults),
        )
    return first


def _pictures(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or not path.is_file() or not path.name.lower().endswith(SUFFIXES):
            continue
        name = stem(path)
        if name in found:
            raise UserError(f"{folder} holds {found[name].name} and {path.name}; keep one of them.")
        found[name] = path
    if not found:
        raise UserError(f"{folder} holds no picture; ScanFuse reads {', '.join(SUFFIXES)}.")
    return found
