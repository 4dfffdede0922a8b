"""Opening a file of weights from elsewhere without running anything that is in it."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scanfuse.errors import UserError

__all__ = ["open_tensors"]


def open_tensors(path: Path, *, sections: tuple[str, ...] = ("model", "state_dict")) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a dictionary that `torch.save` wrote (read with `weights_only`).

    Args:
        path: the file.
        sections: keys under which the dictionary of tensors may be, tried in turn; else the file is that dictionary.

    Raises:
        UserError: no such file, damaged, made of Python objects, or without tensors.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise UserError(
                f"{path} holds Python objects besides tensors, which could run code when loaded: save the state dict "
                "of its model as safetensors where it was made, and use that file."
            ) from None
        raise UserError(f"{path} is damaged or truncated: get it again.") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} is damaged or truncated ({reason}): get it again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors.")
    section = next((name for name in sections if isinstance(content.get(name), dict)), None)
    chosen = content if section is None else content[section]
    tensors = {str(key): value for key, value in chosen.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors{'' if section is None else f' under {section!r}'}.")
    return tensors
