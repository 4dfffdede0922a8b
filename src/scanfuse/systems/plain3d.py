"""Plain, for volumes: one to four registered volumes as the channels of a 3D ResNet.

Idea. As for pictures (`plain`): the classifier that a fused volume, one modality alone and both as channels are
compared by. Volumes are cut to what is not background and fitted to a cube, true to scale.

    inputs (b,1,s,s,s) x 1 to 4 --as channels--> ResNet (MONAI's) -- map (b,d,s',s',s') --> mean --> logits (b,n)
                                                                   `fused`

Presets and parameters with two inputs and one output:

    resnet50   depth 50, width 64, cubes of 96   46,179,073  [the published classifier is a ResNet-50]
    tiny       depth 10, width 8, cubes of 48; for demonstrations and tests   230,145

What may be missing. The channel of a missing volume is zeros. A sample without any volume is an error.

Heat maps are volumes; they are shown, as are the volumes, on twelve axial slices side by side (`lightbox`).

Differences from the publication
* It says ResNet-50 and focal loss, and nothing of sizes, rates or augmentation: those are usual values. There are no
  published weights; all start at random.
* The first convolution has the stride 2 of images, 1 in `tiny`: a cube of 48 would else end as 2 places a side.

Source: M. Zhou and F. Khalvati, "ClinicalFMamba", arXiv 2508.03008, 2025 (its downstream task); MONAI's ResNet.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from scanfuse.backbones.pooled import PooledClassifier
from scanfuse.backbones.resnet3d import Depth, ResNet3D
from scanfuse.config import Section, TrainConfig
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs.labelled_volumes import LabelledVolumes, LabelledVolumeSettings
from scanfuse.data.transforms.lightbox import lightbox
from scanfuse.errors import UserError
from scanfuse.explain.gradcam import Method, Target, grad_cam
from scanfuse.fusion.channels import stacked
from scanfuse.systems import Demonstration
from scanfuse.systems.plain import completed_by, input_facts, there
from scanfuse.tasks.classify import Classification, SamplingSettings
from scanfuse.tasks.classify.classes import ClassSettings
from scanfuse.tasks.classify.loss import ClassificationLoss
from scanfuse.tasks.classify.operating_point import OperatingPointSettings

__all__ = ["Config", "ModelConfig", "System"]


class ModelConfig(Section):
    """The network. The defaults are the preset `resnet50`."""

    depth: Depth = Field(50, description="layers of the published ResNet")
    width: int = Field(64, ge=1, le=1024, description="channels of its first stage")
    stem_stride: Literal[1, 2] = Field(2, description="of its first convolution")
    num_outputs: int = Field(1, ge=1, le=10_000, description="logits: classes, or labels that are judged one by one")
    dropout: float = Field(0.0, ge=0, lt=1, description="chance of dropping a number before the last layer")


class Config(Section):
    """Everything that a run of this system depends on."""

    system: Literal["plain3d"] = "plain3d"
    model: ModelConfig = ModelConfig()
    data: LabelledVolumeSettings = LabelledVolumeSettings()
    task: ClassSettings = ClassSettings()
    loss: ClassificationLoss = ClassificationLoss(name="focal", weighting="balanced")
    decision: OperatingPointSettings = OperatingPointSettings()
    sampling: SamplingSettings = SamplingSettings()
    folds: FoldConfig = FoldConfig()
    train: TrainConfig = TrainConfig()


_Config = Config  # inside System the name Config is the attribute that the verbs read


class System:
    """The plain classifier of volumes as the verbs see it: `scanfuse.systems.System`, with optional abilities."""

    Config = Config
    default_preset = "resnet50"
    demonstration = Demonstration(
        phantom="brats",
        options={"patients": 80, "size": 48},
        quick={"patients": 20, "size": 24},
        rivals={
            "t1ce alone": {"data": {"inputs": ["t1ce"]}},
            "flair alone": {"data": {"inputs": ["flair"]}},
        },
        settings={"data": {"inputs": ["t1ce", "flair"], "positives": ["HGG"]}},
    )
    missing_inputs = True
    config: _Config
    model: PooledClassifier
    data: LabelledVolumes
    task: Classification

    def __init__(self, config: _Config) -> None:
        self.config = config
        self.task = Classification.of(config)
        self.task.require_outputs(config.model.num_outputs)
        self.data = LabelledVolumes(config.data, labels=self.task.targets, folds=config.folds, seed=config.train.seed)
        model = config.model
        encoder = ResNet3D(
            model.depth,
            width=model.width,
            channels=max(1, len(config.data.inputs)),
            stem_stride=model.stem_stride,
        )
        self.model = PooledClassifier(encoder, encoder.dim, num_outputs=model.num_outputs, dropout=model.dropout)

    @staticmethod
    def completed(config: _Config, root: Path) -> _Config:
        """The configuration with the inputs and labels of the data, and their number of outputs."""
        return cast(_Config, completed_by(config, root))

    @staticmethod
    def facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The network and its inputs."""
        model = config.get("model", {})
        return [("Network", f"3D ResNet-{model.get('depth')}, width {model.get('width')}"), *input_facts(config)]

    def start(self) -> str:
        """Nothing to fill; refuses sizes whose last map is one place for a single sample."""
        if self.config.train.batch == 1 and self.config.data.size <= 16 * self.config.model.stem_stride:
            raise UserError("With --batch 1 and so small a --size batch norms see a single place: set --batch 2.")
        return ""

    def forward(self, batch: dict[str, Any], without: frozenset[str] = frozenset()) -> Float[Tensor, "b n"]:
        """The logits; the inputs named in `without`, and those that `present` denies, count as missing."""
        return self.model(stacked(batch, self.data.modalities, there(batch, self.data.modalities, without)))

    def evidence(
        self, batch: dict[str, Any], target: Target, method: Method = "gradcam"
    ) -> dict[str, Float[Tensor, "b h w"]]:
        """Grad-CAM of `fused`, the network's last map, in the size of the cube, as slices side by side."""
        (found,) = grad_cam(self.model, ("fused",), lambda: self.forward(batch), target, method=method).values()
        side = self.config.data.size
        whole = functional.interpolate(found[:, None], (side,) * 3, mode="trilinear", align_corners=False)
        return {"fused": lightbox(whole[:, 0])}
