"""Made-up bone X-rays as a user's own studies: one manifest.csv with a row per image, frontal (PA) and lateral (L).

The studies are those of the MURA phantom, in one folder and without a split: train, val and test are made by patient.
"""

from pathlib import Path

from scanfuse.data.synthetic import mura
from scanfuse.data.synthetic._film import encoded, save
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.data.synthetic.mura import Options
from scanfuse.files import write_text

__all__ = ["FACTS", "Options", "write"]

FACTS = Facts(counted="patients", seconds=mura.FACTS.seconds)


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/manifest.csv and <root>/images; the same options give the same bytes.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    lines = ["study,patient,path,view,label,part"]
    for study in mura.studies(options):
        patient = f"p{study.patient:05d}"
        name = f"{patient}-{study.number}"
        for index, pixels in enumerate(study.pictures):
            path = f"images/{name}-{index + 1}.png"
            view = ("PA", "L")[index % 2]
            lines.append(f"{name},{patient},{path},{view},{int(study.is_positive)},{study.part}")
            save(root / path, encoded(pixels, "PNG"))
    write_text(root / "manifest.csv", "\n".join(lines) + "\n")
    write_text(
        root / "ABOUT.txt",
        f"Made-up bones, no patients: {options.patients} numbers, size {options.size}, seed {options.seed}, "
        "as a table of studies.\nWritten by ScanFuse. Not for any medical statement.\n",
    )
    return root
