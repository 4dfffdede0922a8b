"""VMamba: four stages of visual state-space blocks over maps of any size, and its published checkpoints.

    x (b, 3, h, w)
      stem            C  @ h/4     v0: conv 4x4 stride 4, LN        v2: (conv 3x3 stride 2, LN) twice, GELU between
      stage 1 blocks  C  @ h/4     -> features 0
      downsample      2C @ h/8     v0: 2x2 neighbours, LN, linear   v2: conv 3x3 stride 2, LN
      stage 2 blocks  2C @ h/8     -> features 1
      ...             4C @ h/16    -> features 2,  8C @ h/32 -> features 3
      LN, mean over the map, linear -> logits (b, n)

Two families of published weights. "v0" (the vanilla models): 16 states, a gate, no MLP in the blocks. "v2" (published
as "v05_noz"): one state, no gate, a convolution without bias, an MLP of ratio 4. Maps are channels last inside.

Parameters with 1000 classes:

    v0_t 22,893,448   v0_s 44,417,416   v0_b 76,254,056   t_s2l5 30,705,832   t_s1l8 30,249,064
    s_s2l15 50,147,752   b_s2l15 88,557,800   s_s1l20 49,012,840   b_s1l20 86,614,504

Differences from the publication
* The neighbour merging of v0 pads odd sides by one. The published code derives the padding from the size itself and
  stops at odd maps (or crops them, in its first version).
* The SSM's projections are plain parameters, so the model-wide initialisation of linear layers leaves their special
  initial values alone; in the newest published code it overwrites them.
* `conv_norm="batch"` is ours. A layer norm behind the stem's convolution removes nearly all of an image's local
  brightness at the start, which large data make up for and small data seem not to: from scratch, small networks
  learned bright spots on 640 images clearly sooner with batch norm (tried at unequal widths, so no figure is given).

Source: Liu et al., "VMamba: Visual State Space Model", NeurIPS 2024, and its published code and checkpoints.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scanfuse.backbones.vmamba_checkpoint import Layout, Report, Section, read_published
from scanfuse.config import Section as Settings
from scanfuse.config import build, read_yaml
from scanfuse.errors import UserError
from scanfuse.layers.ss2d import SS2DOptions
from scanfuse.layers.vss import VSSBlock

__all__ = ["PRESETS", "VMamba", "VMambaConfig", "load_checkpoint", "load_encoder", "preset_of", "read_checkpoint"]

_log = logging.getLogger(__name__)


Depth = Annotated[int, Field(ge=1, le=256)]


class VMambaConfig(Settings):
    """The network without its classifier. The defaults are `t_s1l8`."""

    family: Literal["v0", "v2"] = Field("v2", description="v0: vanilla, gated, no MLP; v2: no gate, MLP of ratio 4")
    dim: int = Field(
        96, ge=2, le=4096, multiple_of=2, description="channels of the first stage; doubled by each stage"
    )
    depths: tuple[Depth, Depth, Depth, Depth] = Field((2, 2, 8, 2), description="blocks per stage")
    d_state: int = Field(1, ge=1, le=256, description="states per channel: published 16 in v0, 1 in v2")
    ratio: float = Field(1.0, gt=0, le=16, description="inner channels of the scan over the channels of the block")
    conv_norm: Literal["layer", "batch"] = Field(
        "layer", description="norm of stem and downsampling: layer as published; batch learns small data from scratch"
    )
    init: Literal["published", "fan_in"] = Field(
        "published", description="start of random weights: as published, or scaled by fan-in for narrow networks"
    )
    drop_path: float = Field(0.2, ge=0, lt=1, description="stochastic depth of the last block; linear from 0")
    recompute: bool = Field(False, description="recompute blocks in the backward pass: less memory, more time")

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of the four stages."""
        return tuple(self.dim * 2**stage for stage in range(4))


def _vanilla(dim: int, third: int, drop_path: float) -> VMambaConfig:
    return VMambaConfig(family="v0", dim=dim, depths=(2, 2, third, 2), d_state=16, ratio=2.0, drop_path=drop_path)


def _plain(dim: int, third: int, ratio: float, drop_path: float) -> VMambaConfig:
    return VMambaConfig(dim=dim, depths=(2, 2, third, 2), ratio=ratio, drop_path=drop_path)


PRESETS: dict[str, VMambaConfig] = {
    "v0_t": _vanilla(96, 9, 0.2),
    "v0_s": _vanilla(96, 27, 0.3),
    "v0_b": _vanilla(128, 27, 0.6),
    "t_s1l8": _plain(96, 8, 1.0, 0.2),
    "t_s2l5": _plain(96, 5, 2.0, 0.2),
    "s_s2l15": _plain(96, 15, 2.0, 0.3),
    "b_s2l15": _plain(128, 15, 2.0, 0.6),
    "s_s1l20": _plain(96, 20, 1.0, 0.3),
    "b_s1l20": _plain(128, 20, 1.0, 0.5),
}
"""The published models; the table of parameters is in the docstring of this module."""


class BatchNormLast(nn.BatchNorm2d):
    """Batch norm of channels-last maps, (b, h, w, c) -> the same."""

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvNorm(nn.Module):
    """norm(conv(x)) on channels-last maps: the stems and v2's downsampling. (b, h, w, c) -> (b, h2, w2, c2)."""

    def __init__(
        self, dim: int, dim_out: int, *, kernel: int, stride: int, padding: int, norm: type[nn.Module]
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, kernel, stride=stride, padding=padding)
        self.norm = norm(dim_out)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h2 w2 c2"]:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class PatchMerge(nn.Module):
    """W norm([x_00, x_10, x_01, x_11]) of each 2x2 patch, indices (row, column): v0's downsampling.

    (b, h, w, c) -> (b, ceil(h / 2), ceil(w / 2), 2 c); an odd side is padded with zeros at its end.
    """

    def __init__(self, dim: int, *, norm: type[nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h2 w2 c2"]:
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], dim=-1)
        return self.reduction(self.norm(x))


class Stage(nn.Module):
    """The blocks of a stage and, but for the last stage, what leads to the next one."""

    def __init__(self, config: VMambaConfig, dim: int, rates: Sequence[float], *, is_last: bool) -> None:
        super().__init__()
        is_v0 = config.family == "v0"
        options = SS2DOptions(d_state=config.d_state, ratio=config.ratio, gate=is_v0, conv_bias=is_v0)
        self.blocks = nn.ModuleList(
            VSSBlock(dim, options=options, mlp_ratio=0.0 if is_v0 else 4.0, drop_path=rate) for rate in rates
        )
        self.downsample: nn.Module | None = None
        norm = _conv_norm(config)
        if is_v0 and not is_last:
            self.downsample = PatchMerge(dim, norm=norm)
        elif not is_last:
            self.downsample = ConvNorm(dim, 2 * dim, kernel=3, stride=2, padding=1, norm=norm)
        self.recompute = config.recompute

    def forward(self, x: Float[Tensor, "b h w c"]) -> tuple[Float[Tensor, "b h w c"], Float[Tensor, "b h2 w2 c2"]]:
        """The map at the end of the stage, and the same reduced for the next stage (unreduced in the last)."""
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x, x if self.downsample is None else self.downsample(x)


class VMamba(nn.Module):
    """The network of the module's docstring: `model(x)` are logits, `model.features(x)` the four stage maps.

    Args:
        config: sizes and family; see `PRESETS`.
        num_classes: outputs of the classifier; 0 for an encoder, which has neither classifier nor final norm.
        in_channels: channels of the image.
        out_norms: stages (0 to 3) whose feature map passes an extra layer norm; the others have none.

    Shape:
        (batch, in_channels, h, w) -> logits (batch, num_classes). h, w >= 1 in v2; >= 4 in v0, which ignores what
        remains of a division by 4.

    Example:
        >>> model = VMamba(PRESETS["t_s1l8"], num_classes=0, out_norms=(3,))
        >>> [tuple(f.shape[1:]) for f in model.features(torch.zeros(1, 3, 70, 64))]
        [(96, 18, 16), (192, 9, 8), (384, 5, 4), (768, 3, 2)]
    """

    def __init__(
        self,
        config: VMambaConfig,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        out_norms: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        dims = config.dims
        norm = _conv_norm(config)
        if config.family == "v0":
            stem: list[nn.Module] = [ConvNorm(in_channels, dims[0], kernel=4, stride=4, padding=0, norm=norm)]
        else:
            half = dims[0] // 2
            stem = [
                ConvNorm(in_channels, half, kernel=3, stride=2, padding=1, norm=norm),
                nn.GELU(),
                ConvNorm(half, dims[0], kernel=3, stride=2, padding=1, norm=norm),
            ]
        self.patch_embed = nn.Sequential(*stem)
        total = sum(config.depths)
        rates = [config.drop_path * block / max(total - 1, 1) for block in range(total)]
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(config.depths):
            start = sum(config.depths[:stage])
            self.layers.append(Stage(config, dims[stage], rates[start : start + depth], is_last=stage == 3))
        self.out_norms = nn.ModuleDict({str(stage): nn.LayerNorm(dims[stage]) for stage in out_norms})
        if num_classes > 0:
            self.norm = nn.LayerNorm(dims[3])
            self.head = nn.Linear(dims[3], num_classes)
        self.apply(initialise_by_fan_in if config.init == "fan_in" else _initialise)

    def features(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b c2 h2 w2"]]:
        """The maps at the end of the four stages, before the downsampling, through their output norms if any."""
        maps = self._stages(x)
        for stage, norm in self.out_norms.items():
            maps[int(stage)] = norm(maps[int(stage)])
        return [x_bhwc.permute(0, 3, 1, 2) for x_bhwc in maps]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n"]:
        if self.num_classes == 0:
            raise ValueError("this VMamba has no classifier (num_classes is 0): use its features(x)")
        return self.head(self.norm(self._stages(x)[-1]).mean(dim=(1, 2)))

    def _stages(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        x = self.patch_embed(x.permute(0, 2, 3, 1).contiguous())
        for stage in self.layers:
            end, x = stage(x)
            maps.append(end)
        return maps


def _conv_norm(config: VMambaConfig) -> type[nn.Module]:
    return BatchNormLast if config.conv_norm == "batch" else nn.LayerNorm


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def initialise_by_fan_in(module: nn.Module) -> None:
    """Linear weights: normal with variance 1 / fan-in; convolutions: 2 / fan-in (He). Biases of linear maps are zero.

    The published 0.02 keeps the variance of maps from some thousand channels; with 24 it makes every block an
    identity, and a training from scratch spends most of its steps on growing the weights.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)


def preset_of(config: VMambaConfig) -> str | None:
    """Name of the published model with these sizes, or None."""
    sizes = _sizes(config)
    return next((name for name, known in PRESETS.items() if _sizes(known) == sizes), None)


def load_checkpoint(path: str | Path, *, section: Section = "auto") -> VMamba:
    """The network of a published checkpoint with its weights, in evaluation mode; logs what was matched.

    Family, sizes and number of classes come from the shapes in the file; nothing is left at random values.

    Args:
        path: a published file (.pth or .safetensors, either family), or a folder made by `scanfuse import vmamba`.
        section: which weights to take from a file that also has averaged ones: "model", "model_ema", or "auto" for
            "model" where it exists.

    Raises:
        UserError: not a VMamba checkpoint, a truncated file, tensors that are missing, unknown or do not fit.
    """
    model, report = read_checkpoint(path, section=section)
    _log.info("%s", report)
    return model


def read_checkpoint(path: str | Path, *, section: Section = "auto") -> tuple[VMamba, Report]:
    """`load_checkpoint` that also returns the report of matched, missing and skipped tensors."""
    path = Path(path)
    published = read_published(path / "weights.safetensors" if path.is_dir() else path, section=section)
    layout, state = published.layout, published.state
    config = _config_of(layout)
    if path.is_dir():
        config = build(VMambaConfig, read_yaml(path / "config.yaml"))
        if _sizes(config) != _sizes(_config_of(layout)):
            raise UserError(
                f"{path}: config.yaml ({_describe(config)}) does not describe the weights "
                f"({_describe(_config_of(layout))}); import the checkpoint again."
            )
    with torch.device("meta"):
        model = VMamba(
            config, num_classes=layout.num_classes, in_channels=layout.in_channels, out_norms=layout.out_norms
        )
    _check_fit(path, state, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    model.load_state_dict(state, strict=True, assign=True)
    missing = () if layout.num_classes else ("the classifier: the network gives features, no logits",)
    report = Report(
        file=path,
        section=published.section,
        description=_describe(config),
        matched=tuple(state),
        missing=missing,
        skipped=published.skipped,
    )
    return model.eval(), report


def load_encoder(encoder: VMamba, path: str | Path, *, section: Section = "auto") -> Report:
    """Fills an encoder (a VMamba without classifier) with the weights of a checkpoint.

    The classifier is skipped. Its norm, which in the published model acts on the last map, becomes the initial value
    of that map's output norm, if the encoder has one and the file does not; the published fine-tuning code starts
    that norm at one and zero.

    Raises:
        UserError: the file cannot be used, or holds another network than the encoder.
    """
    model, report = read_checkpoint(path, section=section)
    if _sizes(model.config) != _sizes(encoder.config):
        raise UserError(
            f"{path} holds {_describe(model.config)}, but the encoder is {_describe(encoder.config)}: "
            "choose the file or the encoder's settings so that they agree."
        )
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    norm = {name: state.pop(f"norm.{name}") for name in ("weight", "bias") if f"norm.{name}" in state}
    wanted = encoder.state_dict()
    if "out_norms.3.weight" not in state and norm:
        state |= {f"out_norms.3.{name}": tensor for name, tensor in norm.items()}
    unused = tuple(name for name in state if name not in wanted and name.startswith("out_norms."))
    state = {name: tensor for name, tensor in state.items() if name not in unused}
    fresh = tuple(name for name in wanted if name not in state and name.startswith("out_norms."))
    _check_fit(Path(path), state, {name: tuple(t.shape) for name, t in wanted.items() if name not in fresh})
    encoder.load_state_dict({**{name: wanted[name] for name in fresh}, **state}, strict=True)
    skipped = (*report.skipped, *(name for name in ("classifier",) if model.num_classes), *unused)
    return Report(
        file=report.file,
        section=report.section,
        description=report.description,
        matched=tuple(state),
        missing=fresh,
        skipped=skipped,
    )


def _check_fit(path: Path, state: dict[str, Tensor], wanted: dict[str, tuple[int, ...]]) -> None:
    """Every tensor of the model is in the file, in its shape, and no other."""
    absent = [name for name in wanted if name not in state]
    if absent:
        raise UserError(f"{path} lacks {_some(absent)} of the network that its other tensors describe: get it again.")
    unknown = [name for name in state if name not in wanted]
    if unknown:
        raise UserError(f"{path} has tensors that a VMamba of its family does not have: {_some(unknown)}.")
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape:
            raise UserError(f"{path}: {name} has shape {tuple(state[name].shape)}, the network needs {shape}.")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _config_of(layout: Layout) -> VMambaConfig:
    """The settings that the shapes tell; the drop path is that of the published model of these sizes, else 0."""
    fields = {
        "family": layout.family,
        "dim": layout.dim,
        "depths": layout.depths,
        "d_state": layout.d_state,
        "ratio": layout.ratio,
        "drop_path": 0.0,
    }
    config = build(VMambaConfig, fields)
    name = preset_of(config)
    return config if name is None else PRESETS[name]


def _sizes(config: VMambaConfig) -> dict[str, object]:
    return config.model_dump(include={"family", "dim", "depths", "d_state", "ratio", "conv_norm"})


def _describe(config: VMambaConfig) -> str:
    name = preset_of(config)
    depths = ",".join(str(depth) for depth in config.depths)
    return (
        f"VMamba {config.family}{f' ({name})' if name else ''}: dim {config.dim}, depths {depths}, "
        f"{config.d_state} states, ratio {config.ratio:g}{', batch norms' if config.conv_norm == 'batch' else ''}"
    )
