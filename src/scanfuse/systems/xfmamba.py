"""XFMamba: a study is classified from two X-ray views that are fused in two steps, shallow and deep.

Idea. One VMamba encoder sees both views. In the shallow step each view takes in every second channel of the other
one and the mixtures are scanned; what comes out is still one map per view. In the deep step the two views and their
mean are scanned along four routes, and the states of all three are read with the mean's weights.

    a (b,1,h,w) --+                       +-- Za --+                 +-- Za' --+
                  +-- VMamba encoder, LN -+        + CrossViewSwap   +         + CrossViewFusion --> Z
    b (b,1,h,w) --+   (one, or one each)  +-- Zb --+ (ChannelSwap)   +-- Zb' --+                     |
                                              (b,c,h/32,w/32)     `view_a`, `view_b`     conv 1x1 (`fused`)
                                                                                                     |
                                                              logits (b,n) <-- linear <-- mean over the map

Presets and parameters with two outputs; in brackets what the published code allocates, which contains weights that
it never uses (a projection in the deep block, the output norms of stages 1 to 3):

    t     VMamba t_s1l8     36,471,170   [38,831,810]
    s     VMamba s_s2l15    56,369,858   [58,730,498]
    b     VMamba b_s2l15    99,737,858  [103,933,954]
    tiny  for demonstrations and tests   1,281,986

Plain methods behind the same switch, on the same encoder: `single` (one view), `early` (a learned mixture of the
images, then one encoder), `late` (the maps side by side, then the classifier).

A missing view. `present_a`, `present_b` say per sample which views exist. The image of a missing view is replaced by
zeros, so its content never matters, and the encoder's map of it by zeros too: the fusion sees a view without any
evidence. `single` takes the other view instead. A sample without any view is an error.

Differences from the publication
* The exchange of channels is differentiated correctly; see `scanfuse.fusion.channel_swap`.
* No unused parameters. The norm before the shallow step is a layer norm as in the paper's figure (`norm`); the code
  has a batch norm. Where figure and code disagree otherwise, the code is the default: `swap`, `merge`, `gate`.
* With `load_encoder` the output norm of the last stage starts as the classifier's norm of the checkpoint, which acts
  on the same map; the published code starts it at one and zero.
* `early` mixes without a bias, which the batch norm behind it would cancel.
* Separate encoders, the `tiny` preset (its encoder has batch norms), v0 and timm encoders, missing views are ours.

Source: Zheng et al., "XFMamba: Cross-Fusion Mamba for Multi-View Medical Image Classification", MICCAI 2025 (arXiv
2503.02619), and its published code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scanfuse.backbones import vmamba
from scanfuse.backbones.timm_encoder import TimmEncoder
from scanfuse.backbones.vmamba import VMamba, VMambaConfig
from scanfuse.config import Section, TrainConfig
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs.view_pairs import VIEWS, ViewPairs, ViewSettings
from scanfuse.errors import UserError
from scanfuse.explain.gradcam import Method, Target, grad_cam
from scanfuse.fusion.channel_swap import ChannelSwapFusion, Merge, Swap, SwapNorm
from scanfuse.fusion.cross_view import CrossViewFusion, Gate
from scanfuse.systems import Demonstration
from scanfuse.tasks.classify import Classification, SamplingSettings
from scanfuse.tasks.classify.classes import Classes, ClassSettings, classes_of
from scanfuse.tasks.classify.loss import ClassificationLoss
from scanfuse.tasks.classify.operating_point import OperatingPointSettings

__all__ = ["PRESETS", "Config", "Model", "ModelConfig", "System"]


class ModelConfig(Section):
    """The network. The defaults are the preset `t`."""

    fusion: Literal["xfmamba", "single", "early", "late"] = Field("xfmamba", description="how the two views are used")
    num_outputs: int = Field(2, ge=1, le=10_000, description="logits: classes, or labels that are judged one by one")
    encoder: Literal["vmamba", "timm"] = Field("vmamba", description="kind of the network that sees the views")
    share_encoder: bool = Field(True, description="one encoder for both views, or one for each")
    vmamba: VMambaConfig = VMambaConfig()
    timm_model: str = Field("convnext_tiny", description="name of the encoder in timm, for encoder: timm")
    swap: Swap = Field(
        "channel", description="what the views exchange in the shallow step: even channels or positions"
    )
    merge: Merge = Field("none", description="deinterleave gives scanned channels back to their own view")
    norm: SwapNorm = Field("ln2d", description="norm before the shallow step; bn: as the published code")
    gate: Gate = Field("silu", description="gate of the deep step: by position, or one number per channel")
    fusion_state: int = Field(16, ge=1, le=256, description="states per channel of the fusion blocks")
    expand: int = Field(2, ge=1, le=16, description="inner width of the fusion blocks over their width")

    @model_validator(mode="after")
    def _separate_encoders_need_two_maps(self) -> "ModelConfig":
        if not self.share_encoder and self.fusion in ("single", "early"):
            raise ValueError(f"separate encoders need two maps, but fusion {self.fusion!r} encodes one")
        return self


PRESETS: dict[str, ModelConfig] = {
    "t": ModelConfig(),
    "s": ModelConfig(vmamba=vmamba.PRESETS["s_s2l15"]),
    "b": ModelConfig(vmamba=vmamba.PRESETS["b_s2l15"]),
    "tiny": ModelConfig(
        vmamba=VMambaConfig(dim=24, depths=(1, 1, 1, 1), conv_norm="batch", init="fan_in", drop_path=0.0)
    ),
}
"""t, s, b: the published sizes. tiny: trains on two CPU cores within minutes on images of 64 to 96 pixels."""

_TAPS: dict[str, tuple[str, ...]] = {
    "xfmamba": ("view_a", "view_b", "fused"),
    "single": ("view_a",),
    "early": ("fused",),
    "late": ("view_a", "view_b"),
}


class Model(nn.Module):
    """The network of the module's docstring: two views -> logits.

    Args:
        config: see `ModelConfig` and `PRESETS`.

    Shape:
        a, b (batch, 1 or 3, h, w), standardised as the encoder expects; grey images are repeated to three channels.
        present_a, present_b (batch,) bool, or None where all views exist -> logits (batch, num_outputs), float32
        under autocast too.

    Raises:
        ValueError: the views differ in shape, have another number of channels, or a sample has no view.
    """

    view_a: nn.Module
    view_b: nn.Module
    fused: nn.Module

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        if config.fusion == "early":
            self.mix = nn.Sequential(nn.Conv2d(6, 3, 1, bias=False), nn.BatchNorm2d(3), nn.ReLU())
        self.encoder, dim = _encoder(config)
        if not config.share_encoder:
            self.encoder_b, _ = _encoder(config)
        for name in self.taps:
            self.add_module(name, nn.Identity())
        if config.fusion == "xfmamba":
            self.shallow = ChannelSwapFusion(
                dim,
                swap=config.swap,
                merge=config.merge,
                norm=config.norm,
                d_state=config.fusion_state,
                expand=config.expand,
            )
            self.deep = CrossViewFusion(dim, gate=config.gate, d_state=config.fusion_state, expand=config.expand)
            self.fused = nn.Conv2d(dim, dim, 1)
        self.head = nn.Linear(2 * dim if config.fusion == "late" else dim, config.num_outputs)

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the modules whose outputs (batch, c, h', w') say where the evidence is, for Grad-CAM.

        `view_a`, `view_b`: the views' maps, for xfmamba those after the shallow step; `fused`: the joint map.
        """
        return _TAPS[self.config.fusion]

    def load_encoder(self, file: str | Path | None = None) -> str:
        """Fills the encoder(s) with published weights; returns what was matched, missing and skipped.

        Args:
            file: for VMamba a published checkpoint or an imported folder; for timm a file in timm's names, or None
                to let timm download its weights.

        Raises:
            UserError: there is no such file, it cannot be used, or it is of another network.
        """
        lines: list[str] = []
        for encoder in (self.encoder, getattr(self, "encoder_b", None)):
            if isinstance(encoder, VMamba):
                if file is None:
                    raise UserError("A VMamba encoder needs a checkpoint file: download one and import it.")
                lines.append(str(vmamba.load_encoder(encoder, file)))
            elif isinstance(encoder, TimmEncoder):
                encoder.load(file)
                lines.append(f"timm {encoder.name}: all weights from {file if file is not None else 'timm'}")
        return "\n".join(lines)

    def forward(
        self,
        a: Float[Tensor, "b c h w"],
        b: Float[Tensor, "b c h w"],
        present_a: Bool[Tensor, " b"] | None = None,
        present_b: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b n"]:
        a, b = _checked(a, b, present_a, present_b)
        if self.config.fusion == "single":
            image = a if present_a is None else torch.where(_by_sample(present_a), a, b)
            z = self.view_a(_last_map(self.encoder, image))
        elif self.config.fusion == "early":
            z = self.fused(_last_map(self.encoder, self.mix(torch.cat([a, b], dim=1))))
        else:
            z_a, z_b = self._encode(a, b)
            z_a, z_b = _only_present(z_a, present_a), _only_present(z_b, present_b)
            if self.config.fusion == "late":
                z = torch.cat([self.view_a(z_a), self.view_b(z_b)], dim=1)
            else:
                z_a, z_b = self.shallow(z_a.permute(0, 2, 3, 1), z_b.permute(0, 2, 3, 1))
                z_a, z_b = self.view_a(z_a.permute(0, 3, 1, 2)), self.view_b(z_b.permute(0, 3, 1, 2))
                z = self.deep(z_a.permute(0, 2, 3, 1), z_b.permute(0, 2, 3, 1))
                z = self.fused(z.permute(0, 3, 1, 2))
        pooled = z.mean(dim=(2, 3))
        with torch.autocast(pooled.device.type, enabled=False):
            return self.head(pooled.to(self.head.weight.dtype))

    def _encode(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.share_encoder:
            z_a, z_b = _last_map(self.encoder, torch.cat([a, b])).chunk(2)
            return z_a, z_b
        return _last_map(self.encoder, a), _last_map(self.encoder_b, b)


def _encoder(config: ModelConfig) -> tuple[nn.Module, int]:
    """An encoder and the channels of its last map."""
    if config.encoder == "timm":
        encoder = TimmEncoder(config.timm_model)
        return encoder, encoder.dim
    return VMamba(config.vmamba, num_classes=0, out_norms=(3,)), config.vmamba.dims[3]


def _last_map(encoder: nn.Module, image: Tensor) -> Tensor:
    z: Tensor = encoder.features(image)[-1] if isinstance(encoder, VMamba) else encoder(image)
    return z


def _checked(a: Tensor, b: Tensor, present_a: Tensor | None, present_b: Tensor | None) -> tuple[Tensor, Tensor]:
    """The images with three channels, zero where the view is missing."""
    if a.shape != b.shape or a.dim() != 4 or a.shape[1] not in (1, 3):
        raise ValueError(
            f"need two views (batch, 1 or 3, h, w) of one shape, not {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if present_a is not None and present_b is not None and not bool((present_a | present_b).all()):
        raise ValueError("a sample has neither view: leave it out")
    return _only_present(a, present_a).expand(-1, 3, -1, -1), _only_present(b, present_b).expand(-1, 3, -1, -1)


def _only_present(x: Tensor, present: Tensor | None) -> Tensor:
    return x if present is None else torch.where(_by_sample(present), x, torch.zeros_like(x))


def _by_sample(present: Tensor) -> Tensor:
    return present[:, None, None, None]


def _without_effect(config: ModelConfig) -> list[str]:
    """A sentence for settings that were changed and that the chosen kind of network does not have."""
    unused: dict[str, str] = {}
    if config.fusion != "xfmamba":
        of_fusion = ("swap", "merge", "norm", "gate", "fusion_state", "expand")
        unused |= dict.fromkeys(of_fusion, f"fusion {config.fusion}")
    unused |= {"timm_model": "encoder vmamba"} if config.encoder == "vmamba" else {"vmamba": "encoder timm"}
    default = ModelConfig()
    changed = [name for name in unused if getattr(config, name) != getattr(default, name)]
    return [f"The setting {name} has no effect with {unused[name]}." for name in changed]


class StartConfig(Section):
    """What the encoder starts from."""

    encoder_weights: str = Field(
        "random",
        description="random, a VMamba checkpoint (file or imported folder, whose sizes the encoder then takes), a "
        "timm file, or timm (its download)",
    )


class Config(Section):
    """Everything that a run of this system depends on."""

    system: Literal["xfmamba"] = "xfmamba"
    model: ModelConfig = ModelConfig()
    start: StartConfig = StartConfig()
    data: ViewSettings = ViewSettings()
    task: ClassSettings = ClassSettings()
    loss: ClassificationLoss = ClassificationLoss()
    decision: OperatingPointSettings = OperatingPointSettings()
    sampling: SamplingSettings = SamplingSettings()
    folds: FoldConfig = FoldConfig()
    train: TrainConfig = TrainConfig()


_Config = Config  # inside System the name Config is the attribute that the verbs read

_MEAN, _SD = 0.456, 0.224
"""Of grey images in [0, 1], as published: ImageNet's values of the middle channel."""


class System:
    """XFMamba as the verbs see it: `scanfuse.systems.System`, with optional abilities."""

    Config = Config
    default_preset = "t"
    demonstration = Demonstration(
        phantom="mura",
        options={"patients": 1600, "size": 96},
        quick={"patients": 20, "size": 48},
        rivals={"single view": {"model": {"fusion": "single"}}},
    )
    missing_inputs = True
    config: _Config
    model: Model
    data: ViewPairs
    task: Classification

    def __init__(self, config: _Config) -> None:
        self.config = config
        self.model = Model(config.model)
        self.task = Classification.of(config)
        self.data = ViewPairs(config.data, labels=self.task.targets, folds=config.folds, seed=config.train.seed)
        self.task.require_outputs(config.model.num_outputs, _output_counts(self.task.classes))

    @staticmethod
    def completed(config: _Config, root: Path) -> _Config:
        """The configuration with the labels of the data, their number of outputs, and the sizes of given weights."""
        task = config.task.filled(config.data.open(root))
        model = config.model
        classes = classes_of(task)
        if model.num_outputs not in _output_counts(classes):
            model = model.model_copy(update={"num_outputs": classes.num_outputs})
        file = config.start.encoder_weights
        if file not in ("random", "timm") and model.encoder == "vmamba":
            found, _ = vmamba.read_checkpoint(file)
            kept = {"drop_path": model.vmamba.drop_path, "recompute": model.vmamba.recompute}
            model = model.model_copy(update={"vmamba": found.config.model_copy(update=kept)})
        return config.model_copy(update={"task": task, "model": model})

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The method."""
        model = config.get("model", {})
        fusion = str(model.get("fusion", ""))
        plain = "; a plain method on the same encoder" if fusion in _TAPS and fusion != "xfmamba" else ""
        return [("Fusion", f"{fusion}{plain}")]

    def start(self) -> str:
        """Fills the encoder as the settings ask; says what with, and which changed settings have no effect."""
        return " ".join([self._fill(), *_without_effect(self.config.model)])

    def _fill(self) -> str:
        has_batch_norms = any(isinstance(module, _BatchNorm) for module in self.model.modules())
        if has_batch_norms and self.config.train.batch == 1 and self.config.data.size <= 32:
            raise UserError(
                "With --batch 1 and --size 32 batch norms see a single place: set --batch 2, or --size 64."
            )
        file = self.config.start.encoder_weights
        if file == "random":
            return "The encoder starts from random weights; give --encoder-weights FILE to start from published ones."
        if file == "timm" and self.config.model.encoder != "timm":
            raise UserError("--encoder-weights timm needs --encoder timm; a VMamba encoder needs a checkpoint file.")
        return f"The encoder starts from {self.model.load_encoder(None if file == 'timm' else file)}"

    def forward(self, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> Float[Tensor, "b n"]:
        """The logits; the views named in `without` count as missing."""
        present = [batch["present"][name] & (name not in without) for name in VIEWS]
        a, b = ((batch[name] - _MEAN) / _SD for name in VIEWS)
        everything = bool(torch.stack(present).all())
        return self.model(a, b) if everything else self.model(a, b, *present)

    def evidence(
        self, batch: dict[str, Any], target: Target, method: Method = "gradcam"
    ) -> dict[str, Float[Tensor, "b h w"]]:
        """Grad-CAM of every tap of the model: `view_a`, `view_b` for the views' maps, `fused` for the joint one.

        `single` looks at one view of each sample; the map of the other one is zero.
        """
        maps = grad_cam(self.model, self.model.taps, lambda: self.forward(batch), target, method=method)
        if self.config.model.fusion == "single":
            of_a = _by_sample(batch["present"]["view_a"])[:, 0]
            seen, nothing = maps["view_a"], torch.zeros_like(maps["view_a"])
            maps = {"view_a": torch.where(of_a, seen, nothing), "view_b": torch.where(of_a, nothing, seen)}
        return maps


def _output_counts(classes: Classes) -> tuple[int, ...]:
    """Numbers of logits that the classes can be read from; the published binary network has two."""
    return (1, 2) if classes.kind == "binary" else (classes.num_outputs,)
