"""The drawing of docs/architecture.md is true: every module is parsed, and imports, size and seams are as it says."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

import scanfuse
from scanfuse import systems

ROOT = Path(scanfuse.__file__).parent
PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
ENGINES = ("scanfuse.verbs", "scanfuse.cli")
MODELS = {"systems", "verbs", "tasks", "backbones", "fusion"}
BELOW_MODELS = ("data", "metrics", "stats", "explain", "ops", "layers")
# Where a module is imported by a name in a string: folders that are listed, and what is loaded on demand.
LISTINGS = {
    ("scanfuse.systems", "load"),
    ("scanfuse.systems", "summary"),
    ("scanfuse.data.layouts", "load"),
    ("scanfuse.data.synthetic", "load"),
}
ON_DEMAND = {
    ("scanfuse.data.readers", "_reader"),
    ("scanfuse.ops.route_conv", "_has_numba"),
    ("scanfuse.ops.selective_scan.backends", "load"),
    ("scanfuse.ops.selective_scan.backends", "_obstacle"),
}


def module_name(path: Path) -> str:
    parts = ["scanfuse", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def room(module: str) -> str:
    """The first floor below the package: scanfuse.data.layouts.mura -> data; "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def imported(name: str, tree: ast.Module, *, types_too: bool) -> Iterator[str]:
    """The modules of this package that a module imports, anywhere in it; with or without `if TYPE_CHECKING:`."""
    skipped = set()
    if not types_too:
        blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
        types = [node for node in blocks if ast.unparse(node.test).endswith("TYPE_CHECKING")]
        skipped = {inner for node in types for part in node.body for inner in ast.walk(part)}
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "scanfuse")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            if str(node.module).split(".")[0] == "scanfuse":
                members = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from (member if member in FILES else str(node.module) for member in members)


def arrows(*, types_too: bool) -> dict[str, set[str]]:
    return {name: set(imported(name, tree, types_too=types_too)) for name, tree in TREES.items()}


def allowed() -> dict[str, set[str]]:
    """Room -> rooms that it may import, from the table of the page."""
    table = PAGE.partition("\n## Rooms\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| [^|]+ \| ([a-z_, ]+) \|$", table, re.MULTILINE)
    return {
        name: set() if below == "nothing" else set(below.split(", "))
        for names, below in rows
        for name in re.findall(r"`(\w+)`", names)
    }


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A way from a node back to itself; empty if there is none.

    >>> circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})
    ['b', 'c', 'b']
    """
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for below in sorted(graph.get(node, ())):
            found = walk(below, [*way, node])
            if found:
                return found
        done.add(node)
        return []

    for start in sorted(graph):
        found = walk(start, [])
        if found:
            return found
    return []


def between_rooms() -> dict[tuple[str, str], list[str]]:
    """(room, room) -> the modules of the first that import the second, types too; without the package itself."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, below in arrows(types_too=True).items():
        for each in below:
            if room(name) and room(each) and room(name) != room(each):
                found.setdefault((room(name), room(each)), []).append(name)
    return found


def test_the_table_names_every_room_and_has_no_circle() -> None:
    table = allowed()
    assert len(FILES) > 150
    assert set(table) == {room(name) for name in FILES if room(name)}
    assert set().union(*table.values()) <= set(table)
    assert circle(table) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_imports_point_down_the_table() -> None:
    table = allowed()
    wrong = {arrow: names for arrow, names in between_rooms().items() if arrow[1] not in table[arrow[0]]}
    assert wrong == {}
    assert len(between_rooms()) > 50
    for low in BELOW_MODELS:
        assert not table[low] & MODELS, low


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert circle(arrows(types_too=False)) == []


def test_the_package_itself_is_only_a_door() -> None:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.Import) and any(alias.name == "scanfuse" for alias in node.names)), name
            if isinstance(node, ast.ImportFrom) and node.module == "scanfuse" and name != "scanfuse":
                own = [alias.name for alias in node.names if f"scanfuse.{alias.name}" not in FILES]
                assert own in ([], ["__version__"]), name
    at_once = [node for node in TREES["scanfuse"].body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [node for node in at_once if "scanfuse" in ast.unparse(node)] == []


def test_phantoms_are_for_verbs_and_tests() -> None:
    users = {
        name for name, below in arrows(types_too=True).items() if any("data.synthetic" in each for each in below)
    }
    assert users and all(name.startswith(("scanfuse.verbs", "scanfuse.data.synthetic")) for name in users), users


def test_ops_and_layers_can_be_lifted_out() -> None:
    """They import torch, numpy, the standard library and, where a backend is used, numba, llvmlite or triton."""
    known = {"torch", "numpy", "numba", "llvmlite", "triton", "scanfuse", "jaxtyping", *sys.stdlib_module_names}
    found = set()
    for name, tree in TREES.items():
        if room(name) in ("ops", "layers"):
            for node in ast.walk(tree):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
                found |= {each.split(".")[0] for each in names}
    assert {"torch", "numpy"} <= found <= known


def type_tests(tree: ast.AST, known: set[str]) -> list[str]:
    """What in an engine asks a system, an input kind or a task what it is, as source."""
    classes = {"System", "Task", "Inputs", "Model"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and re.match(
            r"scanfuse\.(systems|tasks|data\.inputs)\b", str(node.module)
        ):
            # A failure is a result, not a task.
            classes |= {alias.asname or alias.name for alias in node.names} - {"Failure", "ability"}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called, texts = ast.unparse(node.func), [ast.unparse(argument) for argument in node.args]
            parts = bool(texts) and re.search(r"\b(system|task|data|system_type)$", texts[0]) is not None
            asks = called == "hasattr" or (called in ("getattr", "type") and parts)
            if called in ("isinstance", "issubclass"):
                asks = parts or bool(set(re.findall(r"\w+", texts[1])) & classes)
            if asks:
                found.append(ast.unparse(node))
        if isinstance(node, ast.Compare):
            words = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
            if words & known:
                found.append(ast.unparse(node))
        if isinstance(node, ast.Match):
            found.append(ast.unparse(node.subject))
    return found


def names_of_kinds() -> set[str]:
    """Names of systems, tasks and input kinds, with which an engine must compare nothing."""
    parts = {name.rpartition(".") for name in FILES}
    found = {name for folder, _, name in parts if folder in ("scanfuse.tasks", "scanfuse.data.inputs")}
    return found | set(systems.available())


def test_engines_ask_nobody_what_he_is() -> None:
    engines = {name: tree for name, tree in TREES.items() if name.startswith(ENGINES)}
    known = names_of_kinds()
    assert len(engines) > 20 and {"xfmamba", "classify", "fuse", "view_pairs"} <= known
    assert {name: found for name, tree in engines.items() if (found := type_tests(tree, known))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(predictor.system.task, Other)",
        "from scanfuse.tasks.classify import Classification\nisinstance(each, list | Classification)",
        "isinstance(each, System)",
        "hasattr(system, 'evidence')",
        "getattr(predictor.system, 'evidence', None)",
        "type(task) is Other",
        "name == 'xfmamba'",
        "config.system in ('xfmamba', 'copd')",
        "issubclass(system_type, Other)",
    ],
)
def test_such_questions_are_found(line: str) -> None:
    assert type_tests(ast.parse(line), {"xfmamba"})


@pytest.mark.parametrize("line", ["isinstance(each, Failure)", "getattr(error, 'exit_code', 2)", "name == 'test'"])
def test_other_questions_are_not(line: str) -> None:
    assert type_tests(ast.parse(f"from scanfuse.tasks import Failure\n{line}"), {"xfmamba"}) == []


def functions_that_import_by_name() -> dict[tuple[str, str], list[str]]:
    """(module, function) -> what is imported or looked for there by a string, as source."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, tree in TREES.items():
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        owner = {inner: node.name for node in functions for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and re.search(
                r"\b(import_module|find_spec|__import__)$", ast.unparse(node.func)
            ):
                found.setdefault((name, owner.get(node, "")), []).append(ast.unparse(node.args[0]))
    return found


def test_only_listings_import_by_name_and_only_from_their_own_folder() -> None:
    found = functions_that_import_by_name()
    assert set(found) == LISTINGS | ON_DEMAND
    for (name, function), texts in found.items():
        for text in texts:
            own = "{__name__}." in text or f"{name.rpartition('.')[0]}." in text
            third_party = text in ("'numba'", "'triton'")
            assert own or third_party, f"{name}.{function}: {text}"
        if (name, function) in LISTINGS:
            assert texts == ["f'{__name__}.{name}'"], (name, function)


def test_files_are_short() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: count for name, count in lines.items() if count > 500} == {}
    assert median(lines.values()) <= 150
