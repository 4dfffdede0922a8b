"""What every layout and every phantom holds, run over the listings of their folders."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest

from scanfuse import config
from scanfuse.config import Section
from scanfuse.data import layouts, synthetic
from scanfuse.data.layouts import NothingFits, Request, find, load, open_manifest
from scanfuse.data.manifest import SPLITS
from scanfuse.errors import UserError

LAYOUTS = layouts.names()
PHANTOMS = synthetic.names()
SMALL: dict[str, Any] = {"cases": 8, "slices": 2, "patients": 24, "scenes": 12, "frames": 1, "size": 64, "seed": 3}
# Volumes are a hundred times as large as pictures.
SMALLER: dict[str, dict[str, Any]] = {
    name: {"patients": 9, "size": 20} for name in ("brats", "paired_volumes", "volume_manifest")
} | {"copd": {"slices": 3}}
TABLES = ("exasens",)
"""Layouts of a table alone, without any file of a sample."""
REQUESTS = {
    "boxed_pairs": Request(("rgb", "ir")),
    "image_pairs": Request(("CT", "MRI")),
    "image_table": Request(),
    "series_table": Request(),
    "view_pairs": Request(incomplete="keep"),
    "volumes": Request(("T1CE", "FLAIR")),
}
"""How each kind asks; a layout of a new kind brings its line."""


def small(name: str) -> Section:
    """Options of a phantom for few and small pictures, through the same types as the command line."""
    options = synthetic.load(name).Options
    values = SMALL | SMALLER.get(name, {})
    return config.build(options, {key: value for key, value in values.items() if key in options.model_fields})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Layout -> the folder of its small phantom, written once; do not change it."""
    done: dict[str, Path] = {}

    def write(layout: str) -> Path:
        name = load(layout).PHANTOM
        if name not in done:
            done[name] = synthetic.load(name).write(tmp_path_factory.mktemp(name) / "data", small(name))
        return done[name]

    return write


def take_a_picture_away(root: Path, layout: str) -> None:
    """Of the first case: its file, or what a container holds of it."""
    row = next(iter(open_manifest(root, "image_table", Request(split="none")).rows))
    if row.paths["image"].suffix == ".hdf5":
        with h5py.File(row.paths["image"], "a") as file:
            del file[row.id]
    else:
        row.paths["image"].unlink()


def test_how_many_there_are() -> None:
    """A new file changes the number, and the tests below run over it."""
    assert len(LAYOUTS) == 22 and len(PHANTOMS) == 22
    assert {load(name).KIND for name in LAYOUTS} == set(REQUESTS)
    assert {load(name).PHANTOM for name in LAYOUTS} == set(PHANTOMS)
    by_kind = [name for kind in REQUESTS for name in layouts.names(kind)]
    assert sorted(by_kind) == list(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_says_what_it_is(name: str) -> None:
    module = load(name)
    for member in ("LAYOUT", "CITATION", "LICENCE", "HOW_TO_GET"):
        assert isinstance(getattr(module, member), str) and getattr(module, member).strip()
    assert isinstance(module.RANK, int)
    assert all(isinstance(part, str) and part for part in module.EXPECTED)
    assert all(
        isinstance(counts, tuple) and counts and all(isinstance(count, int) and count > 0 for count in counts)
        for counts in module.EXPECTED.values()
    )
    assert issubclass(module.Options, Section)
    assert all(field.description for field in module.Options.model_fields.values())


@pytest.mark.parametrize("name", LAYOUTS)
def test_its_phantom_is_found_and_read_and_shares_no_group(name: str, written: Callable[[str], Path]) -> None:
    root, module = written(name), load(name)
    request = REQUESTS[module.KIND]
    assert find(root, module.KIND, request) == name
    manifest = open_manifest(root, module.KIND, request)
    assert open_manifest(root, module.KIND, request, name).digest == manifest.digest
    assert set(manifest.table["split"]) == set(SPLITS) and not manifest.is_leaky
    assert manifest.table.groupby("group")["split"].nunique().max() == 1
    assert all(path.is_file() for row in manifest.rows for path in row.paths.values())
    assert manifest.notes[-1] == "phantoms: made-up pictures of nobody"
    assert manifest.modalities == (request.modalities or manifest.modalities) and manifest.modalities
    unsplit = open_manifest(root, module.KIND, replace(request, split="none"))
    assert "val" not in set(unsplit.table["split"]) and sorted(unsplit.table["id"]) == sorted(manifest.table["id"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_other_kinds_do_not_see_it(name: str, written: Callable[[str], Path]) -> None:
    module = load(name)
    for kind, request in REQUESTS.items():
        if kind == module.KIND:
            continue
        with pytest.raises(UserError, match=f"Unknown layout '{name}'"):
            open_manifest(written(name), kind, request, name)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if load(name).EXPECTED])
def test_published_data_of_another_kind_are_called_by_their_name(name: str, written: Callable[[str], Path]) -> None:
    module = load(name)
    modalities = REQUESTS[module.KIND].modalities
    for kind in REQUESTS.keys() - {module.KIND}:
        with pytest.raises(NothingFits) as caught:
            find(written(name), kind, Request(modalities=modalities))
        said = str(caught.value)
        assert said.endswith(f"It looks like {name!r}, data of another kind ({module.KIND.replace('_', ' ')}).")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_removed_file_is_a_named_error(name: str, tmp_path: Path) -> None:
    module = load(name)
    request = REQUESTS[module.KIND]
    root = synthetic.load(module.PHANTOM).write(tmp_path / "data", small(module.PHANTOM))
    if name in TABLES:
        next(root.glob("*.csv")).unlink()
        with pytest.raises(UserError, match="No data set"):
            open_manifest(root, module.KIND, request)
        return
    row = next(iter(open_manifest(root, module.KIND, request).rows))
    gone = next(iter(row.paths.values()))
    gone.unlink()
    with pytest.raises(UserError) as caught:
        open_manifest(root, module.KIND, request)
    text = str(caught.value)
    assert "\n" not in text
    # By its name, by that of its row, or (where a series has one file) by that of its series.
    assert any(part in text for part in (gone.name, gone.stem, row.id)), text


@pytest.mark.parametrize("name", LAYOUTS)
def test_unknown_options_and_wishes_without_effect_are_refused(name: str, written: Callable[[str], Path]) -> None:
    module, root = load(name), written(name)
    with pytest.raises(UserError, match=f"The layout '{name}' has no option 'colour'; it has "):
        open_manifest(root, module.KIND, REQUESTS[module.KIND], name, options={"colour": "red"})
    for known in module.Options.model_fields:
        with pytest.raises(UserError, match=f"no option '{known}x'; did you mean '{known}'"):
            open_manifest(root, module.KIND, REQUESTS[module.KIND], name, options={f"{known}x": "1"})
    if module.KIND not in ("image_pairs", "volumes") and name != "coco_pairs":
        with pytest.raises(UserError, match="has no use for group pattern"):
            open_manifest(root, module.KIND, replace(REQUESTS[module.KIND], group_pattern="(.)"), name)


@pytest.mark.parametrize("name", LAYOUTS)
def test_incomplete_samples_are_an_error_kept_or_dropped(name: str, tmp_path: Path) -> None:
    """Road pairs are published whole: there nothing is kept or dropped, and who asks for it is told so."""
    module = load(name)
    asked = REQUESTS[module.KIND].modalities
    root = synthetic.load(module.PHANTOM).write(tmp_path / "data", small(module.PHANTOM))
    if module.KIND == "boxed_pairs" or name in TABLES:
        for wish in ("keep", "drop"):
            with pytest.raises(UserError, match=f"The layout '{name}' has no use for incomplete"):
                open_manifest(root, module.KIND, Request(asked, incomplete=wish))  # type: ignore[arg-type]
        return
    if asked:
        first = next(iter(open_manifest(root, module.KIND, Request(asked, split="none")).rows))
        gone = first.paths[asked[0].lower()]
        gone.unlink()
        table = root / "manifest.csv"
        if table.exists():
            table.write_text(table.read_text().replace(gone.relative_to(root).as_posix(), ""))
    if module.KIND == "series_table":
        next((root / "ct").iterdir()).unlink()
    if module.KIND == "image_table":
        take_a_picture_away(root, name)
    found = {
        incomplete: open_manifest(root, module.KIND, Request(asked, split="none", incomplete=incomplete))
        for incomplete in ("keep", "drop")
    }
    assert 0 < len(found["drop"]) < len(found["keep"])
    assert set(found["drop"].table["id"]) < set(found["keep"].table["id"])
    with pytest.raises(UserError):
        open_manifest(root, module.KIND, Request(asked, split="none", incomplete="error"))


@pytest.mark.parametrize("name", PHANTOMS)
def test_a_phantom_refuses_a_folder_that_holds_something(name: str, tmp_path: Path) -> None:
    module = synthetic.load(name)
    (tmp_path / "data").mkdir()
    module.write(tmp_path / "data", small(name))  # an empty folder is as good as none
    before = sorted(tmp_path.rglob("*"))
    for other in ("data", "data/ABOUT.txt"):
        if (tmp_path / other).exists():
            with pytest.raises(UserError, match="name a new folder") as caught:
                module.write(tmp_path / other, small(name))
            assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", PHANTOMS)
def test_a_phantom_repeats_itself_and_says_what_is_known_of_it(name: str, tmp_path: Path) -> None:
    module, options = synthetic.load(name), small(name)
    contents = []
    for place, seed in (("a", 3), ("b", 3), ("c", 4)):
        root = module.write(tmp_path / place, options.model_copy(update={"seed": seed}))
        files = {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        contents.append(files)
    assert contents[0] == contents[1] != contents[2]
    assert module.FACTS.counted in module.Options.model_fields and module.FACTS.seconds > 0
    assert module.FACTS.count(options) == (SMALL | SMALLER.get(name, {}))[module.FACTS.counted]
    assert all(field.description for field in module.Options.model_fields.values())
