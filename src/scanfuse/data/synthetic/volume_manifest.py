"""Made-up brains as a user's own volumes: a manifest.csv with a path column for each modality."""

from pathlib import Path

from scanfuse.data.synthetic._folder import empty_folder
from scanfuse.data.synthetic.brats import FACTS, grades_of, render, write_picture
from scanfuse.data.synthetic.paired_volumes import Options
from scanfuse.files import write_text

__all__ = ["FACTS", "Options", "write"]


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/manifest.csv and <root>/volumes; the same options give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    lines = [",".join(["id", "group", "target", *options.modalities])]
    for number, grade in enumerate(grades_of(options.patients, options.seed), start=1):
        pictures = render(number, grade == "HGG", size=options.size, seed=options.seed)
        paths = [f"volumes/p{number:02d}-{name}.nii.gz" for name in options.modalities]
        lines.append(",".join([f"p{number:02d}", f"p{number:02d}", grade, *paths]))
        for path, name in zip(paths, options.modalities, strict=True):
            write_picture(root / path, pictures[name])
    write_text(root / "manifest.csv", "\n".join(lines) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up brains, no patients: {options.patients} volumes of {options.size} columns, seed {options.seed}, as "
        "a table of pairs.\nWritten by ScanFuse. Not for any medical statement.\n",
    )
    return root
