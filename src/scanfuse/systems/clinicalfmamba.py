"""ClinicalFMamba: two registered images become one that keeps what each of them shows.

Idea. A convolutional encoder, the same for both modalities, finds local structure; stacks of Mamba blocks, one per
modality, relate every position of the reduced map to every other in linear time; cross Mamba blocks scan each
modality with parameters computed from the other one; a decoder goes back to the image, where channel attention lets
the first features of both modalities in. No labels: the loss compares the fused image with its sources.

    a (b,1,h,w) --+                                                              widths of `base`
                  +- stack -> Conv3 -> s ---------------------------------+      s   32 @ h, w
    b (b,1,h,w) --+             |                                         |
                     Down, DGCB dilation 1                                |      32 @ h/2
                     Down, DGCB dilation 3                                |      64 @ h/4
                     Down, DGCB dilation 5                                |     128 @ h/8
                       |                |                                 |
                  5 LatentMamba    5 LatentMamba                          |      four routes each
                       +- ChannelMix x2 -+                                |
                       +--- fusion ------+    CrossMambaFusion            |      one map, 128 @ h/8
                               |                                          |
                     3 x (t + Mamba(LN t)), LN                            |
                     (Up 2, Conv3, LeakyReLU, norm) x 3                   |      64 @ h/4, 32 @ h/2, 32 @ h
                               f                                          |
                     f + CMCA(s_a, s_b) + CMCA(s_b, s_a)  <---------------+
                     sigmoid(Conv3)  ->  fused (b,1,h,w) in (0,1)

Parameters: `base` has 3,168,961 and uses every one of them. The publication says 4.05 M; its code has 4,120,289 in
the variant for 128 x 128 images, of which 3,155,521 take part in the computation. Ours adds the third reduction and
enlargement that images of 256 x 256 need (13,440).

Differences from the publication
* Maps of any size: inputs are padded by replication to a multiple of the total stride and the result is cropped. The
  published code is wired for one size.
* Both modalities pass the shared encoder in one batch, so batch norm sees the statistics in training that it uses in
  evaluation. The published code normalises each modality by itself in training and by a mixture in evaluation.
* Decoder stages are Conv3, LeakyReLU, norm, as the paper's figure says. The code puts the norm right behind the
  convolution in some stages, which makes the bias of that convolution a parameter without effect.
* The step-size bias of all routes has Mamba's initial values; the code does this for the first route only.
* CMCA pools the reference and scales the query, as the paper says; the code names them the other way round.
* `norm="group"` is ours, for batches of one.
* `head="details"` and the preset `detail` are ours: in place of the last convolution and its sigmoid, a small network
  at half resolution reads both images and f, and finds how to choose between the sources and which of their details
  to add (`fusion.source_details`); 54,696 parameters more with the widths of `detail`.

Source: M. Zhou and F. Khalvati, "ClinicalFMamba", arXiv 2508.03008, 2025, and its published code.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from scanfuse.backbones.fmamba import (
    Dilation,
    Encoder,
    HeadSettings,
    LatentFusion,
    Width,
    attend,
    attention,
    enlarging_stages,
    fusion_of,
    latent_stack,
    padded,
)
from scanfuse.config import Section, TrainConfig
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs.image_pairs import ImagePairs, PairSettings
from scanfuse.fusion.channel_attention import CMCA, neighbourhoods
from scanfuse.layers.conv import Norm
from scanfuse.layers.mamba import Mamba, RouteSet
from scanfuse.systems import Demonstration
from scanfuse.tasks.fuse import Fusion, OutputSettings
from scanfuse.tasks.fuse.extended_loss import ExtendedFusionLoss
from scanfuse.tasks.fuse.images import Images

__all__ = ["Config", "Model", "ModelConfig", "System"]


class ModelConfig(HeadSettings):
    """The network. The defaults are the published widths for 256 x 256 images (`base`).

    Upper bounds lie far above what fits into any memory together; they catch slips of the hand before they fill it.
    """

    channels: tuple[Width, Width, Width] = Field(
        (32, 64, 128), description="widths of the stages; the first is the stem's"
    )
    dilations: tuple[Dilation, Dilation, Dilation] = Field((1, 3, 5), description="of the gated convolution blocks")
    stem_stride: Literal[1, 2] = Field(2, description="2 halves the map before stage 1 (256 x 256); 1 for 128 x 128")
    latent_blocks: int = Field(5, ge=1, le=64, description="Mamba blocks per modality")
    decoder_blocks: int = Field(3, ge=0, le=64, description="Mamba blocks after the fusion")
    d_state: int = Field(8, ge=1, le=256, description="states per channel")
    mix_state: int = Field(16, ge=1, le=256, description="states per channel of the channel mix")
    expand: int = Field(2, ge=1, le=16, description="inner width of the Mamba blocks over their width")
    fusion: LatentFusion = Field("cross_mamba", description="how the latent maps join")
    routes: RouteSet = Field("cross", description="orders in which a map is read: four, or row by row only")
    cmca: bool = Field(True, description="channel attention from the stem features into the decoder: on or off")
    norm: Norm = Field("batch", description="of the convolutions; group does not depend on the batch")

    @property
    def stride(self) -> int:
        """Pixels of the image per position of the latent map, along each side."""
        return 4 * self.stem_stride


class ChannelMix(nn.Module):
    """Lets the two modalities exchange every second channel, twice with the same weights.

    Twice:  r_i = t_i + r_i;  n_i = LN_i(r_i);  the even channels of n_a and n_b change places;  t_i = Mamba_i(n_i).
    r_i starts as the encoder's map. t_a, t_b, r_a, r_b (b, h, w, c) -> t_a, t_b. The paper does not name this part.
    """

    def __init__(self, dim: int, *, d_state: int, expand: int) -> None:
        super().__init__()
        self.norm_a = nn.LayerNorm(dim)
        self.norm_b = nn.LayerNorm(dim)
        self.mamba_a = Mamba(dim, d_state=d_state, expand=expand)
        self.mamba_b = Mamba(dim, d_state=d_state, expand=expand)

    def forward(self, t_a: Tensor, t_b: Tensor, r_a: Tensor, r_b: Tensor) -> tuple[Tensor, Tensor]:
        size = t_a.shape[1:3]
        is_even = torch.arange(t_a.shape[3], device=t_a.device) % 2 == 0
        for _ in range(2):
            r_a, r_b = t_a + r_a, t_b + r_b
            n_a, n_b = self.norm_a(r_a), self.norm_b(r_b)
            t_a = self.mamba_a(torch.where(is_even, n_b, n_a).flatten(1, 2)).unflatten(1, size)
            t_b = self.mamba_b(torch.where(is_even, n_a, n_b).flatten(1, 2)).unflatten(1, size)
        return t_a, t_b


class Decoder(nn.Module):
    """Fused latent map (b, h, w, c2) -> features f (b, c0, stride h, stride w)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c2 = config.channels[2]
        self.norms = nn.ModuleList(nn.LayerNorm(c2) for _ in range(config.decoder_blocks))
        self.mambas = nn.ModuleList(
            Mamba(c2, d_state=config.d_state, expand=config.expand) for _ in range(config.decoder_blocks)
        )
        self.norm = nn.LayerNorm(c2)
        self.stages = enlarging_stages(config.channels, stem_stride=config.stem_stride, norm=config.norm, num_dims=2)

    def forward(self, t: Float[Tensor, "b h w c"]) -> Float[Tensor, "b c0 h2 w2"]:
        size = t.shape[1:3]
        for norm, mamba in zip(self.norms, self.mambas, strict=True):
            t = t + mamba(norm(t).flatten(1, 2)).unflatten(1, size)
        return self.stages(self.norm(t).permute(0, 3, 1, 2))


class Model(nn.Module):
    """The whole network: a, b (batch, 1, h, w) in [0, 1] -> fused (batch, 1, h, w) in (0, 1), any h and w.

    With the head of details the result is in [0, 1]: black and white are reached.

    Raises:
        ValueError: the two images differ in shape or do not have one channel.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c0, _, c2 = config.channels

        latent: Any = {"route_set": config.routes, "d_state": config.d_state, "expand": config.expand}
        self.stem = nn.Conv2d(1, c0, 3, padding=1)
        self.encoder = Encoder(
            config.channels,
            dilations=config.dilations,
            stem_stride=config.stem_stride,
            norm=config.norm,
            num_dims=2,
            pyramid=True,
        )
        self.latent_a = latent_stack(c2, blocks=config.latent_blocks, **latent)
        self.latent_b = latent_stack(c2, blocks=config.latent_blocks, **latent)
        self.mix = ChannelMix(c2, d_state=config.mix_state, expand=config.expand)
        self.fusion = fusion_of(config.fusion, c2, **latent)
        self.decoder = Decoder(config)
        if config.cmca:
            self.cmca = CMCA(c0)
        if config.head == "sigmoid":
            self.head = nn.Conv2d(c0, 1, 3, padding=1)
        else:
            self.details = config.details(c0, num_dims=2)

    def forward(self, a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        if a.shape != b.shape or a.shape[1] != 1:
            raise ValueError(
                f"need two maps (batch, 1, h, w) of one shape, not {tuple(a.shape)} and {tuple(b.shape)}"
            )
        height, width = a.shape[2:]
        pair = padded(torch.cat([a, b]), self.config.stride)
        e_a, e_b = self.encoder(pair, self.stem).permute(0, 2, 3, 1).chunk(2)
        t_a, t_b = self.mix(self.latent_a(e_a), self.latent_b(e_b), e_a, e_b)
        f = self.decoder(self.fusion(t_a, t_b))
        # The last steps are float32 under autocast too: bfloat16 pixels would have fewer than 8 bits.
        with torch.autocast(f.device.type, enabled=False):
            f = f.to(self.stem.weight.dtype)
            if self.config.cmca:
                p_a, p_b = neighbourhoods(pair.to(f.dtype)).chunk(2)
                f = attend(f, (p_a, p_b), attention(self.cmca, (p_a, p_b), self.stem))
            if self.config.head == "sigmoid":
                fused = torch.sigmoid(self.head(f))
            else:
                fused = self.details(*pair.to(f.dtype).chunk(2), f)
            return fused[..., :height, :width]


class Config(Section):
    """Everything that a run of this system depends on."""

    system: Literal["clinicalfmamba"] = "clinicalfmamba"
    model: ModelConfig = ModelConfig()
    data: PairSettings = PairSettings()
    loss: ExtendedFusionLoss = ExtendedFusionLoss()
    folds: FoldConfig = FoldConfig()
    output: OutputSettings = OutputSettings()
    train: TrainConfig = TrainConfig()


_Config = Config  # inside System the name Config is the attribute that the verbs read


class System:
    """ClinicalFMamba as the verbs see it: `scanfuse.systems.System`."""

    Config = Config
    default_preset = "base"
    adjustable = ("baselines", "pair", "stretch")
    demonstration = Demonstration(
        phantom="harvard",
        options={"cases": 24, "slices": 4, "size": 128},
        quick={"cases": 6, "slices": 1, "size": 64},
        settings={"train": {"epochs": 24}},
        preset="detail",
        timed_size=256,
    )
    config: _Config
    model: Model
    data: ImagePairs
    task: Fusion

    def __init__(self, config: _Config) -> None:
        self.config = config
        self.data = ImagePairs(config.data, seed=config.train.seed, folds=config.folds)
        self.images = Images(config.data.stretch)
        self.task = Fusion(config.data.modalities, loss=config.loss, medium=self.images, output=config.output)
        self.model = Model(config.model)

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The method."""
        fusion = str(config.get("model", {}).get("fusion", ""))
        plain = "; a plain rule in place of the published fusion" if fusion in ("concat", "mean") else ""
        return [("Fusion", f"{fusion}{plain}")]

    def forward(self, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> Float[Tensor, "b 1 h w"]:
        """The fused luminance of stretched luminances.

        Raises:
            ValueError: an input is to be left out: there is nothing to fuse the other one with.
        """
        if without:
            raise ValueError(f"fusion needs both inputs, not without {', '.join(sorted(without))}")
        return self.model(*self.images.sources(batch, self.config.data.modalities))
