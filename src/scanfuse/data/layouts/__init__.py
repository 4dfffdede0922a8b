"""From a published folder layout to a manifest; the file names of this folder are the layouts.

A layout is a module with the members of `Layout`. An input kind asks for the layouts of its kind by a word that the
module states itself (`KIND`), so nothing lists them a second time: a new layout is one file.

    manifest = open_manifest("MURA-v1.1", "view_pairs", Request(incomplete="keep"), options={"parts": "WRIST+HAND"})
"""

import difflib
import importlib
import os
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from scanfuse.config import Section
from scanfuse.data.layouts._options import options_of
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError

__all__ = ["Incomplete", "Layout", "NothingFits", "Request", "check_name", "find", "load", "names", "open_manifest"]

Incomplete = Literal["error", "keep", "drop"]


class NothingFits(UserError):
    """A folder is in no layout of the input kind that was to read it."""


@dataclass(frozen=True)
class Request:
    """What is wanted of a data set, whatever its layout.

    Attributes:
        modalities: the inputs by name, in any case, such as ("CT", "MRI"); the manifest has them in this order and
            in lower case. Empty for kinds that take what is there.
        split: "made": the splits of a training, by group; parts that are published or given apart stay, the rest is
            cut with `seed`. "published": what the data set comes with, labelled leaky where groups are in two splits.
            "none": nothing is made, and targets are not needed: one patient must be enough.
        seed: of what is cut.
        fractions: shares of the rows for train, val and test; None: those of the layout.
        group_pattern: regular expression; its first bracket (or the whole match) in the id is the group.
        incomplete: what happens to samples that lack an input: they are an error, kept, or left out.

    Raises:
        UserError: a modality without a name, or twice the same.
    """

    modalities: tuple[str, ...] = ()
    split: Literal["made", "published", "none"] = "made"
    seed: int = 0
    fractions: Mapping[str, float] | None = None
    group_pattern: str | None = None
    incomplete: Incomplete = "error"

    def __post_init__(self) -> None:
        plain = tuple(name.strip().lower() for name in self.modalities)
        if len(set(plain)) != len(plain) or not all(plain):
            raise UserError(f"Name different modalities, such as CT,MRI; got {', '.join(self.modalities)}.")
        object.__setattr__(self, "modalities", plain)

    def refuse(self, layout: str, *names: str) -> None:
        """Raises UserError if one of these wishes, which `layout` has no use for, was stated."""
        defaults = {field.name: field.default for field in fields(self)}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise UserError(f"The layout {layout!r} has no use for {name.replace('_', ' ')}; leave it out.")


class Layout(Protocol):
    """A module of this folder.

    Attributes:
        LAYOUT: the folders and files that it expects.
        CITATION, LICENCE, HOW_TO_GET: of the data.
        EXPECTED: part -> published counts, in the order that the module says; empty for a user's own data.
        RANK: which layout wins where several match.
        KIND: the input kind that reads it.
        PHANTOM: the module of `scanfuse.data.synthetic` that writes made-up data in this layout.
        Options: what can be chosen, as a frozen section with descriptions.

    Optional: SUBMISSION, the columns of id and score in the file that a challenge on these data takes.
    """

    LAYOUT: str
    CITATION: str
    LICENCE: str
    HOW_TO_GET: str
    EXPECTED: Mapping[str, tuple[int, ...]]
    RANK: int
    KIND: str
    PHANTOM: str
    Options: type[Section]

    def matches(self, root: Path, request: Request) -> bool:
        """True if `root` looks like this layout."""

    def read(self, root: Path, request: Request, options: Any) -> Manifest:
        """The manifest of the data under `root`; `options` are of the type `Options`."""


def names(kind: str | None = None) -> tuple[str, ...]:
    """The names of the layouts, sorted; of one kind, or all."""
    listed = (module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return tuple(sorted(name for name in listed if kind is None or kind == load(name).KIND))


def load(name: str) -> Layout:
    """The module of one layout; UserError for an unknown name."""
    _check(name, names())
    return cast(Layout, importlib.import_module(f"{__name__}.{name}"))


def check_name(name: str, kind: str) -> None:
    """Raises UserError, with the nearest name, unless `name` is "auto" or a layout of this kind."""
    if name != "auto":
        _check(name, names(kind))


def find(root: Path, kind: str, request: Request) -> str:
    """The layout of `root`: of those of the kind that match, the one of the highest rank.

    Raises:
        UserError: there is no such folder; NothingFits: no layout fits.
    """
    _check_exists(root)
    found = [name for name in names(kind) if load(name).matches(root, request)]
    if not found:
        raise NothingFits(_nothing_fits(root, kind, request))
    return max(found, key=lambda name: load(name).RANK)


def open_manifest(
    root: str | Path,
    kind: str,
    request: Request,
    layout: str = "auto",
    *,
    options: Mapping[str, Any] | None = None,
) -> Manifest:
    """Finds the layout of `root` and reads it.

    Args:
        root: a folder, or a manifest.csv.
        kind: the input kind that will read the files.
        request: what is wanted.
        layout: a file name of this folder, or "auto".
        options: of the layout, as values or as text (several words joined by "+").

    Raises:
        UserError: no such folder, no layout fits, an option is wrong, or what the layout finds wrong.
    """
    root = Path(root)
    check_name(layout, kind)
    _check_exists(root)
    name = find(root, kind, request) if layout == "auto" else layout
    module = load(name)
    if not module.matches(root, request):
        raise UserError(f"{root} is not in the layout {name!r}: expected {module.LAYOUT}.")
    chosen = options_of(name, module.Options, options or {})
    manifest = module.read(root.absolute(), request, chosen)
    return replace(manifest, notes=(*manifest.notes, *_made_up(root)))


def _check(name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose auto, {', '.join(known)}."
        raise UserError(f"Unknown layout {name!r}; {hint}")


def _check_exists(root: Path) -> None:
    if not os.path.exists(root):
        raise UserError(
            f"{root} does not exist; give the folder of the data set or make one with scanfuse data synth."
        )


def _nothing_fits(root: Path, kind: str, request: Request) -> str:
    upper = [name.upper() for name in request.modalities]
    wanted = f"of {' and '.join(upper)}" if upper else f"in a known layout ({', '.join(names(kind))})"
    inside = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir()) if root.is_dir() else []
    listing = ", ".join(inside[:6]) + (", ..." if len(inside) > 6 else "") if inside else "nothing"
    holds = f"it holds {listing}" if root.is_dir() else "a file"
    expected = (
        f"a manifest.csv or the folders {'/ and '.join(upper)}/"
        if upper
        else "the published folder, or a manifest.csv"
    )
    return f"No data set {wanted} in {root} ({holds}); expected {expected}.{_of_another_kind(root, request)}"


def _of_another_kind(root: Path, request: Request) -> str:
    """A sentence that says which published data set this is, of those that other input kinds read."""
    others = [name for name in names() if load(name).EXPECTED and load(name).matches(root, request)]
    if not others:
        return ""
    name = max(others, key=lambda name: load(name).RANK)
    return f" It looks like {name!r}, data of another kind ({load(name).KIND.replace('_', ' ')})."


def _made_up(root: Path) -> tuple[str, ...]:
    """The note that every result on phantoms carries, from the ABOUT.txt in, above or just below `root`."""
    below = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    for folder in (root, root.parent, *below):
        about = folder / "ABOUT.txt"
        if about.is_file() and about.read_bytes().startswith(b"Made-up "):
            return ("phantoms: made-up pictures of nobody",)
    return ()
