"""COPD: a patient is classified from chest CT slices and a clinical table, joined by attention at two levels.

Idea. Every slice passes one hybrid backbone (convolutions, axial attention, scans). Level 1: the slices of a patient
listen to each other and are pooled by attention. Level 2: CT and table ask each other, and a gate says how much each
counts.

    slices (b,s,c,h,w) -- HybridMamba --> map (b s,d',h/32,w/32) -- mean in the lung --> f (b,s,d)
                                           `map`                                          |
                                                     place of each slice --> self-attention --> t (b,s,d)
                                                                                          |
                                                                           attention pooling --> c (b,d), weights
    table (b,f,2) -- tokens (b,f,d) -- encoder --> e (b,d)                                |
                       |                            |                                     |
                       +--- asked by c -----------  c' = c + ..., e' = e + ... <-- asks t +
                                                    |
                       gate g = softmax(W [c'; e'; c'e']) --> h = g_1 c' + g_2 e'
                                                    |
                                       [h; c'e'] --> head --> logits (b,n)

Presets and parameters with one output and 12 features of a table (11 numbers, one of 3 categories):

    base    30 slices of 224 x 224          12,178,370  [not published]
    tiny    for demonstrations and tests       176,224

Ablations: `mamba`, `axial`, `mseb` false take a block away (see `backbones.hybrid_mamba`); `fusion` is `dual`, one
level only (`slices`: level 1 and plain joining; `cross`: mean of the slices and level 2), `concat` (neither), or one
input alone (`ct`, `table`).

What may be missing. Without slices c is a constant and its gate 0; without a table every feature is missing, and its
gate is 0. A patient without both is an error. Training takes either away with a chance of 0.1.

Differences from the publication
* There is no paper to be had, no code, no weights, no data and no table of results: a description names the three
  blocks, four stages, two levels of fusion, the selection of features by a random forest, 30 slices, batch 16, rate
  1e-4, five folds, 7:1:2, and 97.5 ms per patient. All sizes, and how the blocks are made, are ours.
* "AAS" is not expanded anywhere; here it is axial attention and selective scan.
* The description lists lung function among the inputs. FEV1, FVC, their ratio and GOLD define COPD: they are left out
  unless --allow-leaks names them.
* The table is not imputed or only scaled: missing values have a learned fill and an indicator, features are tokens.
* Features are selected if --keep-features says how many, by the forest's impurity.
* Norms of the backbone are per slice, so that padding, chunks and single patients change nothing. One batch norm, on
  the vectors of the slices, takes away what all slices share.
* The heat map is Grad-CAM at the backbone's output, of each slice, times the weight of the slice.

Source: the README of CHDqiqibaba/Hybrid-Mamba-Network-with-Dual-Level-Attention-Fusion.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from scanfuse.backbones.hybrid_mamba import HybridMamba, HybridOptions
from scanfuse.config import Section, TrainConfig
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs.series_table import INPUTS, SeriesSettings, SeriesTable
from scanfuse.data.transforms.montage import montage
from scanfuse.errors import UserError
from scanfuse.explain.gradcam import Method, Target, grad_cam
from scanfuse.fusion.dual_level import AttentionPooling, GatedCrossModal, MeanPooling, SliceAttention
from scanfuse.layers.linear import Linear
from scanfuse.layers.tabular import TableEncoder, TableTokens
from scanfuse.systems import Demonstration
from scanfuse.tasks.classify import Classification, SamplingSettings
from scanfuse.tasks.classify.classes import ClassSettings, classes_of
from scanfuse.tasks.classify.loss import ClassificationLoss
from scanfuse.tasks.classify.operating_point import OperatingPointSettings

__all__ = ["Config", "Looked", "Model", "ModelConfig", "System"]

Fusion = Literal["dual", "slices", "cross", "concat", "ct", "table"]
_TILE = 16
"""Places of a slice's heat map on the montage, along a side."""


class ModelConfig(Section):
    """The network. The defaults are the preset `base`."""

    fusion: Fusion = Field("dual", description="both levels, one of them, neither, or one input alone")
    num_outputs: int = Field(1, ge=1, le=10_000, description="logits: classes, or labels that are judged one by one")
    categories: tuple[int, ...] = Field(
        (0, 0), description="of each feature of the table, 0 for a number; filled from the data"
    )
    in_channels: int = Field(0, ge=0, le=2, description="of a slice; 0 = as many as there are windows")
    widths: tuple[int, int, int, int] = Field((48, 96, 192, 384), description="channels of the four stages")
    depths: tuple[int, int, int, int] = Field((2, 2, 4, 2), description="blocks of the four stages")
    head_dim: int = Field(64, ge=1, le=512, description="channels of a head of the axial attention")
    d_state: int = Field(16, ge=1, le=256, description="states per channel of the scans")
    mamba: bool = Field(True, description="scans in stages 2 and 3; false is an ablation")
    axial: bool = Field(True, description="axial attention in stages 2 to 4; false is an ablation")
    mseb: bool = Field(True, description="multi-scale blocks in stage 1; false is an ablation")
    dim: int = Field(
        256, ge=4, le=4096, description="width of slices, table and their tokens, a multiple of the heads"
    )
    heads: int = Field(4, ge=1, le=64, description="heads of the attentions over slices and features")
    table_width: int = Field(128, ge=4, le=4096, description="hidden width of the table's encoder")
    head_width: int = Field(128, ge=4, le=4096, description="hidden width of the head")
    dropout: float = Field(0.3, ge=0, lt=1, description="chance of dropping a number in training")
    drop_path: float = Field(0.1, ge=0, lt=1, description="chance of dropping a branch of the backbone in training")
    chunk: int = Field(
        30, ge=0, le=100_000, description="slices computed at once, and again in the backward pass; 0 = all"
    )

    @model_validator(mode="after")
    def _heads_share_the_channels(self) -> "ModelConfig":
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} must be a multiple of the {self.heads} heads")
        if min(*self.widths, *self.depths) < 1 or max(self.widths) > 4096 or max(self.depths) > 100:
            raise ValueError("widths are 1 to 4096, depths 1 to 100")
        return self

    @property
    def backbone(self) -> HybridOptions:
        """Sizes and ablations of the backbone."""
        return HybridOptions(
            in_channels=max(self.in_channels, 1),
            widths=self.widths,
            depths=self.depths,
            head_dim=self.head_dim,
            d_state=self.d_state,
            mamba=self.mamba,
            axial=self.axial,
            mseb=self.mseb,
            drop_path=self.drop_path,
        )


class Looked(NamedTuple):
    """What the network puts out, and what it looked at.

    Attributes:
        logits: (b, n), float32 under autocast too.
        weights: (b, s) of the slices, 0 where there is none.
        gate: (b, 2) of CT and table; without level 2, shares of neither are known and both are nan.
    """

    logits: Tensor
    weights: Tensor
    gate: Tensor


class Model(nn.Module):
    """The network of the module's docstring: slices and a table -> logits.

    Args:
        config: see `ModelConfig`.

    Shape:
        ct (b, s, c, h, w) in [0, 1]; seen (b, s) bool; place (b, s) in [0, 1]; lung (b, s, h, w) bool; table
        (b, f, 2), values and flags; present (b, 2) bool: CT, table -> logits (b, num_outputs). `look` gives more.

    Raises:
        ValueError: fewer than two features where the CT asks the table.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d, fusion = config.dim, config.fusion
        if fusion != "table":
            self.backbone = HybridMamba(config.backbone, chunk=config.chunk)
            self.map = nn.Identity()
            self.centre = nn.BatchNorm1d(self.backbone.dim)
            self.slice = Linear(self.backbone.dim, d)
            if fusion in ("dual", "slices", "ct"):
                self.listen = SliceAttention(d, heads=config.heads, dropout=config.dropout)
            self.pool = AttentionPooling(d) if fusion in ("dual", "slices", "ct") else MeanPooling()
        if fusion != "ct":
            self.tokens = TableTokens(config.categories, d)
            self.table = TableEncoder(d, hidden=config.table_width, dropout=config.dropout)
        if fusion in ("dual", "cross"):
            self.cross = GatedCrossModal(d, heads=config.heads, dropout=config.dropout)
        width = d if fusion in ("ct", "table") else 2 * d
        hidden = config.head_width
        self.head = nn.Sequential(Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(config.dropout))
        self.classifier = nn.Linear(hidden, config.num_outputs)

    def forward(
        self,
        ct: Float[Tensor, "b s c h w"],
        seen: Bool[Tensor, "b s"],
        place: Float[Tensor, "b s"],
        lung: Bool[Tensor, "b s h w"],
        table: Float[Tensor, "b f 2"],
        present: Bool[Tensor, "b 2"],
    ) -> Float[Tensor, "b n"]:
        return self.look(ct, seen, place, lung, table, present).logits

    def look(self, ct: Tensor, seen: Tensor, place: Tensor, lung: Tensor, table: Tensor, present: Tensor) -> Looked:
        """The logits, the weights of the slices and the gate."""
        fusion = self.config.fusion
        seen = seen & present[:, :1]
        weights = ct.new_zeros(seen.shape)
        gate = ct.new_full((len(seen), 2), torch.nan)
        found: list[Tensor] = []
        if fusion != "table":
            slices = self._slices(ct, seen, lung)
            if hasattr(self, "listen"):
                slices = self.listen(slices, place, seen)
            scan, weights = self.pool(slices, seen)
            found.append(scan)
        if fusion != "ct":
            tokens = self.tokens(table * present[:, 1, None, None])
            e = self.table(tokens)
            found.append(e)
        if fusion in ("dual", "cross"):
            joined, gate = self.cross(found[0], slices, e, tokens, seen, present)
            found = [joined]
        features = self.head(torch.cat(found, dim=1))
        with torch.autocast(features.device.type, enabled=False):
            logits = self.classifier(features.to(self.classifier.weight.dtype))
        return Looked(logits, weights, gate)

    def _slices(self, ct: Tensor, seen: Tensor, lung: Tensor) -> Tensor:
        """Slices as vectors (b, s, d), zeros where there is none: the mean of each map inside the lung."""
        if not bool(seen.any()):
            return ct.new_zeros(*seen.shape, self.config.dim)
        maps = self.map(self.backbone(ct[seen]))
        inside = F.adaptive_avg_pool2d(lung[seen][:, None].to(maps.dtype), maps.shape[2:])
        inside = inside + (inside.amax(dim=(2, 3), keepdim=True) == 0)  # a slice without lung counts as a whole
        means = (maps * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3))
        # Slices of the chest are much alike: without their common part taken away a training does not get going.
        learns = self.training and len(means) > 1
        centre = self.centre
        means = means.to(centre.weight.dtype)
        vectors = self.slice(
            F.batch_norm(
                means,
                centre.running_mean,
                centre.running_var,
                centre.weight,
                centre.bias,
                learns,
                centre.momentum or 0.1,
            )
        )
        return vectors.new_zeros(*seen.shape, vectors.shape[-1]).index_put((seen,), vectors)


class Config(Section):
    """Everything that a run of this system depends on."""

    system: Literal["copd"] = "copd"
    model: ModelConfig = ModelConfig()
    data: SeriesSettings = SeriesSettings()
    task: ClassSettings = ClassSettings()
    loss: ClassificationLoss = ClassificationLoss()
    decision: OperatingPointSettings = OperatingPointSettings()
    sampling: SamplingSettings = SamplingSettings()
    folds: FoldConfig = FoldConfig()
    train: TrainConfig = TrainConfig()


_Config = Config  # inside System the name Config is the attribute that the verbs read


class System:
    """COPD as the verbs see it: `scanfuse.systems.System`, with optional abilities."""

    Config = Config
    default_preset = "base"
    demonstration = Demonstration(
        phantom="copd",
        options={"patients": 400, "slices": 6, "size": 64},
        quick={"patients": 30, "slices": 4, "size": 32},
        rivals={
            "CT only": {"model": {"fusion": "ct"}},
            "table only": {"model": {"fusion": "table"}},
        },
    )
    missing_inputs = True
    prepared_by = ("slices", "size")
    config: _Config
    model: Model
    data: SeriesTable
    task: Classification

    def __init__(self, config: _Config) -> None:
        self.config = config
        if config.decision.test_time_flips:
            raise UserError("--test-time-flips would move the heart to the other side: leave it out for chest CT.")
        channels = len(config.data.windows)
        if config.model.in_channels not in (0, channels):
            raise UserError(
                f"The network takes {config.model.in_channels} channel(s), but there are {channels} windows: leave "
                "--in-channels to --emphysema-window."
            )
        self.model = Model(config.model.model_copy(update={"in_channels": channels}))
        self.task = Classification.of(config)
        self.data = SeriesTable(
            config.data,
            labels=self.task.targets,
            folds=config.folds,
            seed=config.train.seed,
            needs_ct=config.model.fusion != "table",
        )
        self.task.require_outputs(config.model.num_outputs)

    @staticmethod
    def completed(config: _Config, root: Path) -> _Config:
        """The configuration with the labels of the data, and what the training rows say of the table's features."""
        task = config.task.filled(config.data.open(root))
        classes = classes_of(task)
        data = SeriesTable(config.data, labels=classes.targets, folds=config.folds, seed=config.train.seed)
        categories = data.fit(data.open(root).subset("train")).categories
        if len(categories) < 2 and config.model.fusion != "ct":
            raise UserError(
                f"The table has {len(categories)} usable feature(s), but two are needed: name columns with "
                "--columns, or set --fusion ct."
            )
        changes = {"num_outputs": classes.num_outputs, "categories": categories or (0, 0)}
        return config.model_copy(update={"task": task, "model": config.model.model_copy(update=changes)})

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The method."""
        model = config.get("model", {})
        fusion = str(model.get("fusion", ""))
        said = {
            "dual": "slices attend to each other, then CT and table, gated",
            "slices": "slices attend to each other; table joined plainly",
            "cross": "mean of the slices; CT and table attend to each other, gated",
            "concat": "mean of the slices, table joined plainly",
            "ct": "CT alone",
            "table": "table alone",
        }
        without = [name for name in ("mamba", "axial", "mseb") if model.get(name) is False]
        taken = f"; without {', '.join(without)}" if without else ""
        return [("Fusion", f"{fusion}: {said.get(fusion, '')}{taken}")]

    def forward(self, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> Float[Tensor, "b n"]:
        """The logits; the inputs named in `without`, and those that `present` denies, count as missing."""
        return self.model(*self._inputs(batch, without))

    def evidence(
        self, batch: dict[str, Any], target: Target, method: Method = "gradcam"
    ) -> dict[str, Float[Tensor, "b h w"]]:
        """Grad-CAM of every slice at the backbone's output, times the slice's weight, as a montage; `ct`.

        Runs and patients without slices have a map of zeros.
        """
        inputs = self._inputs(batch, frozenset())
        count, seen = batch["seen"].shape[1], batch["seen"] & inputs[-1][:, :1]
        heat = batch["ct"].new_zeros(*batch["seen"].shape, _TILE, _TILE)
        if self.config.model.fusion != "table" and bool(seen.any()):
            maps = grad_cam(self.model, ("map",), lambda: self.model(*inputs), target, method=method)["map"]
            with torch.no_grad():
                weights = self.model.look(*inputs).weights
            maps = maps * weights[seen][:, None, None].to(maps.dtype)
            size = (_TILE, _TILE)
            heat[seen] = F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0].to(heat.dtype)
        tiles = heat.reshape(-1, count, _TILE, _TILE).cpu().numpy()
        return {"ct": torch.stack([torch.from_numpy(montage(each)) for each in tiles])}

    @torch.no_grad()
    def inner(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Of a batch of one: the gate, weight and place of every slice, and the size of a slice's map."""
        looked = self.model.look(*self._inputs(batch, frozenset()))
        found: dict[str, Any] = {}
        if not bool(looked.gate.isnan().any()):
            gate = {name: round(float(value), 4) for name, value in zip(INPUTS, looked.gate[0], strict=True)}
            found["gate"] = gate
        if bool(looked.weights.any()):
            shown = zip(batch["place"][0].tolist(), looked.weights[0].tolist(), strict=True)
            found["slices"] = [{"place": round(p, 3), "weight": round(w, 4)} for p, w in shown]
            sides = batch["ct"].shape[-2:]
            found["map_places"] = {"view": tuple(math.ceil(side / 32) for side in sides)}
        return found

    def _inputs(self, batch: dict[str, Any], without: frozenset[str]) -> tuple[Tensor, ...]:
        there = [batch["present"][name] & (name not in without) for name in INPUTS]
        if not bool((there[0] | there[1]).all()):
            raise ValueError("a patient has neither CT nor table: leave it out")
        return (*(batch[name] for name in ("ct", "seen", "place", "lung", "table")), torch.stack(there, dim=1))
