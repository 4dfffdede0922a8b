"""What the pages say exists: commands, options, values, links. One page is run by `test_adding`."""

import re
import shlex
from pathlib import Path

import click
import pytest

from scanfuse import cli, config, systems
from scanfuse.data import synthetic
from scanfuse.options import Leaf, leaves, option_name
from scanfuse.verbs.check import options_on_data

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
OF_SYSTEMS = [f"docs/{name}.md" for name in systems.available() if f"docs/{name}.md" in PAGES]
IN_TRAIN = {"data", "out", "preset", "from", "resume", "quiet", "help"}


def commands(text: str) -> list[list[str]]:
    """The words of every command `scanfuse ...` in a fenced block, without comments; broken lines are joined."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("   #")[0] for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("scanfuse ")]


def options(words: list[str]) -> dict[str, str]:
    """Name -> value, or "" where none follows."""
    found = {}
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            found[word[2:]] = "" if after.startswith("--") else after
    return found


def leaves_by_flag(name: str) -> dict[str, Leaf]:
    return {flag: leaf for leaf in leaves(systems.load(name).Config) for flag in leaf.names}


def of_click(command: click.Command) -> set[str]:
    return {option.removeprefix("--") for parameter in command.params for option in parameter.opts} | {"help"}


def inputs() -> set[str]:
    """Inputs of all systems as `predict` takes them, and settings that it may change."""
    types = {name: systems.load(name) for name in systems.available()}
    built = [types[name](config.build(types[name].Config, config.preset(name, "tiny"))) for name in types]
    changed = {name for system in built for name in systems.ability(system, "adjustable") or ()}
    return {option_name(modality) for system in built for modality in system.data.modalities} | changed


def known_options(words: list[str], given: dict[str, str]) -> set[str]:
    """The options that a command can have."""
    group = cli._commands.commands
    verb, rest = words[1], words[2:]
    assert verb in group, words
    if verb == "train":
        if "resume" in given or "from" in given:
            return IN_TRAIN
        assert rest[0] in systems.available(), words
        assert given.get("preset", "tiny") in config.presets(rest[0]), words
        by_flag = leaves_by_flag(rest[0])
        for name, value in given.items():
            choices = by_flag[name].choices if name in by_flag else None
            assert choices is None or value in choices, f"{words}: {value}"
        return IN_TRAIN | set(by_flag)
    if words[1:3] == ["data", "synth"]:
        return {leaf.flag for leaf in leaves(synthetic.load(rest[1]).Options)}
    if words[1:3] == ["data", "prepare"]:
        return {*(systems.ability(systems.load(rest[1]), "prepared_by") or ()), "jobs"}
    if words[1:3] == ["data", "check"]:
        return {leaf.flag for leaf in options_on_data(rest[1])}
    command = group[verb]
    if isinstance(command, click.Group):
        command = command.commands[rest[0]]
    return of_click(command) | (inputs() if verb in ("evaluate", "predict") else set())


@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if commands(text)])
def test_commands_can_be_typed(page: str) -> None:
    for words in commands(TEXTS[page]):
        given = options(words)
        renamed = {option_name(name.lower()) for name in given.get("pair", "").split("-")}
        unknown = set(given) - known_options(words, given) - renamed
        assert not unknown, f"{shlex.join(words)}: {unknown}"


def test_there_are_pages_and_commands() -> None:
    assert len(PAGES) >= 9 and len(OF_SYSTEMS) >= 2
    assert sum(len(commands(text)) for text in TEXTS.values()) >= 25
    wrong = commands("```\nscanfuse train xfmamba --data DIR --presets tiny   # no\n```\n")
    assert set(options(wrong[0])) - known_options(wrong[0], options(wrong[0])) == {"presets"}


@pytest.mark.parametrize("page", OF_SYSTEMS)
def test_options_and_values_of_a_page_exist(page: str) -> None:
    """Every `--option` in the text, and in tables of options also the words beside it."""
    names = [name for name in systems.available() if name.startswith(Path(page).stem)]  # a page may have two
    by_flag = {flag: leaf for name in names for flag, leaf in leaves_by_flag(name).items()}
    choices_of: dict[str, set[str]] = {}
    for name in names:
        for flag, leaf in leaves_by_flag(name).items():
            choices_of.setdefault(flag, set()).update(leaf.choices or ())
    commands_ = [*cli._commands.commands.values()]
    commands_ += [each for group in commands_ if isinstance(group, click.Group) for each in group.commands.values()]
    others = set().union(*map(of_click, commands_))
    named = {name for code in re.findall(r"`([^`\n]+)`", TEXTS[page]) for name in re.findall(r"--([\w-]+)", code)}
    assert len(named) >= 8
    assert not named - set(by_flag) - IN_TRAIN - others - inputs()
    tabled = 0
    for flags, values in re.findall(r"^\| (`--[^|]+) \| ([^|]*) \|", TEXTS[page], re.MULTILINE):
        for flag in re.findall(r"--([\w-]+)", flags):
            choices = choices_of[flag]
            if choices and values.strip():
                tabled += 1
                assert {word.strip() for word in values.split(",")} <= choices, f"--{flag}: {values}"
    assert tabled >= 3


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if "://" not in target and not target.startswith("#"):
            assert (PAGES[page].parent / target.partition("#")[0]).exists(), f"{page}: {target}"


def test_the_index_lists_every_page() -> None:
    listed = set(re.findall(r"\]\((\w+\.md)\)", TEXTS["docs/index.md"]))
    assert listed == {name.removeprefix("docs/") for name in PAGES if name.startswith("docs/")} - {"index.md"}
