"""MambaDerm: a skin lesion is classified from its picture and a clinical table, which the picture's places ask.

Idea. A stem of convolutions gives a local map; Mamba layers read it along routes and give a global one; a gate mixes
the two. Every place then asks the tokens of the table, one per feature, what matters there.

    picture (b,3,h,w) -- stem --> T (b,h',w',d) --+------------ local -----------+
                                                  +-- n Mamba layers, LN -- G ---+-- gate --> F     `image`
                                                                                              |
    table (b,f,2) -- tokens (b,f,d) --+------------------------------- keys ----- attention --+     `fused`
                                      +-- encoder --> e (b,d) --+                             |
                                                                +--> head <-- mean over places, LN
                                                                      |
                                                               logits (b,n)

Presets and parameters with one output and 38 features (34 numbers, 4 of 33 categories), as ISIC 2024 has them:

    mambaderm       timm ConvNeXt-Tiny, d 192, 4 layers   30,914,819  [advertised: about 31 M, 8 GB]
    mambaderm-lite  timm ConvNeXt-Pico, d 192, 4 layers   11,578,723  [advertised: about 12 M, 4 GB]
    light           own stem, d 192, 4 raster layers      4,673,411  [the published code: 4,727,367]
    tiny            for demonstrations and tests           130,131

No revision of the published code has the advertised numbers; what it has when it matches its description is `light`.

Ablations behind `fusion`: `no_gate` (G alone goes on), `no_cross` (no attention; picture and table meet in the head),
`concat` (neither), `image`, `table` (one input alone). Beside the network, behind `trees`: `alone`, gradient-boosted
trees on the table, and `stacked`, these and a trained network with weights that are fitted on validation samples.

What may be missing. A picture that is not there gives a map T of zeros, whatever its pixels are; a table that is not
there has the learned fill of every feature and every missing indicator set. A sample without both is an error.

Differences from the publication
* Its keys are one token, the whole table, so its attention is a constant; here they are one per feature.
* The table is not imputed before the network: missing values have a learned fill and an indicator.
* Layers read four routes of the map (`cross`, a VMamba block); `raster` reads it as published, row by row, forwards
  and backwards.
* Positions are a learned grid that is resized, so any picture size works. `mambaderm` and `mambaderm-lite` have a
  timm stem, which the publication does not; it is what brings them near the advertised sizes.
* Norms of the stem are per place. Special starting values of the scan are kept (the published code overwrites them).
* The columns that name hospital and camera are left out; see `scanfuse.data.transforms.leaks`.

Source: the repository MarvelMathesh/MambaDerm at its first commit; there is no paper.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from scanfuse.backbones.light_stem import LightStem
from scanfuse.backbones.timm_encoder import TimmEncoder
from scanfuse.config import Section, TrainConfig, build
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs.image_table import INPUTS, CaseSettings, ImageTable
from scanfuse.data.inputs.tabled import TabledDataset
from scanfuse.errors import UserError
from scanfuse.explain.gradcam import Method, Target, grad_cam
from scanfuse.fusion.cross_attention import CrossAttention
from scanfuse.fusion.local_global import LocalGlobalGate
from scanfuse.layers.ss2d import SS2DOptions
from scanfuse.layers.tabular import TableEncoder, TableTokens
from scanfuse.layers.vim import VimBlock
from scanfuse.layers.vss import VSSBlock
from scanfuse.run import CROSS_VALIDATION
from scanfuse.systems import Demonstration
from scanfuse.systems._trees import Stacked, TreeConfig, TreesAlone, fit, network_of, require_network
from scanfuse.tasks.classify import Classification, SamplingSettings
from scanfuse.tasks.classify.classes import ClassSettings, classes_of
from scanfuse.tasks.classify.loss import ClassificationLoss
from scanfuse.tasks.classify.operating_point import OperatingPointSettings

__all__ = ["Config", "Model", "ModelConfig", "System"]

_log = logging.getLogger(__name__)

Fusion = Literal["mambaderm", "no_gate", "no_cross", "concat", "image", "table"]


class ModelConfig(Section):
    """The network. The defaults are the preset `mambaderm`."""

    fusion: Fusion = Field("mambaderm", description="how picture and table are used")
    num_outputs: int = Field(1, ge=1, le=10_000, description="logits: classes, or labels that are judged one by one")
    categories: tuple[int, ...] = Field(
        (0, 0), description="of each feature of the table, 0 for a number; filled from the data"
    )
    stem: Literal["light", "timm"] = Field("timm", description="kind of the network that sees the picture first")
    timm_model: str = Field("convnext_tiny", description="name of the stem in timm, for stem: timm")
    stem_width: int = Field(96, ge=4, le=2048, description="channels inside the light stem")
    stem_depth: int = Field(2, ge=0, le=64, description="blocks of the light stem")
    layer_scale: float = Field(1e-6, gt=0, le=1, description="weight of the light stem's blocks at the start")
    d_model: int = Field(192, ge=8, le=4096, description="channels of map and tokens, a multiple of the heads")
    n_mamba_layers: int = Field(4, ge=0, le=64, description="Mamba layers that make the global map")
    routes: Literal["cross", "raster"] = Field("cross", description="four routes over the map, or rows both ways")
    d_state: int = Field(16, ge=1, le=256, description="states per channel of the scans")
    position: int = Field(7, ge=0, le=256, description="side of the learned grid of positions; 0 = none")
    heads: int = Field(8, ge=1, le=64, description="heads of the attention to the table")
    table_width: int = Field(128, ge=4, le=4096, description="hidden width of the table's encoder")
    dropout: float = Field(0.1, ge=0, lt=1, description="chance of dropping a number in training")

    @model_validator(mode="after")
    def _heads_share_the_channels(self) -> "ModelConfig":
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} must be a multiple of the {self.heads} heads")
        return self


class Model(nn.Module):
    """The network of the module's docstring: a picture and a table -> logits.

    Args:
        config: see `ModelConfig`.

    Shape:
        image (b, 3, h, w), standardised as ImageNet's; table (b, f, 2), values and flags.
        present (b,) bool: whether the picture is there, or None where all are -> logits (b, num_outputs), float32
        under autocast too.

    Raises:
        ValueError: fewer than two features where the picture asks the table.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        width = 0
        if config.fusion != "table":
            width += d
            self.stem: nn.Module
            if config.stem == "timm":
                encoder = TimmEncoder(config.timm_model)
                self.stem = nn.Sequential(encoder, nn.Conv2d(encoder.dim, d, 1))
                self.stem_norm = nn.LayerNorm(d)
            else:
                self.stem = LightStem(
                    d, width=config.stem_width, depth=config.stem_depth, layer_scale=config.layer_scale
                )
            if config.position:
                self.position = nn.Parameter(0.02 * torch.randn(1, d, config.position, config.position))
            self.layers = nn.ModuleList(_layer(config) for _ in range(config.n_mamba_layers))
            self.norm = nn.LayerNorm(d)
            if config.fusion in ("mambaderm", "no_cross", "image"):
                self.gate = LocalGlobalGate(d)
            self.image = nn.Identity()
            if self.asks_the_table:
                self.attention = CrossAttention(d, heads=config.heads, dropout=config.dropout)
                self.fused = nn.Identity()
            self.out_norm = nn.LayerNorm(d)
        if config.fusion != "image":
            width += d
            self.tokens = TableTokens(config.categories, d)
            self.table = TableEncoder(d, hidden=config.table_width, dropout=config.dropout)
        self.head = nn.Sequential(
            nn.Linear(width, d), nn.LayerNorm(d), nn.GELU(), nn.Dropout(config.dropout),
            nn.Linear(d, d // 2), nn.LayerNorm(d // 2), nn.GELU(), nn.Dropout(config.dropout),
        )  # fmt: skip
        self.classifier = nn.Linear(d // 2, config.num_outputs)

    @property
    def asks_the_table(self) -> bool:
        return self.config.fusion in ("mambaderm", "no_gate")

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the modules whose outputs (b, d, h', w') say where the evidence is, for Grad-CAM."""
        if self.config.fusion == "table":
            return ()
        return ("image", "fused") if self.asks_the_table else ("image",)

    def forward(
        self,
        image: Float[Tensor, "b 3 h w"],
        table: Float[Tensor, "b f 2"],
        present: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b n"]:
        found = []
        tokens = None if self.config.fusion == "image" else self.tokens(table)
        if self.config.fusion != "table":
            z = self._map(image, present)
            if self.asks_the_table and tokens is not None:
                asked = self.attention(z.permute(0, 2, 3, 1).flatten(1, 2), tokens)
                z = self.fused(asked.transpose(1, 2).unflatten(2, tuple(z.shape[2:])))
            found.append(self.out_norm(z.mean(dim=(2, 3))))
        if tokens is not None:
            found.append(self.table(tokens))
        features = self.head(torch.cat(found, dim=1))
        with torch.autocast(features.device.type, enabled=False):
            return self.classifier(features.to(self.classifier.weight.dtype))

    def _map(self, image: Tensor, present: Tensor | None) -> Tensor:
        local = self.stem(image)
        if self.config.stem == "timm":
            local = self.stem_norm(local.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.config.position:
            local = local + F.interpolate(self.position, tuple(local.shape[2:]), mode="bilinear")
        if present is not None:
            local = torch.where(present[:, None, None, None], local, torch.zeros_like(local))
        local = local.permute(0, 2, 3, 1)
        wide = local
        for layer in self.layers:
            if self.config.routes == "raster":
                wide = layer(wide.flatten(1, 2)).unflatten(1, tuple(wide.shape[1:3]))
            else:
                wide = layer(wide)
        wide = self.norm(wide)
        if hasattr(self, "gate"):
            wide = self.gate(local, wide)
        z: Tensor = self.image(wide.permute(0, 3, 1, 2))
        return z


def _layer(config: ModelConfig) -> nn.Module:
    if config.routes == "raster":
        return VimBlock(config.d_model, d_state=config.d_state, dropout=config.dropout)
    return VSSBlock(config.d_model, options=SS2DOptions(d_state=config.d_state), mlp_ratio=4.0)


class StartConfig(Section):
    """What the stem starts from."""

    stem_weights: str = Field("random", description="random, a timm file, or timm (its download)")


class Config(Section):
    """Everything that a run of this system depends on."""

    system: Literal["mambaderm"] = "mambaderm"
    model: ModelConfig = ModelConfig()
    start: StartConfig = StartConfig()
    trees: TreeConfig = TreeConfig()
    data: CaseSettings = CaseSettings()
    task: ClassSettings = ClassSettings()
    loss: ClassificationLoss = ClassificationLoss()
    decision: OperatingPointSettings = OperatingPointSettings()
    sampling: SamplingSettings = SamplingSettings()
    folds: FoldConfig = FoldConfig()
    train: TrainConfig = TrainConfig()


_Config = Config  # inside System the name Config is the attribute that the verbs read


def _model(config: Config) -> Model | TreesAlone | Stacked:
    model, trees = config.model, config.trees
    if trees.use == "alone":
        if model.fusion == "image":
            raise UserError("Trees look at the table alone: leave --fusion image out, or --trees.")
        return TreesAlone(model.categories, model.num_outputs, trees.settings)
    if trees.use == "stacked":
        return Stacked(Model(model), model.categories, model.num_outputs, trees.settings)
    return Model(model)


_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pictures in [0, 1]."""


class System:
    """MambaDerm as the verbs see it: `scanfuse.systems.System`, with optional abilities."""

    Config = Config
    default_preset = "mambaderm"
    demonstration = Demonstration(
        phantom="isic2024",
        options={"patients": 1500, "size": 48},
        quick={"patients": 24, "size": 32},
        rivals={
            "image only": {"model": {"fusion": "image"}},
            "table only": {"model": {"fusion": "table"}},
            "trees on the table": {"trees": {"use": "alone"}},
        },
    )
    missing_inputs = True
    config: _Config
    model: Model | TreesAlone | Stacked
    data: ImageTable
    task: Classification

    def __init__(self, config: _Config) -> None:
        self.config = config
        self.model = _model(config)
        self.task = Classification.of(config)
        self.data = ImageTable(config.data, labels=self.task.targets, folds=config.folds, seed=config.train.seed)
        self.task.require_outputs(config.model.num_outputs)

    @staticmethod
    def completed(config: _Config, root: Path) -> _Config:
        """The configuration with the labels of the data, and what the training rows say of the table's features.

        That of a stack is the configuration of its network's run, apart from the trees and where it computes.
        """
        if config.trees.use == "stacked":
            run = network_of(config.trees, config.folds)
            found = build(_Config, run.config())
            in_folds = (Path(config.trees.network) / CROSS_VALIDATION).is_file()
            asked = config.folds if in_folds or config.folds.fold else found.folds
            if found.trees.use != "none" or asked != found.folds:
                raise UserError(
                    f"{run.path} has no network of its own, or is another fold than asked for: give the run of a "
                    "network, or a cross-validation with the same --folds."
                )
            # Where and how it computes, and what is known only here.
            here = {name: getattr(config.train, name) for name in ("device", "threads", "workers")}
            _log.info("Everything but the trees is as in %s.", run.path)
            return found.model_copy(update={"trees": config.trees, "train": found.train.model_copy(update=here)})
        manifest = config.data.open(root)  # once: of 400,000 rows it takes seconds
        task = config.task.filled(manifest)
        classes = classes_of(task)
        data = ImageTable(config.data, labels=classes.targets, folds=config.folds, seed=config.train.seed)
        categories = data.fit(data.placed(manifest).subset("train")).categories
        if len(categories) < 2 and config.model.fusion != "image":
            raise UserError(
                f"The table has {len(categories)} usable feature(s), but two are needed: name columns with "
                "--columns, or set --fusion image."
            )
        changes = {"num_outputs": classes.num_outputs, "categories": categories or (0, 0)}
        return config.model_copy(update={"task": task, "model": config.model.model_copy(update=changes)})

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The method."""
        fusion = str(config.get("model", {}).get("fusion", ""))
        plain = {
            "concat": "; a plain rule in place of the published fusion",
            "image": "; no table",
            "table": "; no image",
        }
        trees = config.get("trees", {}).get("use", "none")
        if trees == "alone":
            return [("Method", "gradient-boosted trees on the table alone; no network")]
        stacked = [("Stacked with", "gradient-boosted trees on the table")] if trees == "stacked" else []
        return [("Fusion", f"{fusion}{plain.get(fusion, '')}"), *stacked]

    def start(self) -> str:
        """Fills the stem, or the whole network of a stack, as the settings ask; says what with."""
        weights = self.config.start.stem_weights
        if isinstance(self.model, Stacked):
            run = network_of(self.config.trees, self.config.folds)
            self.model.network.load_state_dict(run.load_weights())
            return f"The network is that of {run.path}."
        if isinstance(self.model, TreesAlone) or self.config.model.fusion == "table":
            return ""
        if self.config.model.stem == "light" or weights == "random":
            if weights != "random":
                raise UserError(
                    f"--stem-weights {weights} needs --stem timm: the light stem has no published weights."
                )
            hint = "; give --stem-weights timm for ImageNet's" if self.config.model.stem == "timm" else ""
            return f"The stem starts from random weights{hint}."
        stem = self.model.stem[0]  # type: ignore[index]
        stem.load(None if weights == "timm" else weights)
        return f"The stem starts from {weights if weights != 'timm' else 'the published weights'} of {stem.name}."

    @property
    def fit_once(self) -> Callable[[TabledDataset, TabledDataset], str] | None:
        """What fills trees from training and validation samples; None for a network, which is trained in steps."""
        return None if isinstance(self.model, Model) else self._fit

    def _fit(self, training: TabledDataset, validation: TabledDataset) -> str:
        model, train = self.model, self.config.train
        if isinstance(model, Model):
            raise TypeError("a network is trained in steps")
        if isinstance(model, Stacked):
            run = network_of(self.config.trees, self.config.folds)
            require_network(run, self.data.table.fitted(), training, validation)
        return fit(
            model,
            self.task,
            training,
            validation,
            forward=lambda network, batch: self._logits(network, batch),
            collate=self.data.collate,
            settings=self.config.trees.settings,
            batch=train.batch,
            seed=train.seed,
        )

    def forward(self, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> Float[Tensor, "b n"]:
        """The logits; the inputs named in `without`, and those that `present` denies, count as missing."""
        return self._logits(self.model, batch, without)

    def _logits(self, model: nn.Module, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> Tensor:
        there = {name: batch["present"][name] & (name not in without) for name in INPUTS}
        if not bool((there["image"] | there["table"]).all()):
            raise ValueError("a sample has neither picture nor table: leave it out")
        image, table = batch["image"], batch["table"] * there["table"][:, None, None]
        mean, sd = (image.new_tensor(value)[:, None, None] for value in (_MEAN, _SD))
        logits: Tensor = model((image - mean) / sd, table, None if bool(there["image"].all()) else there["image"])
        return logits

    def evidence(
        self, batch: dict[str, Any], target: Target, method: Method = "gradcam"
    ) -> dict[str, Float[Tensor, "b h w"]]:
        """Grad-CAM of `image`, the picture's map before it asks the table, and of `fused`, the map after it has.

        A run that looks at the table alone has a map of zeros.
        """
        if not self.model.taps:
            return {"image": batch["image"].new_zeros(len(batch["image"]), 1, 1)}
        network = self.model.network if isinstance(self.model, Stacked) else self.model
        return grad_cam(network, self.model.taps, lambda: self.forward(batch), target, method=method)
