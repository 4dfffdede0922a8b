"""Reading published VMamba checkpoints: find the weights, give them our names and shapes, infer the sizes.

A file is a dictionary of tensors, bare or under `model` (and averaged ones under `model_ema`), saved by torch or as
safetensors. Names, "i" the stage and "j" the block:

    published v0                     published v2             newest code, either     ours
    patch_embed.proj, .norm          patch_embed.0, .2, .5, .7                        patch_embed.{0,2}.{conv,norm}
    layers.i.blocks.j.ln_1           .norm                                            .norm
    layers.i.blocks.j.self_attention .op                                              .op
      x_proj_weight (4, R+2N, I)       the same               x_proj.weight (4(R+2N), I)     x_proj_weight
      dt_projs_weight (4, I, R)        the same               dt_projs.weight (4 I, R)       dt_projs_weight
                                     .norm2, .mlp.{fc1,fc2}                           the same
    layers.i.downsample.norm         .downsample.3            .downsample.1 (v0)      .downsample.norm
    layers.i.downsample.reduction                             .downsample.2 (v0)      .downsample.reduction
                                     .downsample.1                                    .downsample.conv
    norm, head                       classifier.norm, .head                           norm, head
                                     outnorm0 .. outnorm3 (encoders)                  out_norms.0 .. 3

Linear weights may have two trailing axes of length 1 (convolutions); they are reshaped, never transposed.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from scanfuse.errors import UserError
from scanfuse.foreign import check_file, foreign

__all__ = ["Layout", "Published", "Report", "Section", "read_published"]

Section = Literal["auto", "model", "model_ema"]

_NUM_ROUTES = 4

# Applied in turn to every name. Digits after `patch_embed.` and `downsample.` mean different things in the families.
_RENAMES = {
    "v0": (
        (r"^patch_embed\.(proj|0)\.(weight|bias)$", r"patch_embed.0.conv.\2"),
        (r"^patch_embed\.(norm|2)\.(weight|bias)$", r"patch_embed.0.norm.\2"),
        (r"\.ln_1\.", ".norm."),
        (r"\.self_attention\.", ".op."),
        (r"\.downsample\.1\.", ".downsample.norm."),
        (r"\.downsample\.2\.", ".downsample.reduction."),
    ),
    "v2": (
        (r"^patch_embed\.0\.(weight|bias)$", r"patch_embed.0.conv.\1"),
        (r"^patch_embed\.2\.(weight|bias)$", r"patch_embed.0.norm.\1"),
        (r"^patch_embed\.5\.", "patch_embed.2.conv."),
        (r"^patch_embed\.7\.", "patch_embed.2.norm."),
        (r"\.downsample\.1\.", ".downsample.conv."),
        (r"\.downsample\.3\.", ".downsample.norm."),
    ),
}
_RENAMES_OF_BOTH = (
    (r"^classifier\.", ""),
    (r"^outnorm([0-3])\.", r"out_norms.\1."),
    (r"\.x_proj\.weight$", ".x_proj_weight"),
    (r"\.dt_projs\.weight$", ".dt_projs_weight"),
)
_LINEAR = re.compile(r"\.(in_proj|out_proj|fc1|fc2|reduction|x_proj|dt_projs)\.weight$|^(classifier\.)?head\.weight$")
_BLOCK = re.compile(r"^layers\.([0-9]{1,4})\.blocks\.([0-9]{1,4})\.")


class Layout(NamedTuple):
    """What the shapes of a checkpoint say."""

    family: Literal["v0", "v2"]
    dim: int
    depths: tuple[int, ...]
    d_state: int
    ratio: float
    num_classes: int
    in_channels: int
    out_norms: tuple[int, ...]


class Published(NamedTuple):
    """The weights of a file under our names, in float32."""

    layout: Layout
    state: dict[str, Tensor]
    section: str
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What was taken from a checkpoint. `str(report)` is for people.

    Attributes:
        file: where the weights are from; section: the key they were under, "" for a bare dictionary.
        description: the network. matched: our names of the tensors that were filled.
        missing: what the file did not have and the network goes without, or keeps at its neutral initial value.
        skipped: what the file had and was not used.
    """

    file: Path
    section: str
    description: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        origin = f"{self.file} [{self.section}]" if self.section else str(self.file)
        rows = [
            f"{origin}: {self.description}",
            f"matched: {len(self.matched)} tensors",
            f"missing: {', '.join(self.missing) or 'nothing'}",
            f"skipped: {', '.join(self.skipped) or 'nothing'}",
        ]
        return "\n".join(rows)


def read_published(path: Path, *, section: Section = "auto") -> Published:
    """Reads a checkpoint of either family.

    Args:
        path: .safetensors, or anything that `torch.save` wrote (read with `weights_only`, so no code is run).
        section: see `scanfuse.backbones.vmamba.load_checkpoint`.

    Raises:
        UserError: the file cannot be read, is no VMamba checkpoint, or has unusable tensors.
    """
    tensors, name, skipped = _choose(path, _open(path), section)
    family = _family(path, tensors)
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        ours = key
        for pattern, replacement in (*_RENAMES[family], *_RENAMES_OF_BOTH):
            ours = re.sub(pattern, replacement, ours)
        if ours in state:
            raise UserError(f"{path} has {ours} under two names; it mixes two checkpoints.")
        state[ours] = _shaped(path, key, tensor)
    return Published(_layout(path, family, state), state, name, skipped)


def _open(path: Path) -> dict[str, Any]:
    check_file(path, "checkpoint")
    content: Any
    with foreign(path, "is damaged or truncated", "download it again"):
        try:
            if path.suffix == ".safetensors":
                content = load_file(path)
            else:
                content = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            if "GLOBAL" in str(error):
                raise UserError(
                    f"{path} holds Python objects besides tensors, which could run code when loaded: save its "
                    "`model` entry as safetensors where it was made, and import that file."
                ) from None
            raise UserError(f"{path} is damaged or truncated: download it again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors.")
    return content


def _choose(path: Path, content: dict[str, Any], section: Section) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """The dictionary of tensors, the key it was under, and the other keys."""
    sections = [name for name in ("model", "model_ema") if isinstance(content.get(name), dict)]
    if section != "auto" and section not in sections:
        raise UserError(f"{path} has no {section!r}; it has: {', '.join(map(str, list(content)[:6]))}.")
    name = section if section != "auto" else next(iter(sections), "")
    chosen = content[name] if name else content
    tensors = {str(key): tensor for key, tensor in chosen.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors{f' under {name!r}' if name else ''}.")
    longest = max(tensors, key=len)
    if len(longest) > 200 or not all(map(str.isprintable, tensors)):
        raise UserError(f"{path} has tensors with names of {len(longest)} characters or not printable; get it again.")
    others = [str(key)[:60] for key in content if key != name] if name else []
    others += [str(key)[:60] for key in chosen if key not in tensors]
    return tensors, name, tuple(others)


def _family(path: Path, tensors: dict[str, Tensor]) -> Literal["v0", "v2"]:
    blocks = [key for key in tensors if _BLOCK.match(key)]
    if not any(key.endswith(".A_logs") for key in blocks):
        first = ", ".join(list(tensors)[:3])
        raise UserError(f"{path} is not a VMamba checkpoint: it has no layers.*.A_logs; its tensors start {first}.")
    return "v2" if any(".mlp." in key for key in blocks) else "v0"


def _shaped(path: Path, key: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise UserError(f"{path}: {key} is {tensor.dtype}; weights must be floating point.")
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise UserError(f"{path}: {key} is {tensor.layout} on {tensor.device}; weights must be plain tensors.")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise UserError(f"{path}: {key} claims more values than the file holds; the file cannot be used.")
    if not bool(tensor.float().isfinite().all()):
        raise UserError(f"{path}: {key} has values that are not finite; the file cannot be used.")
    tensor = tensor.float()
    if _LINEAR.search(key) and tensor.dim() == 4 and tuple(tensor.shape[2:]) == (1, 1):
        tensor = tensor[:, :, 0, 0]
    if key.endswith((".x_proj.weight", ".dt_projs.weight")):
        if tensor.dim() != 2 or tensor.shape[0] % _NUM_ROUTES:
            raise UserError(f"{path}: {key} has shape {tuple(tensor.shape)}; its rows must be those of four routes.")
        tensor = tensor.unflatten(0, (_NUM_ROUTES, -1))
    return tensor.contiguous()


def _layout(path: Path, family: Literal["v0", "v2"], state: dict[str, Tensor]) -> Layout:
    blocks: dict[int, set[int]] = {}
    for key in state:
        if match := _BLOCK.match(key):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    if sorted(blocks) != [0, 1, 2, 3] or any(sorted(found) != list(range(len(found))) for found in blocks.values()):
        have = {stage: sorted(found) for stage, found in sorted(blocks.items())}
        raise UserError(f"{path} lacks blocks of a VMamba with four stages: stages and blocks found are {have}.")
    first = "layers.0.blocks.0.op."
    probes = {f"{first}out_norm.weight": 1, f"{first}A_logs": 2, "patch_embed.0.conv.weight": 4}
    probes["layers.0.blocks.0.norm.weight"] = 1
    for key, num_axes in probes.items():
        if key not in state or state[key].dim() != num_axes or 0 in state[key].shape:
            found = f"has shape {tuple(state[key].shape)}" if key in state else "is missing"
            raise UserError(f"{path}: {key} {found}; this is no VMamba checkpoint, or not a whole one.")
    dim = state["layers.0.blocks.0.norm.weight"].shape[0]
    head = state.get("head.weight")
    return Layout(
        family=family,
        dim=dim,
        depths=tuple(len(blocks[stage]) for stage in range(4)),
        d_state=state[f"{first}A_logs"].shape[1],
        ratio=state[f"{first}out_norm.weight"].shape[0] / dim,
        num_classes=0 if head is None else head.shape[0],
        in_channels=state["patch_embed.0.conv.weight"].shape[1],
        out_norms=tuple(stage for stage in range(4) if f"out_norms.{stage}.weight" in state),
    )
