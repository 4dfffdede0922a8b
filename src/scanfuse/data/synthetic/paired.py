"""Made-up heads as plain pairs: a folder for each modality, equal names, such as p03_s2.png."""

from pathlib import Path

from scanfuse.data.readers import write_image
from scanfuse.data.synthetic import harvard
from scanfuse.data.synthetic._folder import empty_folder
from scanfuse.data.synthetic.harvard import FACTS, Options
from scanfuse.files import write_text

__all__ = ["FACTS", "Options", "write"]


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    r"""Writes <root>/<MODALITY>/p<case>_s<slice>.png; the same options give the same bytes.

    Slices of a head share what a group pattern such as ^(p\d+)_ finds in the name.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    for number in range(1, options.cases + 1):
        pictures = harvard.render(
            number, slices=options.slices, size=options.size, seed=options.seed, modalities=options.modalities
        )
        for index, picture in enumerate(pictures, start=1):
            for name, pixels in picture.items():
                write_image(root / name / f"p{number:02d}_s{index}.png", pixels)
    write_text(
        root / "ABOUT.txt",
        f"Made-up heads, no patients: {options.cases} cases of {options.slices} slices, size {options.size}, "
        f"seed {options.seed}, as plain pairs.\nWritten by ScanFuse. Not for any medical statement.\n",
    )
    return root
