"""ClinicalFMamba for volumes: two registered volumes become one that keeps what each of them shows.

Idea. As for images (`clinicalfmamba`): a shared convolutional encoder, stacks of Mamba blocks for each modality,
cross Mamba blocks that scan each modality with parameters computed from the other one, a decoder with channel
attention to the first features. Volumes are read along their three planes: slice by slice axially, coronally and
sagittally, each with parameters of its own, merged by the mean. No labels.

    a (b,1,d,h,w) --+                                                            widths of `base`
                    +- stack -> Conv3 -> s ---------------------------------+    s   32 @ d, h, w
    b (b,1,d,h,w) --+             |                                         |
                       Down, DGCB dilation 1                                |    32 @ 1/2
                       Down, DGCB dilation 3                                |    64 @ 1/4
                       Down, DGCB dilation 5                                |   128 @ 1/8
                         |                |                                 |
                    5 LatentMamba    5 LatentMamba                          |    three routes each
                         +--- fusion ------+    CrossMambaFusion            |    one map, 128 @ 1/8
                                 |                                          |
                       (Up 2, Conv3, LeakyReLU, norm) x 3                   |    64 @ 1/4, 32 @ 1/2, 32 @ 1
                                 f                                          |
                       f + CMCA(s_a, s_b) + CMCA(s_b, s_a)  <---------------+
                       sigmoid(Conv3)  ->  fused (b,1,d,h,w) in (0,1)

Parameters of `base`, all used: 3,287,969 with the three planes, 3,721,121 with their reversals too ("triplane6"),
2,999,201 with axial slices only. The publication says 6.01 M; its code has 6,002,209, of which 3,408,289 take part in
the computation.

Differences from the publication
* The routes are the three planes, as the paper says. Its code reads three sequences in the latent blocks, all with
  the height changing slowest; flips the reversed one back twice, which misplaces it; divides their sum by five; and
  has weights for two more directions that are never used. Its cross blocks read eight.
* Volumes of any size, padded by replication to a multiple of 8 and cropped. The code needs cubes of 128.
* Whole volumes are cut to what is not background and fused window by window, cross-faded; what the channel
  attention pools is the whole volume all the same. The memory is that of a window (`--window`).
* Where both sources are background the result is background, in training too: the network is not asked for it.
* The published loss is that of images in three dimensions (see `scanfuse.tasks.fuse.loss`).
* Decoder stages are Conv3, LeakyReLU, norm, both modalities pass the encoder in one batch, and all routes have the
  initial step sizes of Mamba, as for images.
* `norm="group"` is ours; it is asked for where a batch has one sample.
* `head="details"` and the preset `detail` are ours, as for images (`fusion.source_details`): 211,794 parameters more
  with the widths of `detail`. The details of a window are those of the whole volume. The further terms of the loss
  (`scanfuse.tasks.fuse.extended_loss`), taken over axial slices, are ours too, and off in the other presets.

Source: M. Zhou and F. Khalvati, "ClinicalFMamba", arXiv 2508.03008, 2025, and its published code.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from scanfuse.backbones.fmamba import (
    Dilation,
    Encoder,
    HeadSettings,
    LatentFusion,
    Width,
    attend_volumes,
    attention_of_volumes,
    enlarging_stages,
    fusion_of,
    latent_stack,
    padded,
)
from scanfuse.config import Section, TrainConfig
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs.volumes import VolumePairs, VolumeSettings
from scanfuse.fusion.channel_attention import CMCA
from scanfuse.fusion.source_details import bands
from scanfuse.layers.conv import Norm
from scanfuse.layers.mamba import VolumeRouteSet
from scanfuse.systems import Demonstration
from scanfuse.tasks.fuse import Fusion, OutputSettings
from scanfuse.tasks.fuse.extended_loss import ExtendedFusionLoss
from scanfuse.tasks.fuse.sliding import SlidingWindow, sliding
from scanfuse.tasks.fuse.volumes import Volumes

__all__ = ["Config", "Model", "ModelConfig", "System"]


class ModelConfig(HeadSettings):
    """The network. The defaults are the published widths (`base`)."""

    channels: tuple[Width, Width, Width] = Field(
        (32, 64, 128), description="widths of the stages; the first is the stem's"
    )
    dilations: tuple[Dilation, Dilation, Dilation] = Field((1, 3, 5), description="of the gated convolution blocks")
    stem_stride: Literal[1, 2] = Field(2, description="2 halves the volume before stage 1; 1 keeps it whole")
    latent_blocks: int = Field(5, ge=1, le=64, description="Mamba blocks per modality")
    d_state: int = Field(8, ge=1, le=256, description="states per channel")
    expand: int = Field(2, ge=1, le=16, description="inner width of the Mamba blocks over their width")
    fusion: LatentFusion = Field("cross_mamba", description="how the latent maps join")
    routes: VolumeRouteSet = Field("triplane3", description="orders in which a volume is read")
    cmca: bool = Field(True, description="channel attention from the stem features into the decoder: on or off")
    norm: Norm = Field("batch", description="of the convolutions; group does not depend on the batch")

    @property
    def stride(self) -> int:
        """Voxels of the volume per position of the latent map, along each side."""
        return 4 * self.stem_stride


class Model(nn.Module):
    """The whole network: a, b (batch, 1, d, h, w) in [0, 1] -> fused (batch, 1, d, h, w) in (0, 1), any sides.

    With the head of details the result is in [0, 1].

    Args:
        weights: what `attention_of` gave for the whole volumes that a and b are windows of; None: a and b are whole.
        found: windows of what `bands_of` gave for them; None: a and b are whole.

    Raises:
        ValueError: the two volumes differ in shape or do not have one channel.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c0, _, c2 = config.channels
        latent: Any = {"route_set": config.routes, "d_state": config.d_state, "expand": config.expand}
        self.stem = nn.Conv3d(1, c0, 3, padding=1)
        self.encoder = Encoder(
            config.channels,
            dilations=config.dilations,
            stem_stride=config.stem_stride,
            norm=config.norm,
            num_dims=3,
            pyramid=False,
        )
        self.latent_a = latent_stack(c2, blocks=config.latent_blocks, **latent)
        self.latent_b = latent_stack(c2, blocks=config.latent_blocks, **latent)
        self.fusion = fusion_of(config.fusion, c2, **latent)
        self.decoder = enlarging_stages(config.channels, stem_stride=config.stem_stride, norm=config.norm, num_dims=3)
        if config.cmca:
            self.cmca = CMCA(c0, num_dims=3)
        if config.head == "sigmoid":
            self.head = nn.Conv3d(c0, 1, 3, padding=1)
        else:
            self.details = config.details(c0, num_dims=3)

    def forward(
        self,
        a: Float[Tensor, "b 1 d h w"],
        b: Float[Tensor, "b 1 d h w"],
        weights: Float[Tensor, "b c j"] | None = None,
        found: tuple[Float[Tensor, "b k d h w"], Float[Tensor, "b k d h w"]] | None = None,
    ) -> Float[Tensor, "b 1 d h w"]:
        if a.shape != b.shape or a.shape[1] != 1 or a.ndim != 5:
            raise ValueError(
                f"need two volumes (batch, 1, d, h, w) of one shape, not {tuple(a.shape)} and {tuple(b.shape)}"
            )
        depth, height, width = a.shape[2:]
        pair = padded(torch.cat([a, b]), self.config.stride)
        e_a, e_b = self.encoder(pair, self.stem).movedim(1, -1).chunk(2)
        fused = self.fusion(self.latent_a(e_a), self.latent_b(e_b))
        f = self.decoder(fused.movedim(-1, 1))
        # The last steps are float32 under autocast too: bfloat16 voxels would have fewer than 8 bits.
        with torch.autocast(f.device.type, enabled=False):
            f = f.to(self.stem.weight.dtype)
            x_a, x_b = pair.to(f.dtype).chunk(2)
            if self.config.cmca:
                weights = attention_of_volumes(self.cmca, (x_a, x_b), self.stem) if weights is None else weights
                f = attend_volumes(f, (x_a, x_b), weights)
            if self.config.head == "sigmoid":
                fused = torch.sigmoid(self.head(f))
            else:
                given = found and (padded(found[0], self.config.stride), padded(found[1], self.config.stride))
                fused = self.details(x_a, x_b, f, given)
            return fused[..., :depth, :height, :width]

    def attention_of(
        self, a: Float[Tensor, "b 1 d h w"], b: Float[Tensor, "b 1 d h w"]
    ) -> Float[Tensor, "b c j"] | None:
        """What the channel attention makes of whole volumes, for their windows; None without CMCA."""
        return attention_of_volumes(self.cmca, (a, b), self.stem) if self.config.cmca else None

    def bands_of(
        self, a: Float[Tensor, "b 1 d h w"], b: Float[Tensor, "b 1 d h w"]
    ) -> tuple[Float[Tensor, "b k d h w"], ...]:
        """The details of whole volumes, for their windows: none without the head of details."""
        if self.config.head == "sigmoid":
            return ()
        with torch.autocast(a.device.type, enabled=False):
            return bands(a, self.config.detail_levels), bands(b, self.config.detail_levels)


class Config(Section):
    """Everything that a run of this system depends on."""

    system: Literal["clinicalfmamba3d"] = "clinicalfmamba3d"
    model: ModelConfig = ModelConfig()
    data: VolumeSettings = VolumeSettings()
    loss: ExtendedFusionLoss = ExtendedFusionLoss()
    folds: FoldConfig = FoldConfig()
    output: OutputSettings = OutputSettings()
    prediction: SlidingWindow = SlidingWindow()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _statistics_need_samples(self) -> "Config":
        if self.train.batch == 1 and self.model.norm == "batch":
            raise ValueError("batch norm needs two samples or more in a batch: set --norm group or --batch 2")
        return self


_Config = Config  # inside System the name Config is the attribute that the verbs read


class System:
    """ClinicalFMamba for volumes as the verbs see it: `scanfuse.systems.System`."""

    Config = Config
    default_preset = "base"
    adjustable = ("window", "overlap", "resample", "baselines")
    prepared_by = ("pair", "group-pattern")
    demonstration = Demonstration(
        phantom="brats",
        options={"patients": 24, "size": 64},
        quick={"patients": 6, "size": 24},
        rivals={"axial (one route)": {"model": {"routes": "axial"}}},
        settings={"data": {"test_fraction": 0.25}},
        preset="detail",
        timed_size=64,
    )
    config: _Config
    model: Model
    data: VolumePairs
    task: Fusion

    def __init__(self, config: _Config) -> None:
        self.config = config
        self.data = VolumePairs(config.data, seed=config.train.seed, folds=config.folds)
        self.task = Fusion(config.data.modalities, loss=config.loss, medium=Volumes(), output=config.output)
        self.model = Model(config.model)

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The method."""
        fusion = str(config.get("model", {}).get("fusion", ""))
        plain = "; a plain rule in place of the published fusion" if fusion in ("concat", "mean") else ""
        return [("Fusion", f"{fusion}{plain}")]

    def forward(self, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> Float[Tensor, "b 1 d h w"]:
        """The fused volumes: of patches as they are in training, else window by window within the samples' boxes.

        Where both sources are 0 (their background) the result is 0: a sigmoid never gets there, and a loss that asks
        for it would be about nothing else.

        Raises:
            ValueError: an input is to be left out: there is nothing to fuse the other one with.
        """
        if without:
            raise ValueError(f"fusion needs both inputs, not without {', '.join(sorted(without))}")
        a, b = (batch[name] for name in self.data.modalities)
        if self.model.training:
            return self.model(a, b) * ((a > 0) | (b > 0))
        fused = torch.zeros_like(a)
        for index, meta in enumerate(batch["meta"]):
            here = (slice(index, index + 1), slice(None), *meta["box"])
            fused[here] = self._whole(a[here], b[here])
        return fused * ((a > 0) | (b > 0))

    def _whole(self, a: Float[Tensor, "1 1 d h w"], b: Float[Tensor, "1 1 d h w"]) -> Float[Tensor, "1 1 d h w"]:
        weights = self.model.attention_of(a, b)
        settings = self.config.prediction
        return sliding(
            lambda part_a, part_b, *found: self.model(part_a, part_b, weights, found or None),
            (a, b, *self.model.bands_of(a, b)),
            window=settings.window,
            overlap=settings.overlap,
        )
