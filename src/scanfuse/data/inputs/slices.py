"""Which slices of volumes are meant, where they are asked for."""

from dataclasses import replace
from pathlib import Path

from scanfuse.data.manifest import SLICE, Manifest, Row
from scanfuse.data.readers import SliceChoice, list_slices
from scanfuse.data.readers.slices import AXES
from scanfuse.errors import UserError

__all__ = ["checked_slice", "chosen", "slice_of", "slice_of_volumes", "with_slices"]


def checked_slice(text: str) -> str:
    """The text of a setting, if it names a slice; "" for none. ValueError, as pydantic wants it, if it does not."""
    try:
        return str(SliceChoice.parse(text)) if text else ""
    except UserError as error:
        raise ValueError(str(error).removesuffix(".")) from None


def chosen(text: str) -> SliceChoice | None:
    """What to give `read_image` for a sample from files, by the text of a setting."""
    return SliceChoice.parse(text) if text else None


def slice_of(row: Row) -> SliceChoice | None:
    """What to give `read_image` for the files of a row."""
    return chosen(row.slice)


def slice_of_volumes(row: Row, path: Path) -> SliceChoice | None:
    """As `slice_of`, for one file of a row; None for a picture beside volumes, such as one made of their slice."""
    choice = slice_of(row)
    is_picture = choice is not None and choice.axis in AXES and not path.name.lower().endswith((".nii", ".nii.gz"))
    return None if is_picture else choice


def with_slices(manifest: Manifest, text: str) -> Manifest:
    """The manifest with the slice that is meant noted in every row; for "axial:all" with a row for every slice.

    Raises:
        UserError: the files of a row differ in the number of their slices.
    """
    if not text:
        return manifest
    choice = SliceChoice.parse(text)
    if choice.index != "all":
        return replace(manifest, table=manifest.table.assign(**{SLICE: str(choice)}))
    numbers, ids, chosen = [], [], []
    for number, row in enumerate(manifest.rows):
        found = {name: list_slices(path, choice) for name, path in row.paths.items()}
        counts = {name: len(slices) for name, slices in found.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise UserError(f"{row.id!r} has volumes of different numbers of {choice.axis} slices ({said}).")
        for place, one in enumerate(next(iter(found.values()), ())):
            numbers.append(number)
            ids.append(f"{row.id}_{choice.axis}{place:03d}")
            chosen.append(str(one))
    table = manifest.table.iloc[numbers].reset_index(drop=True).assign(id=ids, **{SLICE: chosen})
    return replace(manifest, table=table)
