"""Fusion-Mamba: objects are found in a visible and an infrared image that are fused level by level.

Idea. Two YOLO streams, one per sensor. At the last levels of the pyramid a fusion block lets them exchange channels
(SSCS) and then take in each other's hidden states through a chain of dual state-space modules (DSSF), whose scans
share their parameters between the sensors. What comes out goes on into both streams, and its sum into the neck.

    rgb (b,3,h,w) --> stem, P2 --> P3_r --+              +--> P4_r --+              +--> P5_r --+
                                          FMB -- joint --|           FMB -- joint --|           FMB -- joint
    ir  (b,3,h,w) --> stem, P2 --> P3_i --+      |       +--> P4_i --+      |       +--> P5_i --+      |
                                                 +------------ path-aggregation neck -----------------+
                                                                       |
                                     decoupled head, strides 8, 16, 32: 64 bins of the four sides, n classes

Parameters with three classes, millions; in brackets the published count where there is one:

    paper   v8 streams with 1024 channels at P5, 8 DSSF   284.62  [287.6]
      without fusion blocks (`add`)                       114.22  [117.2]
      SSCS alone, DSSF alone                              135.01  [138.0]    263.83  [266.8]
    n, s, m, l   stock streams, 2 DSSF at P3 to P5          8.51    31.55    60.38    89.28
      without fusion blocks                                 4.28    16.22    37.71    63.44
    tiny    n with 4 states, for demonstrations             6.14

The published increments of SSCS (20.8 M) and eight DSSF (149.6 M) are met exactly. The base of 117.2 M is not: 3.0 M
of it are unexplained (nine bottlenecks at P2 and P3 would fit).

Plain methods behind the same switch, on the same streams: `add` (no blocks), `rgb` and `ir` (one stream).

A missing sensor. Its image is zero, so its content never matters; training can take one of the two away
(`--rgb-dropout`, `--ir-dropout`), so that the network knows a night without infrared.

Differences from the publication
* The blocks are chained and update both sensors from the original states; see `scanfuse.fusion.dssf`.
* The loss is the one of YOLOv8 heads (CIoU, distributions, classes); the article's confidence term belongs to no such
  head. An assigner gives every object its cells, and every other cell learns to be empty.
* `propagate` feeds the enhanced maps into the next stage, as the framework that the publication builds on does; off,
  they go to the neck only.
* The sensors are named. A list in the other order would be another, silent network.
* Sizes other than `paper`, timm streams, sensor dropout, zero-initialised projections are ours.

Source: W. Dong et al., "Fusion-Mamba for Cross-modality Object Detection", arXiv 2404.09146, 2024.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from scanfuse.backbones import yolo, yolov8_checkpoint
from scanfuse.backbones.timm_pyramid import TimmPyramid
from scanfuse.backbones.yolo import YOLOBackbone, YOLOConfig
from scanfuse.config import Section, TrainConfig
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs.boxed_pairs import SENSORS, BoxedPairs, BoxSettings
from scanfuse.errors import UserError
from scanfuse.explain.gradcam import Method, Target, grad_cam
from scanfuse.fusion.fusion_mamba_block import FusionMambaBlock
from scanfuse.layers.detect_head import DetectHead
from scanfuse.layers.pan import PAN
from scanfuse.systems import Demonstration
from scanfuse.tasks.detect import Detection, DetectionSettings
from scanfuse.tasks.detect.loss import DetectionLoss
from scanfuse.tasks.detect.nms import Selection

__all__ = ["Config", "Model", "ModelConfig", "System"]

Level = Literal["p2", "p3", "p4", "p5"]
_LEVELS: tuple[Level, ...] = ("p2", "p3", "p4", "p5")


class ModelConfig(Section):
    """The network. The defaults are the stock size s of YOLOv8 with two DSSF modules per level."""

    fusion: Literal["mamba", "add", "rgb", "ir"] = Field("mamba", description="how the two sensors are used")
    stream: Literal["yolo", "timm"] = Field("yolo", description="kind of the network that sees each sensor")
    network: Literal["n", "s", "m", "l", "x", "paper"] = Field("s", description="size of the YOLO networks")
    variant: yolo.Variant = Field("v8", description="v8: C2f blocks; v5: C3 blocks")
    timm_model: str = Field("resnet18", description="name of the streams in timm, for stream: timm")
    num_classes: int = Field(1, ge=1, le=10_000, description="classes; taken from the data")
    levels: tuple[Level, ...] = Field(("p3", "p4", "p5"), description="where fusion blocks stand")
    swap: bool = Field(True, description="SSCS: the sensors exchange channels before the chain")
    depth: int = Field(2, ge=0, le=64, description="DSSF modules in each chain; published 8; 0 is SSCS alone")
    ir_to_rgb: bool = Field(True, description="RGB takes in the states of infrared")
    rgb_to_ir: bool = Field(True, description="infrared takes in the states of RGB")
    propagate: bool = Field(True, description="the enhanced maps go on into the next stages")
    zero_init: bool = Field(False, description="output projections of the blocks start at zero")
    initial_distance: float | None = Field(
        None,
        gt=0,
        le=15,
        description="cells to the sides of a box at the start; none as published, which is about 7; small "
        "objects in small data need less, such as 2",
    )
    d_state: int = Field(16, ge=1, le=256, description="states per channel of the blocks")
    expand: int = Field(2, ge=1, le=16, description="inner width of the blocks over their width")

    @model_validator(mode="after")
    def _no_option_is_without_effect(self) -> "ModelConfig":
        if self.fusion == "mamba" and not self.levels:
            raise ValueError("fusion blocks need levels to stand at, such as p3,p4,p5; without any choose fusion add")
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"a level is named twice: {', '.join(self.levels)}")
        if self.fusion == "mamba" and not self.swap and self.depth == 0:
            raise ValueError("without swap and with depth 0 nothing is fused: choose fusion add")
        return self

    @property
    def yolo(self) -> YOLOConfig:
        """Sizes of streams, neck and head; of a timm stream those of the neck and head only."""
        return (yolo.SIZES if self.variant == "v8" else yolo.SIZES_V5)[self.network]

    @property
    def sensors(self) -> tuple[str, ...]:
        """The sensors that have a stream."""
        return (self.fusion,) if self.fusion in SENSORS else SENSORS


class Model(nn.Module):
    """The network of the module's docstring: two images -> raw maps of the head.

    Args:
        config: see `ModelConfig`.

    Shape:
        rgb, ir (b, 3, h, w) in [0, 1], h and w multiples of 32 -> one map (b, 64 + n, h / s, w / s) per stride s of
        8, 16, 32.

    Raises:
        UserError: a level that the streams do not have, or a timm network that cannot be a stream.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.yolo
        self.streams = nn.ModuleDict({name: self._stream(sizes) for name in config.sensors})
        channels = self._channels
        self.blocks = nn.ModuleDict()
        if config.fusion == "mamba":
            for level in config.levels:
                if level not in channels:
                    raise UserError(f"The streams have no level {level}: choose from {', '.join(channels)}.")
                self.blocks[level] = FusionMambaBlock(
                    channels[level],
                    swap=config.swap,
                    depth=config.depth,
                    d_state=config.d_state,
                    expand=config.expand,
                    ir_to_rgb=config.ir_to_rgb,
                    rgb_to_ir=config.rgb_to_ir,
                    zero_init=config.zero_init,
                )
        for level in ("p3", "p4", "p5"):  # names for heat maps
            self.add_module(level, nn.Identity())
        dims_in = (channels["p3"], channels["p4"], channels["p5"])
        self.neck = PAN(dims_in, sizes.dims, num_blocks=sizes.neck_depth, block=sizes.block)
        self.head = DetectHead(sizes.dims, num_classes=config.num_classes, initial_distance=config.initial_distance)
        # The blocks read channels last, and so do oneDNN's and cuDNN's convolutions best: no map is turned round.
        self.to(memory_format=torch.channels_last)

    def _stream(self, sizes: YOLOConfig) -> YOLOBackbone | TimmPyramid:
        if self.config.stream == "timm":
            staged = self.config.fusion == "mamba" and self.config.propagate
            return TimmPyramid(self.config.timm_model, staged=staged)
        return YOLOBackbone(sizes)

    @property
    def _channels(self) -> dict[str, int]:
        """Level -> channels of the streams' maps."""
        stream: Any = next(iter(self.streams.values()))
        names = {4: "p2", 8: "p3", 16: "p4", 32: "p5"}
        return {names[stride]: c for stride, c in zip(stream.strides, stream.channels, strict=True)}

    def forward(
        self, rgb: Float[Tensor, "b 3 h w"], ir: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b k _ _"], ...]:
        images = {"rgb": rgb, "ir": ir}
        levels = self._levels({name: images[name] for name in self.streams})
        p3, p4, p5 = (getattr(self, level)(levels[level]) for level in ("p3", "p4", "p5"))
        return self.head(*self.neck(p3, p4, p5))

    def _levels(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        """Level -> joint map of both sensors, or the map of the only one."""
        feeds_back = self.config.propagate and len(self.blocks) > 0
        if feeds_back:
            steps: Any = zip(*(self.streams[name].stages for name in images), strict=True)
        else:
            steps = zip(*(self.streams[name](image) for name, image in images.items()), strict=True)
        maps = list(images.values())
        joint = {}
        for level, step in zip(self._channels, steps, strict=True):
            maps = [stage(x) for stage, x in zip(step, maps, strict=True)] if feeds_back else list(step)
            if level in self.blocks:
                fused = self.blocks[level](*(x.permute(0, 2, 3, 1) for x in maps))
                back = [x.permute(0, 3, 1, 2) for x in fused]
                joint[level] = back[2]
                if feeds_back:
                    maps = back[:2]
            else:
                joint[level] = maps[0] if len(maps) == 1 else maps[0] + maps[1]
        return joint


class StartConfig(Section):
    """What the network starts from."""

    weights: str = Field(
        "random",
        description="random, a YOLOv8 file or imported folder (into both streams, neck and head), or timm",
    )


class Config(Section):
    """Everything that a run of this system depends on."""

    system: Literal["fusionmamba"] = "fusionmamba"
    model: ModelConfig = ModelConfig()
    start: StartConfig = StartConfig()
    data: BoxSettings = BoxSettings()
    task: DetectionSettings = DetectionSettings()
    loss: DetectionLoss = DetectionLoss()
    selection: Selection = Selection()
    folds: FoldConfig = FoldConfig()
    train: TrainConfig = TrainConfig()


_Config = Config  # inside System the name Config is the attribute that the verbs read


class System:
    """Fusion-Mamba as the verbs see it: `scanfuse.systems.System`, with all optional abilities."""

    Config = Config
    default_preset = "s"
    demonstration = Demonstration(
        phantom="msrs",
        options={"scenes": 120, "frames": 4, "size": 160},
        quick={"scenes": 8, "frames": 1, "size": 96},
        rivals={"plain sum": {"model": {"fusion": "add"}}},
    )
    missing_inputs = True
    config: _Config
    model: Model
    data: BoxedPairs
    task: Detection

    def __init__(self, config: _Config) -> None:
        self.config = config
        self.task = Detection(config.task, loss=config.loss, selection=config.selection)
        if config.model.num_classes != len(self.task.classes):
            raise UserError(
                f"The network has {config.model.num_classes} classes, but the task has {len(self.task.classes)}: "
                "leave --num-classes and --classes to the data."
            )
        self.model = Model(config.model)
        data = config.data
        if len(config.model.sensors) == 1:  # there is nothing to learn from a sample without its only sensor
            data = data.model_copy(update={"rgb_dropout": 0.0, "ir_dropout": 0.0})
        train = config.train
        self.data = BoxedPairs(
            data, classes=self.task.classes, seed=train.seed, epochs=train.epochs, folds=config.folds
        )

    @staticmethod
    def completed(config: _Config, root: Path) -> _Config:
        """The configuration with the classes of the data, and the size of given weights."""
        task = config.task.filled(config.data.open(root))
        model = config.model.model_copy(update={"num_classes": len(task.classes)})
        file = config.start.weights
        if file not in ("random", "timm") and model.stream == "yolo":
            found = yolov8_checkpoint.read_published(file)
            size = yolov8_checkpoint.size_of(found.config)
            if size is None:
                raise UserError(f"{file} is a YOLOv8 network of no published size, which --weights cannot take.")
            model = model.model_copy(update={"network": size, "variant": "v8"})
        return config.model_copy(update={"task": task, "model": model})

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The method."""
        fusion = str(config.get("model", {}).get("fusion", ""))
        plain = "; a plain method on the same streams" if fusion in ("add", "rgb", "ir") else ""
        return [("Fusion", f"{fusion}{plain}")]

    def start(self) -> str:
        """Fills the streams as the settings ask; says what with, and which settings have no effect."""
        data, sensors = self.config.data, self.config.model.sensors
        idle = len(sensors) == 1 and (data.rgb_dropout or data.ir_dropout)
        note = f" With {sensors[0]} alone no sensor is taken away: the dropouts have no effect." if idle else ""
        return f"{self._fill()}{note}"

    def _fill(self) -> str:
        file, model = self.config.start.weights, self.config.model
        if file == "random":
            return "The streams start from random weights; give --weights FILE to start from published ones."
        if model.stream == "timm":
            for stream in self.model.streams.values():
                stream.load(None if file == "timm" else file)  # type: ignore[operator]
            return f"The streams start from timm's {model.timm_model}."
        if file == "timm":
            raise UserError("--weights timm needs --stream timm; a YOLO stream needs a YOLOv8 file.")
        streams: Any = dict(self.model.streams)
        averaged = tuple(name for name in streams if name == "ir")
        report = yolov8_checkpoint.fill(
            yolov8_checkpoint.read_published(file),
            streams=streams,
            averaged=averaged,
            neck=self.model.neck,
            head=self.model.head,
        )
        return f"The network starts from {report}"

    def forward(
        self, batch: dict[str, Any], without: frozenset[str] = frozenset()
    ) -> tuple[Float[Tensor, "b k _ _"], ...]:
        """The raw maps of the head; the images of sensors that are missing or named in `without` are zero."""
        seen = {}
        for name in SENSORS:
            there = batch["present"][name] & (name not in without)
            seen[name] = (batch[name] * there[:, None, None, None]).expand(-1, 3, -1, -1)
        return self.model(seen["rgb"], seen["ir"])

    def evidence(
        self, batch: dict[str, Any], target: Target, method: Method = "gradcam"
    ) -> dict[str, Float[Tensor, "b h w"]]:
        """Grad-CAM at the joint maps `p3`, `p4`, `p5`."""
        return grad_cam(self.model, ("p3", "p4", "p5"), lambda: self.forward(batch), target, method=method)
