"""What a system must have is found missing when it is loaded; what it may have, a verb says in one line it lacks."""

import shutil
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from scanfuse import systems
from scanfuse.cli import main
from scanfuse.data.inputs import Inputs
from scanfuse.data.readers import read_image
from scanfuse.errors import UserError
from scanfuse.tasks import Explains, Joins, Task
from whole_jobs import Capture, fails

Patch = pytest.MonkeyPatch
PROTOCOLS: dict[str, type] = {"system": systems.System, "data": Inputs, "task": Task}
# Small trainings of one epoch: options of `scanfuse train`.
TINY = "--preset tiny --epochs 1 --batch 8 --threads 1 --device cpu --quiet".split()
FLAGS = {
    "clinicalfmamba": ["--channels", "4,4,8", "--crop", "32"],
    "clinicalfmamba3d": ["--channels", "4,4,8", "--patch", "8", "--patches", "1"],
    "copd": "--size 32 --slices 4 --fusion ct".split(),  # so that it needs to know nothing of the table's columns
    # The classes are given, so that it can be trained where nothing is completed from the data.
    "fusionmamba": "--size 64 --classes bicycle,car,person --num-classes 3".split(),
    "mambaderm": "--size 32 --fusion image".split(),  # so that it needs to know nothing of the table's columns
    "plain": "--size 32 --inputs t1ce,flair --positives HGG --slice axial:middle".split(),
    "plain3d": "--size 16 --inputs t1ce,flair --positives HGG".split(),
    "xfmamba": ["--size", "32"],
}


def members(protocol: type) -> list[str]:
    return [*protocol.__annotations__, *(name for name in vars(protocol) if not name.startswith("_"))]


def part_of(name: str, part: str) -> type:
    """The class of a system, of its input kind or of its task."""
    system = systems.load(name)
    return system if part == "system" else typing.get_type_hints(system)[part]


def remove(kind: type, member: str, patch: Patch) -> bool:
    """Takes a member, or its annotation, out of a class; False if it has none."""
    found = False
    if member in vars(kind):
        patch.delattr(kind, member)
        found = True
    if member in kind.__annotations__:
        patch.delitem(kind.__annotations__, member)
        found = True
    return found


CASES = [
    (name, part, member)
    for name in systems.available()
    for part, protocol in PROTOCOLS.items()
    for member in members(protocol)
]


def test_every_member_of_the_protocols_is_here() -> None:
    counts = {part: len(members(protocol)) for part, protocol in PROTOCOLS.items()}
    assert counts == {"system": 8, "data": 10, "task": 22}
    assert len(CASES) == len(systems.available()) * sum(counts.values())


@pytest.mark.parametrize(("name", "part", "member"), CASES)
def test_a_missing_member_is_named_when_the_system_is_loaded(
    name: str, part: str, member: str, monkeypatch: Patch
) -> None:
    kind = part_of(name, part)
    assert remove(kind, member, monkeypatch)
    with pytest.raises(UserError) as caught:
        systems.load(name)
    assert repr(member) in str(caught.value) and repr(name) in str(caught.value)
    assert (kind.__name__ if part != "system" else "the system") in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    systems.load(name)


@pytest.mark.parametrize("name", systems.available())
def test_a_missing_member_is_one_line_of_the_command(name: str, monkeypatch: Patch, capsys: Capture) -> None:
    remove(part_of(name, "task"), "criterion", monkeypatch)
    assert "lacks the member 'criterion'" in fails(["train", name, "--data", "x", "--out", "y"], capsys)


@pytest.mark.parametrize(("ability", "member"), [(Explains, "subject"), (Explains, "about"), (Explains, "explain")])
def test_half_an_ability_is_a_missing_member(ability: type, member: str, monkeypatch: Patch) -> None:
    remove(part_of("xfmamba", "task"), member, monkeypatch)
    with pytest.raises(UserError, match=f"lacks the member '{member}'"):
        systems.load("xfmamba")


@pytest.fixture(scope="module")
def folders(
    head_phantoms: Path, bones: Path, brains: Path, roads: Path, moles: Path, chests: Path, scans: Path
) -> dict[str, Path]:
    """System -> its data."""
    by_phantom = {
        "brats": brains,
        "copd": chests,
        "harvard": head_phantoms,
        "isic2024": moles,
        "msrs": roads,
        "mura": bones,
        "volume_manifest": scans,
    }
    return {name: by_phantom[systems.load(name).demonstration.phantom] for name in systems.available()}


def train(name: str, data: Path, out: Path) -> int:
    return main(["train", name, "--data", str(data), "--out", str(out), *TINY, *FLAGS[name]])


@pytest.fixture(scope="module")
def runs(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """System -> a run; beside it lies a copy of the name `other`. Do not write into them."""
    made = {}
    for name, data in folders.items():
        made[name] = tmp_path_factory.mktemp(name) / "run"
        assert train(name, data, made[name]) == 0
        shutil.copytree(made[name], made[name].with_name("other"))
    return made


def inputs_of(run: Path, data: Path) -> dict[str, Path]:
    """Files of one sample that has all inputs, and its id under ""."""
    from scanfuse.verbs.predict import load

    predictor = load(run, device="cpu")
    manifest = predictor.system.data.open(data, split=False)
    samples = predictor.system.data.dataset(manifest, train=False)
    sample = next(each for each in (samples[k] for k in range(len(samples))) if all(each["present"].values()))
    meta = sample["meta"]
    files = {name: meta["paths"][name] for name in predictor.modalities if name in meta["paths"]}
    if files.get("image", Path()).suffix == ".hdf5":  # a sample by hand is a file of its own
        Image.fromarray(read_image(files["image"], member=meta["id"]).pixels).save(run.with_name("picture.png"))
        files["image"] = run.with_name("picture.png")
    if "table" in predictor.modalities:
        table = manifest.table[manifest.table["id"] == meta["id"]]
        files["table"] = run.with_name("row.csv")
        table.to_csv(files["table"], index=False)
    return {**files, "": Path(meta.get("study", meta["id"]))}


def explain(run: Path, data: Path, inputs: dict[str, Path]) -> list[str]:
    return ["explain", str(run), "--data", str(data), "--id", str(inputs[""])]


def predict_joined(run: Path, data: Path, inputs: dict[str, Path]) -> list[str]:
    return ["predict", str(run), str(run.with_name("other")), "--data", str(data)]


def evaluate_joined(run: Path, data: Path, inputs: dict[str, Path]) -> list[str]:
    return ["evaluate", str(run), str(run.with_name("other")), "--data", str(data), "--ensemble", "--quiet"]


def predict_one_input(run: Path, data: Path, inputs: dict[str, Path]) -> list[str]:
    name, path = next(iter(inputs.items()))
    return ["predict", str(run), f"--{name.replace('_', '-')}", str(path)]


def predict_with_baselines(run: Path, data: Path, inputs: dict[str, Path]) -> list[str]:
    return ["predict", str(run), "--data", str(data), "--baselines", "average"]


# Ability -> whose it is and which members it has; and every verb that needs it, with what it says without.
Verb = Callable[[Path, Path, dict[str, Path]], list[str]]
ABILITIES: dict[str, tuple[str, tuple[str, ...], list[tuple[Verb, str]]]] = {
    "evidence": ("system", ("evidence",), [(explain, "which has no heat maps to show")]),
    "explain": ("task", tuple(members(Explains)), [(explain, "which has no heat maps to show")]),
    "joined": (
        "task",
        tuple(members(Joins)),
        [(predict_joined, "cannot be joined: give one run"), (evaluate_joined, "evaluate them without --ensemble")],
    ),
    "missing_inputs": ("system", ("missing_inputs",), [(predict_one_input, "is missing; this run takes")]),
    "completed": ("system", ("completed",), []),  # a training uses them where they are, and needs none
    "start": ("system", ("start",), []),
    "fit_once": ("system", ("fit_once",), []),
    "facts": ("system", ("facts",), []),
    "adjustable": ("system", ("adjustable",), [(predict_with_baselines, "No such option: --baselines")]),
    "prepared_by": ("system", ("prepared_by",), []),
    "inner": ("system", ("inner",), []),
}
RARE = {"inner", "prepared_by"}
HAS: dict[str, set[str]] = {
    "clinicalfmamba": {"adjustable", "facts"},
    "clinicalfmamba3d": {"adjustable", "facts", "prepared_by"},
    "copd": set(ABILITIES) - {"adjustable", "fit_once", "start"},
    "fusionmamba": set(ABILITIES) - {"adjustable", "fit_once", "joined", *RARE},
    "mambaderm": set(ABILITIES) - {"adjustable", *RARE},
    "plain": set(ABILITIES) - {"adjustable", "fit_once", *RARE},
    "plain3d": set(ABILITIES) - {"adjustable", "fit_once", *RARE},
    "xfmamba": set(ABILITIES) - {"adjustable", "fit_once", *RARE},
}


def test_every_optional_ability_is_here() -> None:
    optional = {"task": {*members(Explains), *members(Joins)}, "system": set(members(systems.Abilities))}
    for part, wanted in optional.items():
        assert {member for owner, each, _ in ABILITIES.values() if owner == part for member in each} == wanted
    for name in systems.available():
        has = {ability for ability, (part, each, _) in ABILITIES.items() if hasattr(part_of(name, part), each[0])}
        assert has == HAS[name]


@pytest.mark.parametrize("ability", ABILITIES)
@pytest.mark.parametrize("name", systems.available())
def test_without_an_optional_ability_its_verb_says_so_and_the_rest_works(
    name: str,
    ability: str,
    runs: dict[str, Path],
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: Patch,
    capsys: Capture,
) -> None:
    run, data = runs[name], folders[name]
    part, wanted, verbs = ABILITIES[ability]
    inputs = inputs_of(run, data)

    def out(folder: str) -> list[str]:
        return ["--out", str(tmp_path / folder)]

    if ability in HAS[name]:
        for verb, _ in verbs:
            assert main([*verb(run, data, inputs), *out("with")]) == 0
        kind = part_of(name, part)
        for member in wanted:
            assert remove(kind, member, monkeypatch)
    for verb, line in verbs:
        assert line in fails([*verb(run, data, inputs), *out("without")], capsys)
        assert not (tmp_path / "without").exists()
    assert main(["evaluate", str(run), "--data", str(data), "--quiet", *out("table")]) == 0
    assert (tmp_path / "table" / "table.md").is_file()
    flags = [f"--{input_name.replace('_', '-')}={path}" for input_name, path in inputs.items() if input_name]
    assert main(["predict", str(run), *flags, *out("one")]) == 0
    assert main(["predict", str(run), "--data", str(data), *out("all")]) == 0
    assert (tmp_path / "all" / "predictions.csv").is_file()
    if not verbs:
        assert train(name, data, tmp_path / "again") == 0


def test_the_demonstration_of_a_system_without_heat_maps(
    tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It explains nothing, whether the system or its task is the one that cannot."""
    task = part_of("xfmamba", "task")
    for member in members(Explains):
        remove(task, member, monkeypatch)
    assert main(["demo", "xfmamba", "--quick", "--out", str(tmp_path)]) == 0
    assert not (tmp_path / "run" / "explanations").exists()
    assert "DeLong" in capsys.readouterr().out
