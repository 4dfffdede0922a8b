"""`scanfuse data prepare`: raw scans, once and for all, into the files that a training reads.

What a raw case is and what becomes of it, the input kind says. A case that is there already is passed over, so a
stopped run goes on where it was; one that cannot be prepared is a line of prepared.csv and stops nothing.
"""

import csv
import io
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import get_console
from rich.progress import track

from scanfuse import config as configuration
from scanfuse import systems
from scanfuse.errors import UserError
from scanfuse.files import write_text
from scanfuse.foreign import read_json
from scanfuse.options import Leaf, leaves, nested, pairs, words_and_options

__all__ = ["Prepared", "prepare", "run"]

_RECORD, _TABLE = "prepared.json", "prepared.csv"


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did: cases that it made, that were there, and that failed (name -> why), and in what time."""

    made: int
    there: int
    failed: Mapping[str, str]
    seconds: float

    def summary(self, out: Path) -> str:
        """It in a sentence."""
        rest = f"; {len(self.failed)} failed (see {_TABLE})" if self.failed else ""
        there = f", {self.there} were there" if self.there else ""
        return f"Prepared {self.made} case(s) in {out}{there}{rest}: {self.seconds:.0f} s."


def prepare(data: Any, raw: Path, out: Path, *, jobs: int = 0, quiet: bool = True) -> Prepared:
    """Prepares every case under `raw` that `out` does not hold yet.

    Args:
        data: an input kind with the abilities `raw_cases` and `convert`.
        raw, out: folders.
        jobs: processes; 0 = one for each core.
        quiet: no progress.

    Raises:
        UserError: nothing to prepare, or `out` was prepared with other settings.
    """
    started = time.perf_counter()
    if out.resolve() == raw.resolve():
        raise UserError(f"{out} holds the raw data: name another folder for what is made of them.")
    cases, companions = data.raw_cases(raw)
    settings = data.how_prepared()
    record = out / _RECORD
    if record.exists() and read_json(record) != settings:
        raise UserError(f"{out} was prepared with other settings ({record}): use those, or name a new folder.")
    write_text(record, json.dumps(settings, indent=2) + "\n")
    for name, file in companions.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out / name)
    rows = _rows_of(out / _TABLE)
    todo = {name: source for name, source in cases.items() if not (out / name).exists()}
    failed: dict[str, str] = {}
    hidden = quiet or not get_console().is_terminal
    found = _each(data, todo, out, min(jobs or os.cpu_count() or 1, max(len(todo), 1)))
    for name, said, error in track(found, "preparing", len(todo), transient=True, disable=hidden):
        rows[name] = {"file": name, **said, "error": error}
        if error:
            failed[name] = error
    _write_rows([rows[name] for name in sorted(rows)], out / _TABLE)
    return Prepared(len(todo) - len(failed), len(cases) - len(todo), failed, time.perf_counter() - started)


def run(words: Sequence[str], *, jobs: int = 0) -> tuple[str, int]:
    """Does what the words of the command ask for; returns what to say, and the exit code."""
    named, options = words_and_options(words, flags=("help",))
    if "--help" in options or "-h" in named or not named:
        return _help(named[0] if named and named[0] != "-h" else None), 0
    if len(named) != 3:
        raise UserError("Name the system and two folders, such as: scanfuse data prepare copd RAW DIR")
    name, raw, out = named[0], Path(named[1]), Path(named[2])
    found = _options(name)
    given = pairs(options, [leaf.flag for leaf in found])
    system_type = systems.load(name)
    base = configuration.preset(name, system_type.default_preset)
    system = systems.build(configuration.build(system_type.Config, base, nested(found, given)))
    if systems.ability(system.data, "convert") is None:
        raise UserError(f"{name} takes its data as they are: there is nothing to prepare.")
    done = prepare(system.data, raw, out, jobs=jobs, quiet=False)
    lines = [f"{case}: {why}" for case, why in list(done.failed.items())[:5]]
    return "\n".join([*lines, done.summary(out)]), 2 if done.failed else 0


def _each(data: Any, todo: Mapping[str, Path], out: Path, jobs: int) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Name, what there is to say, and why it failed, of every case as it is done."""
    if jobs == 1:
        for name, source in todo.items():
            yield name, *_one(data, source, out / name)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_one, data, source, out / name): name for name, source in todo.items()}
        for done in as_completed(waiting):
            yield waiting[done], *done.result()


def _one(data: Any, source: Path, target: Path) -> tuple[dict[str, Any], str]:
    """What there is to say of a case, and why it failed; in a process of its own."""
    try:
        return data.convert(source, target), ""
    except UserError as error:
        return {}, str(error)


def _options(name: str) -> list[Leaf]:
    """The options of a system that change what is prepared."""
    wanted = systems.ability(systems.load(name), "prepared_by") or ()
    return [leaf for leaf in leaves(systems.load(name).Config) if leaf.flag in wanted]


def _help(name: str | None) -> str:
    lines = ["scanfuse data prepare SYSTEM RAW DIR", "  --jobs INTEGER  processes; 0 = all cores [0]"]
    for leaf in _options(name) if name else []:
        lines.append(f"  --{leaf.flag} {leaf.kind.upper()}  {leaf.field.description} [{leaf.field.default}]")
    return "\n".join(lines)


def _rows_of(file: Path) -> dict[str, dict[str, Any]]:
    if not file.exists():
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        return {row["file"]: dict(row) for row in csv.DictReader(lines) if row.get("file")}


def _write_rows(rows: Sequence[dict[str, Any]], file: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n", restval=""
    )
    writer.writeheader()
    writer.writerows(rows)
    write_text(file, text.getvalue())
