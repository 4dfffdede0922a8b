"""Published weights to this library's form: what `scanfuse import` does."""

import os
from pathlib import Path

from pydantic import BaseModel
from safetensors.torch import save_file
from torch import Tensor

from scanfuse.backbones import yolov8_checkpoint
from scanfuse.backbones.vmamba import read_checkpoint
from scanfuse.backbones.vmamba_checkpoint import Report, Section
from scanfuse.config import write_yaml
from scanfuse.errors import UserError
from scanfuse.files import atomic_path
from scanfuse.foreign import check_file

__all__ = ["import_vmamba", "import_yolov8"]


def import_vmamba(file: str | Path, out: str | Path, *, section: Section = "auto") -> Report:
    """Reads a published VMamba checkpoint and writes `out`/weights.safetensors and `out`/config.yaml.

    `scanfuse.backbones.vmamba.load_checkpoint(out)` gives the network back.

    Args:
        file: .pth or .safetensors of either family, whose weights are under `model`, `model_ema` or bare.
        out: the folder to write; must not hold an import already.
        section: which weights to take where the file has averaged ones too.

    Returns:
        What was matched, missing and skipped; `str(report)` is for people.

    Raises:
        UserError: the file cannot be used (one line says why), or `out` is taken or cannot be written.
    """
    _refuse_taken(out)
    if not os.path.isdir(file):
        check_file(file, "checkpoint")
    model, report = read_checkpoint(file, section=section)
    _write(Path(out), model.state_dict(), model.config)
    return report


def import_yolov8(file: str | Path, out: str | Path) -> yolov8_checkpoint.Report:
    """Reads a published YOLOv8 detector and writes `out`/weights.safetensors, under our names, and `out`/config.yaml.

    `scanfuse.backbones.yolov8_checkpoint.read_published(out)` gives the same back.

    Args:
        file: .safetensors, or a dictionary of tensors that `torch.save` wrote.
        out: the folder to write; must not hold an import already.

    Returns:
        What was matched and skipped; `str(report)` is for people.

    Raises:
        UserError: the file cannot be used (one line says why), or `out` is taken or cannot be written.
    """
    _refuse_taken(out)
    published = yolov8_checkpoint.read_published(file)
    _write(Path(out), published.state, published.config)
    return yolov8_checkpoint.Report(
        file=Path(file),
        description=f"{yolov8_checkpoint.describe(published.config)}, {published.num_classes} classes",
        matched=tuple(published.state),
        skipped=published.skipped,
    )


def _refuse_taken(out: str | Path) -> None:
    taken = [name for name in ("weights.safetensors", "config.yaml") if os.path.lexists(Path(out) / name)]
    if taken:
        raise UserError(f"{out} already holds {' and '.join(taken)}: choose another folder.")


def _write(out: Path, state: dict[str, Tensor], config: BaseModel) -> None:
    with atomic_path(out / "weights.safetensors") as temporary:
        save_file(state, temporary)
    try:
        write_yaml(config, out / "config.yaml")
    except UserError:
        (out / "weights.safetensors").unlink(missing_ok=True)  # half an import would be refused as one
        raise
