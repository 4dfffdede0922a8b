"""Published weights to this library's form: what `scanfuse import` does."""

import os
from pathlib import Path

from safetensors.torch import save_file

from scanfuse.backbones.vmamba import read_checkpoint
from scanfuse.backbones.vmamba_checkpoint import Report, Section
from scanfuse.config import write_yaml
from scanfuse.errors import UserError
from scanfuse.files import atomic_path
from scanfuse.foreign import check_file

__all__ = ["import_vmamba"]


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
    out = Path(out)
    taken = [name for name in ("weights.safetensors", "config.yaml") if os.path.lexists(out / name)]
    if taken:
        raise UserError(f"{out} already holds {' and '.join(taken)}: choose another folder.")
    if not os.path.isdir(file):
        check_file(file, "checkpoint")
    model, report = read_checkpoint(file, section=section)
    with atomic_path(out / "weights.safetensors") as temporary:
        save_file(model.state_dict(), temporary)
    try:
        write_yaml(model.config, out / "config.yaml")
    except UserError:
        (out / "weights.safetensors").unlink(missing_ok=True)  # half an import would be refused as one
        raise
    return report
