"""Weights in the published key layout of YOLOv8, for one network or for both streams of a detector of two sensors.

    published             ours                    published              ours
    model.0, .1, .2       backbone.stages.0.0-2   model.12               neck.top_down4
    model.3, .4           backbone.stages.1.0-1   model.15               neck.top_down3
    model.5, .6           backbone.stages.2.0-1   model.16, .18          neck.down3, neck.bottom_up4
    model.7, .8, .9       backbone.stages.3.0-2   model.19, .21          neck.down4, neck.bottom_up5
    model.22.dfl          none: fixed, 0 to 15    model.22.cv2, .cv3     head.boxes, head.classes

The names inside the blocks are the same. The network's sizes are read from the shapes. A network trained on colour
images serves an infrared stream too: its first convolution then gets, for every channel of the image, the mean of the
weights of the three colours, so that it answers to a grey image as the colour stream does.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from scanfuse.backbones.checkpoint_file import open_tensors
from scanfuse.backbones.yolo import SIZES, YOLO, YOLOBackbone, YOLOConfig
from scanfuse.config import build, read_yaml
from scanfuse.errors import UserError
from scanfuse.layers.detect_head import DetectHead
from scanfuse.layers.pan import PAN

__all__ = ["Published", "Report", "describe", "fill", "our_name", "read_published", "size_of", "stem_of_mean"]

State = dict[str, Tensor]

_LAYERS = {
    **{layer: f"backbone.stages.0.{layer}" for layer in (0, 1, 2)},
    **{layer: f"backbone.stages.1.{layer - 3}" for layer in (3, 4)},
    **{layer: f"backbone.stages.2.{layer - 5}" for layer in (5, 6)},
    **{layer: f"backbone.stages.3.{layer - 7}" for layer in (7, 8, 9)},
    12: "neck.top_down4",
    15: "neck.top_down3",
    16: "neck.down3",
    18: "neck.bottom_up4",
    19: "neck.down4",
    21: "neck.bottom_up5",
}
_HEAD = 22
_BRANCHES = {"cv2": "head.boxes", "cv3": "head.classes"}
_KEY = re.compile(r"^(?:module\.)?(?:model\.)*(\d+)\.(.+)$")
_STEM = "stages.0.0.conv.weight"
_CLASSES = re.compile(r"^classes\.\d+\.2\.")
_NUM_BINS = 16


class Published(NamedTuple):
    """The weights of a file under the names of `YOLO`, in float32."""

    file: Path
    config: YOLOConfig
    num_classes: int
    state: State
    skipped: tuple[str, ...]

    def part(self, name: str) -> State:
        """The weights of one part, "backbone", "neck" or "head", without its name in front."""
        start = f"{name}."
        return {key.removeprefix(start): tensor for key, tensor in self.state.items() if key.startswith(start)}


@dataclass(frozen=True)
class Report:
    """What was taken from a checkpoint. `str(report)` is for people.

    Attributes:
        file: where the weights are from. description: the network in it.
        matched: our names of the tensors that were filled.
        missing: what keeps its initial values. skipped: what the file had and was not used.
    """

    file: Path
    description: str
    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [
            f"{self.file}: {self.description}",
            f"matched: {len(self.matched)} tensors",
            f"missing: {_some(self.missing) or 'nothing'}",
            f"skipped: {_some(self.skipped) or 'nothing'}",
        ]
        return "\n".join(rows)


def our_name(key: str) -> str | None:
    """The name in `YOLO` of a tensor of the published layout; None for one that it does not have."""
    match = _KEY.match(key)
    if match is None:
        return None
    layer, rest = int(match[1]), match[2]
    if layer == _HEAD:
        branch, _, inner = rest.partition(".")
        return f"{_BRANCHES[branch]}.{inner}" if branch in _BRANCHES else None
    return f"{_LAYERS[layer]}.{rest}" if layer in _LAYERS else None


def read_published(path: str | Path) -> Published:
    """Reads a YOLOv8 detector: a published file, or a folder that `scanfuse import yolov8` made.

    Args:
        path: .safetensors, or a dictionary of tensors that `torch.save` wrote, bare or under `model` or `state_dict`.

    Raises:
        UserError: the file cannot be read, is no YOLOv8 detector, has its norms folded into the convolutions, or
            lacks tensors.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    tensors = open_tensors(path)
    state: State = {}
    skipped: list[str] = []
    unknown: list[str] = []
    for key, tensor in tensors.items():
        ours = our_name(key)
        match = _KEY.match(key)
        if ours is not None:
            state[ours] = _usable(path, key, tensor)
        elif match and int(match[1]) == _HEAD:
            if match[2] == "dfl.conv.weight":
                _check_bins(path, tensor)
            else:
                skipped.append(key)
        else:
            unknown.append(key)
    _refuse_strangers(path, tensors, state, unknown)
    config = _config_of(path, state)
    num_classes = state["head.classes.0.2.weight"].shape[0]
    state = _checked(path, config, num_classes, state)
    return Published(path, config, num_classes, state, tuple(skipped))


def stem_of_mean(weight: Tensor, in_channels: int = 3) -> Tensor:
    """Weights (c, 3, k, k) of a first convolution -> (c, in_channels, k, k), every channel the same.

    Each is the sum over the three colours divided by `in_channels` (so for three, their mean): a grey image in all
    channels gives what it gave in three colours.
    """
    return weight.sum(dim=1, keepdim=True).div(in_channels).repeat(1, in_channels, 1, 1)


def fill(
    published: Published,
    *,
    streams: Mapping[str, YOLOBackbone],
    averaged: tuple[str, ...] = ("ir",),
    neck: PAN | None = None,
    head: DetectHead | None = None,
) -> Report:
    """Copies the weights into the parts of a detector; all or, when something does not fit, nothing.

    The class branch is taken where it has the same number of classes. Where it has not, its last convolutions keep
    their initial values, and so do those before them if their width depends on that number.

    Args:
        published: see `read_published`.
        streams: name -> backbone; all get the same weights.
        averaged: names of those that get the mean over the input channels in their first convolution.
        neck, head: None: not filled.

    Raises:
        UserError: a part has another size than the file.
    """
    stranger = [name for name in averaged if name not in streams]
    if stranger:
        raise ValueError(f"averaged names {stranger}, which are not among the streams {list(streams)}")
    for name, stream in streams.items():
        if stream.config != published.config:
            raise UserError(
                f"{published.file} holds {describe(published.config)}, but the {name} stream is "
                f"{describe(stream.config)}: choose the file or the size so that they agree."
            )
    jobs: list[tuple[str, torch.nn.Module, State]] = []
    for name, stream in streams.items():
        state = published.part("backbone")
        in_channels = stream.state_dict()[_STEM].shape[1]
        if name in averaged:
            state[_STEM] = stem_of_mean(state[_STEM], in_channels)
        elif in_channels != state[_STEM].shape[1]:
            raise UserError(
                f"{published.file} is for {state[_STEM].shape[1]} channels, the {name} stream has {in_channels}."
            )
        jobs.append((name, stream, state))
    if neck is not None:
        jobs.append(("neck", neck, published.part("neck")))
    skipped, missing = list(published.skipped), list[str]()
    if head is None:
        skipped.append("head")
    else:
        state, left = _head_state(published, head)
        jobs.append(("head", head, state))
        if left:
            missing += [f"head.{key}" for key in left]
            skipped.append(f"classes (the file has {published.num_classes}, the detector {head.num_classes})")
    if neck is None:
        skipped.append("neck")
    for name, module, state in jobs:
        _compare(published.file, name, {k: tuple(t.shape) for k, t in module.state_dict().items()}, state, missing)
    for _, module, state in jobs:
        module.load_state_dict(state, strict=False)  # what is missing was decided above
    return Report(
        file=published.file,
        description=f"{describe(published.config)}, {published.num_classes} classes",
        matched=tuple(f"{name}.{key}" for name, _, state in jobs for key in state),
        missing=tuple(missing),
        skipped=tuple(skipped),
    )


def size_of(config: YOLOConfig) -> str | None:
    """Letter of the published size, or None."""
    return next((name for name, known in SIZES.items() if known == config), None)


def _read_folder(path: Path) -> Published:
    state = open_tensors(path / "weights.safetensors")
    config = build(YOLOConfig, read_yaml(path / "config.yaml"))
    classes = state.get("head.classes.0.2.weight")
    if classes is None or config.variant != "v8":
        raise UserError(f"{path} is not an imported YOLOv8 checkpoint: import it again.")
    return Published(path, config, classes.shape[0], _checked(path, config, classes.shape[0], state), ())


def _usable(path: Path, key: str, tensor: Tensor) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return tensor.reshape(()).long()
    if not tensor.is_floating_point():
        raise UserError(f"{path}: {key} is {tensor.dtype}; weights must be floating point.")
    if not bool(torch.isfinite(tensor).all()):
        raise UserError(f"{path}: {key} has values that are not finite; the file cannot be used.")
    return tensor.float().contiguous()


def _check_bins(path: Path, tensor: Tensor) -> None:
    if not torch.equal(tensor.flatten().float(), torch.arange(_NUM_BINS, dtype=torch.float32)):
        raise UserError(f"{path}: the distances of its bins are not 0 to {_NUM_BINS - 1}; it is no stock YOLOv8.")


def _refuse_strangers(path: Path, tensors: State, state: State, unknown: list[str]) -> None:
    """One line on a file that is another network, or this one in a form that cannot be used."""
    has_norms = any(".bn." in key for key in state)
    if "backbone.stages.0.0.conv.bias" in state and not has_norms:
        raise UserError(
            f"{path} has its batch norms folded into the convolutions (a fused network), which cannot be undone: "
            "save the state dict before fusing."
        )
    if any(".cv3.conv." in key for key in state if key.startswith("backbone.")):
        raise UserError(f"{path} is a YOLOv5 network (C3 blocks); only YOLOv8 can be imported.")
    if not any(key.startswith("head.classes") for key in state) or unknown:
        first = ", ".join((unknown or list(tensors))[:3])
        raise UserError(
            f"{path} is not a YOLOv8 detector in the published names (model.0 to model.22): it has {first}."
        )


def _config_of(path: Path, state: State) -> YOLOConfig:
    ends = ("backbone.stages.0.0", "backbone.stages.0.2.cv2", "backbone.stages.1.1.cv2", "backbone.stages.2.1.cv2")
    probes = [f"{name}.conv.weight" for name in (*ends, "backbone.stages.3.2.cv2")]
    probes += ["head.boxes.0.2.weight", "head.classes.0.2.weight"]
    for key in probes:
        if key not in state or state[key].dim() != 4 or 0 in state[key].shape:
            found = f"has shape {tuple(state[key].shape)}" if key in state else "is missing"
            raise UserError(
                f"{path}: {_published_name(key)} {found}; this is no YOLOv8 detector, or not a whole one."
            )
    if state["head.boxes.0.2.weight"].shape[0] != 4 * _NUM_BINS:
        bins = state["head.boxes.0.2.weight"].shape[0] / 4
        raise UserError(f"{path} has {bins:g} bins per side; only the stock {_NUM_BINS} can be imported.")
    blocks = [_num_blocks(state, f"backbone.stages.{stage}.{2 if stage == 0 else 1}") for stage in range(4)]
    c1, c2, c3, c4, c5 = (state[key].shape[0] for key in probes[:5])
    return YOLOConfig(
        channels=(c1, c2, c3, c4, c5),
        depths=(blocks[0], blocks[1], blocks[2], blocks[3]),
        neck_depth=max(1, _num_blocks(state, "neck.top_down4")),
    )


def _num_blocks(state: State, name: str) -> int:
    numbers = [re.match(rf"^{re.escape(name)}\.m\.(\d+)\.", key) for key in state]
    return 1 + max((int(match[1]) for match in numbers if match), default=-1)


def _checked(path: Path, config: YOLOConfig, num_classes: int, state: State) -> State:
    """Every tensor of the network is there in its shape, and no other; counters of batches may be absent."""
    stem = state.get(f"backbone.{_STEM}")
    with torch.device("meta"):
        model = YOLO(config, num_classes=num_classes, in_channels=3 if stem is None else stem.shape[1])
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    for key in wanted:
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, torch.tensor(0))
    absent = [_published_name(key) for key in wanted if key not in state]
    if absent:
        raise UserError(f"{path} lacks {_some(absent)} of the network that its other tensors describe: get it again.")
    strange = [_published_name(key) for key in state if key not in wanted]
    if strange:
        raise UserError(f"{path} has tensors that a YOLOv8 of its sizes does not have: {_some(strange)}.")
    for key, shape in wanted.items():
        if tuple(state[key].shape) != shape:
            raise UserError(
                f"{path}: {_published_name(key)} has shape {tuple(state[key].shape)}, the network needs {shape}."
            )
    return {key: state[key] for key in wanted}


def _head_state(published: Published, head: DetectHead) -> tuple[State, list[str]]:
    """The tensors that fit the head, and the names of those of its own that keep their values."""
    state = published.part("head")
    if head.num_classes == published.num_classes:
        return state, []
    own = head.state_dict()
    kept = {}
    for key, tensor in state.items():
        is_last = _CLASSES.match(key) is not None
        is_other_width = key.startswith("classes.") and key in own and own[key].shape != tensor.shape
        if not is_last and not is_other_width:
            kept[key] = tensor
    # A convolution and its norm go together: a norm of another layer's statistics is worse than none.
    torn = {key.rsplit(".", 2)[0] for key in own if key not in kept}
    kept = {key: tensor for key, tensor in kept.items() if key.rsplit(".", 2)[0] not in torn}
    return kept, [key for key in own if key not in kept]


def _compare(path: Path, part: str, wanted: dict[str, tuple[int, ...]], state: State, missing: list[str]) -> None:
    for key, shape in wanted.items():
        if f"{part}.{key}" in missing:
            continue
        if key not in state or tuple(state[key].shape) != shape:
            found = tuple(state[key].shape) if key in state else "nothing"
            raise UserError(f"{path} does not fit the {part}: {key} needs {shape}, the file has {found}.")
    strange = [key for key in state if key not in wanted]
    if strange:
        raise UserError(f"{path} does not fit the {part}, which has no {_some(strange)}.")


def _published_name(key: str) -> str:
    """The published name of one of ours, for messages; ours if it has none."""
    for layer, start in _LAYERS.items():
        if key.startswith(f"{start}."):
            return f"model.{layer}.{key.removeprefix(start + '.')}"
    for branch, start in _BRANCHES.items():
        if key.startswith(f"{start}."):
            return f"model.{_HEAD}.{branch}.{key.removeprefix(start + '.')}"
    return key


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def describe(config: YOLOConfig) -> str:
    """The network in a few words, with the letter of its published size."""
    name = size_of(config)
    channels = ",".join(map(str, config.channels))
    depths = ",".join(map(str, config.depths))
    family = "YOLOv8" if config.variant == "v8" else "YOLOv5"
    return f"{family}{f' ({name})' if name else ''}: channels {channels}, depths {depths}"
