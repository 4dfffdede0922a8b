"""Plain: one to four registered pictures as the channels of any timm network; the baseline of every classifier.

Idea. What a fusion network makes of several modalities must be worth more to a classifier than the modalities as
they are: one alone, or all as channels. This is that classifier. It knows nothing of modalities, and a fused picture
is one input like any other.

    inputs (b,c,h,w) x 1 to 4 --as channels--> timm network -- map (b,d,h',w') --> mean over places --> logits (b,n)
                                                              `fused`

Presets and parameters with two grey inputs and one output:

    resnet50   timm ResNet-50, 224 x 224   23,506,945  [the published classifier of fused images is a ResNet-50]
    tiny       timm DLA-46-c, 64 x 64, for demonstrations and tests   1,043,873

What may be missing. The channels of a missing input are zeros. A sample without any input is an error.

Loss: focal, gamma 2, balanced by the classes of the training samples, as published for tumours on fused images; where
that publication says nothing (rate, epochs, augmentation), values are usual ones.

Differences from the publication
* Grey inputs are one channel each; `--colour true` gives each three. timm fits published weights to the number.
* Movement of the training pictures is mild: mirror images, 10 degrees, 5 % shift, 10 % size.

Source: M. Zhou and F. Khalvati, "ClinicalFMamba", arXiv 2508.03008, 2025 (its downstream task); R. Wightman, timm.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from scanfuse.backbones.pooled import PooledClassifier
from scanfuse.backbones.timm_encoder import TimmEncoder
from scanfuse.config import Section, TrainConfig
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs.labelled_images import LabelledImages, LabelledImageSettings
from scanfuse.errors import UserError
from scanfuse.explain.gradcam import Method, Target, grad_cam
from scanfuse.fusion.channels import stacked
from scanfuse.systems import Demonstration
from scanfuse.tasks.classify import Classification, SamplingSettings
from scanfuse.tasks.classify.classes import ClassSettings, classes_of
from scanfuse.tasks.classify.loss import ClassificationLoss
from scanfuse.tasks.classify.operating_point import OperatingPointSettings

__all__ = ["Config", "ModelConfig", "System", "completed_by", "input_facts", "there"]


class ModelConfig(Section):
    """The network. The defaults are the preset `resnet50`."""

    timm_model: str = Field("resnet50", description="name of the network in timm")
    num_outputs: int = Field(1, ge=1, le=10_000, description="logits: classes, or labels that are judged one by one")
    dropout: float = Field(0.0, ge=0, lt=1, description="chance of dropping a number before the last layer")


class StartConfig(Section):
    """What the network starts from."""

    encoder_weights: str = Field("random", description="random, a timm file, or timm (its download)")


class Config(Section):
    """Everything that a run of this system depends on."""

    system: Literal["plain"] = "plain"
    model: ModelConfig = ModelConfig()
    start: StartConfig = StartConfig()
    data: LabelledImageSettings = LabelledImageSettings()
    task: ClassSettings = ClassSettings()
    loss: ClassificationLoss = ClassificationLoss(name="focal", weighting="balanced")
    decision: OperatingPointSettings = OperatingPointSettings()
    sampling: SamplingSettings = SamplingSettings()
    folds: FoldConfig = FoldConfig()
    train: TrainConfig = TrainConfig()


_Config = Config  # inside System the name Config is the attribute that the verbs read

_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pictures in [0, 1], by colour; grey inputs take those of the middle channel."""


class System:
    """The plain classifier of pictures as the verbs see it: `scanfuse.systems.System`, with optional abilities."""

    Config = Config
    default_preset = "resnet50"
    demonstration = Demonstration(
        phantom="volume_manifest",
        options={"patients": 80, "size": 64},
        quick={"patients": 20, "size": 32},
        rivals={
            "t1ce alone": {"data": {"inputs": ["t1ce"]}},
            "flair alone": {"data": {"inputs": ["flair"]}},
        },
        settings={"data": {"positives": ["HGG"], "slice": "axial:middle"}},
    )
    missing_inputs = True
    config: _Config
    model: PooledClassifier
    data: LabelledImages
    task: Classification

    def __init__(self, config: _Config) -> None:
        self.config = config
        self.task = Classification.of(config)
        self.task.require_outputs(config.model.num_outputs)
        self.data = LabelledImages(config.data, labels=self.task.targets, folds=config.folds, seed=config.train.seed)
        encoder = TimmEncoder(
            config.model.timm_model, channels=config.data.channels * max(1, len(config.data.inputs))
        )
        self.model = PooledClassifier(
            encoder, encoder.dim, num_outputs=config.model.num_outputs, dropout=config.model.dropout
        )

    @staticmethod
    def completed(config: _Config, root: Path) -> _Config:
        """The configuration with the inputs and labels of the data, and their number of outputs."""
        return cast(_Config, completed_by(config, root))

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The network and its inputs."""
        return [("Network", f"timm {config.get('model', {}).get('timm_model', '')}"), *input_facts(config)]

    def start(self) -> str:
        """Fills the network as the settings ask; says what with."""
        small = self.config.train.batch == 1 and self.config.data.size <= 32
        if small and any(isinstance(module, _BatchNorm) for module in self.model.modules()):
            raise UserError(
                "With --batch 1 and --size 32 batch norms see a single place: set --batch 2, or --size 64."
            )
        weights, encoder = self.config.start.encoder_weights, self.model.encoder
        assert isinstance(encoder, TimmEncoder)
        if weights == "random":
            return "The network starts from random weights; give --encoder-weights timm for ImageNet's."
        encoder.load(None if weights == "timm" else weights)
        return (
            f"The network starts from {weights if weights != 'timm' else 'the published weights'} of {encoder.name}."
        )

    def forward(self, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> Float[Tensor, "b n"]:
        """The logits; the inputs named in `without`, and those that `present` denies, count as missing."""
        x = stacked(batch, self.data.modalities, there(batch, self.data.modalities, without))
        mean, sd = (_MEAN, _SD) if self.config.data.colour else (_MEAN[1:2], _SD[1:2])
        times = len(self.data.modalities)
        return self.model((x - _of_channels(x, mean, times)) / _of_channels(x, sd, times))

    def evidence(
        self, batch: dict[str, Any], target: Target, method: Method = "gradcam"
    ) -> dict[str, Float[Tensor, "b h w"]]:
        """Grad-CAM of `fused`, the network's last map: which belongs to all inputs, as they are its channels."""
        return grad_cam(self.model, ("fused",), lambda: self.forward(batch), target, method=method)


def completed_by(config: Any, root: Path) -> Any:
    """A configuration of a plain classifier with the inputs and labels of the data, and their number of outputs."""
    data = config.data.with_inputs(root)
    task = config.task.filled(data.read(root, split=True))
    model = config.model.model_copy(update={"num_outputs": classes_of(task).num_outputs})
    return config.model_copy(update={"data": data, "task": task, "model": model})


def input_facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The inputs of a run, for its report."""
    return [("Inputs", " + ".join(config.get("data", {}).get("inputs", [])))]


def there(batch: Mapping[str, Any], names: tuple[str, ...], without: frozenset[str]) -> dict[str, Tensor]:
    """Which samples have which input."""
    return {name: batch["present"][name] & (name not in without) for name in names}


def _of_channels(x: Tensor, values: tuple[float, ...], times: int) -> Tensor:
    return torch.tensor(values * times, dtype=x.dtype, device=x.device)[:, None, None]
