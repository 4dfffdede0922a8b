"""Made-up heads as a user's own pairs: a manifest.csv with a path column for each modality."""

from pathlib import Path

from scanfuse.data.readers import write_image
from scanfuse.data.synthetic import harvard
from scanfuse.data.synthetic._folder import empty_folder
from scanfuse.data.synthetic.harvard import FACTS, Options
from scanfuse.files import write_text

__all__ = ["FACTS", "Options", "write"]


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/manifest.csv and <root>/images; the same options give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    lines = [",".join(["id", "group", *map(str.lower, options.modalities)])]
    for number in range(1, options.cases + 1):
        pictures = harvard.render(
            number, slices=options.slices, size=options.size, seed=options.seed, modalities=options.modalities
        )
        for index, picture in enumerate(pictures, start=1):
            slice_id = f"p{number:02d}-{index}"
            paths = [f"images/{slice_id}-{name.lower()}.png" for name in picture]
            lines.append(",".join([slice_id, f"p{number:02d}", *paths]))
            for path, pixels in zip(paths, picture.values(), strict=True):
                write_image(root / path, pixels)
    write_text(root / "manifest.csv", "\n".join(lines) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up heads, no patients: {options.cases} cases of {options.slices} slices, size {options.size}, "
        f"seed {options.seed}, as a table of pairs.\nWritten by ScanFuse. Not for any medical statement.\n",
    )
    return root
