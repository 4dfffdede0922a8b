"""Any timm network that gives maps of strides 8, 16 and 32 as a stream of a detector, like `YOLOBackbone`.

timm takes such a network apart into modules that run one after the other where it can; those are cut behind the maps,
so that a fusion can stand between them. Some networks run as a whole only, and then fused maps cannot be fed back.
"""

import difflib
from pathlib import Path

import timm
import torch
from jaxtyping import Float
from timm.layers import Format
from timm.models import FeatureDictNet
from torch import Tensor, nn
from torch.func import functional_call

from scanfuse.errors import UserError

__all__ = ["TimmPyramid"]

_NEEDED = (8, 16, 32)
_WANTED = (4, *_NEEDED)
_PROBE = (1, 3, 160, 224)  # not square, and of no size that a network is usually published for


class TimmPyramid(nn.Module):
    """x (b, 3, h, w) -> maps of strides (4,) 8, 16, 32 of a timm network, with random weights until `load`.

    Only the parts up to the last map are built, so nothing goes untrained. `strides` and `channels` say what comes
    out. Where `is_staged`, `stages[k]` maps level k - 1 (the image for k = 0) to level k, as in `YOLOBackbone`.

    Args:
        name: of a timm model that can give feature maps, such as "resnet18" or "convnext_atto".
        staged: whether the stages must be separable, which feeding fused maps into the next stage needs.

    Shape:
        (b, 3, h, w) -> one map (b, c, h / s, w / s) per stride s, h and w multiples of 32.

    Raises:
        UserError: timm has no such model; it lacks a level; it takes images of one size only; it is not separable.

    Example:
        >>> stream = TimmPyramid("resnet18")
        >>> [tuple(p.shape[1:]) for p in stream(torch.zeros(1, 3, 64, 96))]
        [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    """

    def __init__(self, name: str, *, staged: bool = True) -> None:
        super().__init__()
        self.name = name
        self._indices = _levels(name)
        network = _create(name, self._indices)
        info = network.feature_info
        self.strides: tuple[int, ...] = tuple(info.reduction())  # type: ignore[union-attr,operator]
        self.channels: tuple[int, ...] = tuple(info.channels())  # type: ignore[union-attr,operator]
        self.is_staged = isinstance(network, FeatureDictNet)
        if staged and not self.is_staged:
            raise UserError(
                f"timm runs all stages of {name!r} at once, so fused maps cannot be fed into its next stage: switch "
                "that off (propagate false), or choose a network such as resnet18, convnext_atto or regnetx_002."
            )
        if self.is_staged:
            self.stages = _cut(network)
        else:
            self.network = network
        self._check()

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        if not self.is_staged:
            maps = self.network(x)
            is_last = getattr(self.network, "output_fmt", None) == Format.NHWC
            return tuple(y.permute(0, 3, 1, 2) if is_last else y for y in maps)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return tuple(levels)

    def load(self, file: str | Path | None = None) -> None:
        """Takes timm's published weights: from `file`, or downloaded by timm if None.

        Raises:
            UserError: there are no such weights, or they do not fit.
        """
        if file is not None and not Path(file).is_file():
            raise UserError(f"There is no file {file}.")
        overlay = None if file is None else {"file": str(file)}
        try:
            # timm fills the truncated network leniently; the whole one is strict, so that nothing stays random.
            timm.create_model(self.name, pretrained=True, pretrained_cfg_overlay=overlay)
            filled = _create(self.name, self._indices, pretrained=True, file=file)
        except Exception as error:  # timm lets through whatever its hub client, unpickler or checks raise
            reason = " ".join(str(error).split())[:160]
            origin = file if file is not None else f"the published weights of {self.name}"
            raise UserError(f"timm cannot load {origin}: {reason}") from error
        target, source = (self.stages, _cut(filled)) if self.is_staged else (self.network, filled)
        target.load_state_dict(source.state_dict(), strict=True)

    def _check(self) -> None:
        """A run on shapes alone: the maps have the promised sizes for an image of no special size."""
        state = {name: tensor.to("meta") for name, tensor in self.state_dict(keep_vars=True).items()}
        state |= {name: tensor.to("meta") for name, tensor in self.named_buffers()}  # with those that are not saved
        height, width = _PROBE[2:]
        wanted = [(c, height // s, width // s) for c, s in zip(self.channels, self.strides, strict=True)]
        self.eval()
        try:
            with torch.no_grad():
                maps = functional_call(self, state, (torch.empty(_PROBE, device="meta"),))
            found = [tuple(level.shape[1:]) for level in maps]
        except Exception as error:  # whatever a network raises for a size that it does not take
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"timm's {self.name!r} cannot be a stream of a detector, since it fails on an image of "
                f"{height} x {width}: {reason}"
            ) from None
        finally:
            self.train()
        if found != wanted:
            raise UserError(
                f"timm's {self.name!r} gives maps {found} where {wanted} are needed: choose another network."
            )


class _ChannelsLast(nn.Module):
    """A stage whose maps are channels last inside timm, made channels first at both ends."""

    def __init__(self, stage: nn.Module, *, is_first: bool) -> None:
        super().__init__()
        self.stage = stage
        self.is_first = is_first  # the image is channels first in every network

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        y: Tensor = self.stage(x if self.is_first else x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


def _create(
    name: str, indices: tuple[int, ...] | None = None, *, pretrained: bool = False, file: str | Path | None = None
) -> nn.Module:
    overlay = None if file is None else {"file": str(file)}
    wanted = {} if indices is None else {"out_indices": indices}
    network: nn.Module = timm.create_model(
        name, pretrained=pretrained, pretrained_cfg_overlay=overlay, features_only=True, **wanted
    )
    return network


def _levels(name: str) -> tuple[int, ...]:
    """Which of the network's maps have the strides 4 (if there is one), 8, 16 and 32."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise UserError(f"timm has no model {name!r}{'; similar: ' + ', '.join(near) if near else ''}.")
    try:
        info = _create(name).feature_info
    except (RuntimeError, AttributeError, TypeError, AssertionError):  # how timm says that a model has no maps
        raise UserError(f"timm's {name!r} gives no feature maps: choose a network such as resnet18.") from None
    of_stride = dict(zip(info.reduction(), info.out_indices, strict=True))  # type: ignore[union-attr,operator,arg-type]
    if any(stride not in of_stride for stride in _NEEDED):
        have = ", ".join(map(str, of_stride))
        raise UserError(f"timm's {name!r} has maps of strides {have}; a detector needs 8, 16 and 32: choose another.")
    return tuple(of_stride[stride] for stride in _WANTED if stride in of_stride)


def _cut(network: nn.Module) -> nn.ModuleList:
    """The modules of a separable network in groups that end with its maps."""
    stages, parts = nn.ModuleList(), nn.Sequential()
    is_last = network.output_fmt == Format.NHWC
    for name, module in network.items():  # type: ignore[operator]
        parts.add_module(name, module)
        if name in network.return_layers:  # type: ignore[operator]
            stages.append(_ChannelsLast(parts, is_first=not len(stages)) if is_last else parts)
            parts = nn.Sequential()
    return stages
