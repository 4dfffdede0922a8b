"""The Fusion-Mamba network: sizes, use of every part, options that change the result, symmetry, missing sensors."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from scanfuse import config
from scanfuse.backbones import yolo
from scanfuse.errors import UserError
from scanfuse.layers.detect_head import DetectHead, decode
from scanfuse.systems.fusionmamba import Config, Model, ModelConfig, System

TINY = config.build(Config, config.preset("fusionmamba", "tiny")).model.model_dump()
ABLATIONS: dict[str, dict[str, Any]] = {
    "mamba": {},
    "add": {"fusion": "add"},
    "rgb": {"fusion": "rgb"},
    "ir": {"fusion": "ir"},
    "without swap": {"swap": False},
    "SSCS alone": {"depth": 0},
    "deeper": {"depth": 3},
    "without IR to RGB": {"ir_to_rgb": False},
    "without RGB to IR": {"rgb_to_ir": False},
    "not propagated": {"propagate": False},
    "P4 and P5": {"levels": ("p4", "p5")},
    "P2 too": {"levels": ("p2", "p3")},
    "v5": {"variant": "v5"},
}


def model(**changes: Any) -> Model:
    """Size n with one small DSSF a level: quick, and every part is there."""
    torch.manual_seed(0)
    return Model(ModelConfig(**{**TINY, "depth": 1, "num_classes": 2, **changes}))


def count(**changes: Any) -> int:
    with torch.device("meta"):
        parts = Model(ModelConfig(**{"num_classes": 3, **changes})).parameters()
    return sum(parameter.numel() for parameter in parts)


def images(*shape: int) -> tuple[Tensor, Tensor]:
    rgb, ir = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    return rgb, ir


def joined(outputs: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([level.flatten(2) for level in outputs], dim=2)


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [
        ({}, 284_623_689),
        ({"fusion": "add"}, 114_218_825),
        ({"depth": 0}, 135_013_193),
        ({"swap": False}, 263_829_321),
    ],
    ids=str,
)
def test_the_published_network(changes: dict[str, Any], parameters: int) -> None:
    assert count(**{"network": "paper", "depth": 8, **changes}) == parameters


@pytest.mark.parametrize(
    ("network", "fused", "plain"), [("n", 8.51, 4.28), ("s", 31.55, 16.22), ("m", 60.38, 37.71), ("l", 89.28, 63.44)]
)
def test_the_stock_sizes(network: str, fused: float, plain: float) -> None:
    """Of the docstring; and two streams more than one are one more backbone, whatever the size."""
    assert round(count(network=network) / 1e6, 2) == fused
    assert round(count(network=network, fusion="add") / 1e6, 2) == plain
    with torch.device("meta"):
        stream = sum(p.numel() for p in yolo.YOLOBackbone(yolo.SIZES[network]).parameters())
    single = count(network=network, fusion="rgb")
    assert count(network=network, fusion="add") - single == stream
    assert single == count(network=network, fusion="ir")


def test_the_demonstration_is_small() -> None:
    assert round(count(**{**TINY, "num_classes": 3}) / 1e6, 2) == 6.14


# --- every part is used -------------------------------------------------------------------------------------------


def dead_parts(network: Model, rgb: Tensor, ir: Tensor) -> list[str]:
    """Parameters and images without a gradient of a random mix of all outputs."""
    rgb.requires_grad_()
    ir.requires_grad_()
    outputs = joined(network(rgb, ir))
    (outputs * torch.randn(outputs.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    named = [*network.named_parameters(), ("rgb", rgb), ("ir", ir)]
    return [name for name, p in named if p.grad is None or not bool(p.grad.any())]


@pytest.mark.parametrize("changes", ABLATIONS.values(), ids=ABLATIONS)
def test_every_parameter_and_every_sensor_that_is_used_gets_a_gradient(changes: dict[str, Any]) -> None:
    unused = {"rgb": ["ir"], "ir": ["rgb"]}.get(changes.get("fusion", ""), [])
    assert dead_parts(model(**changes), *images(2, 3, 64, 64)) == unused


def test_a_timm_stream_gets_gradients_once_its_norms_have_moved() -> None:
    """timm starts the last batch norm of each residual block at zero: what lies before it learns from step 1 on."""
    network = model(stream="timm", timm_model="resnet18")
    held_back = dead_parts(network, *images(2, 3, 64, 64))
    assert held_back and all(".conv" in name or ".bn" in name for name in held_back)
    zeros = [p for p in network.streams.parameters() if p.dim() == 1 and not p.any() and p.grad is not None]
    assert zeros
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad.sign()
                parameter.grad = None
    assert dead_parts(network, *images(2, 3, 64, 64)) == []


def test_what_is_switched_off_does_not_exist() -> None:
    names = {name for name, _ in model(fusion="add").named_parameters()}
    assert not any(name.startswith("blocks") for name in names)
    assert {name.split(".")[1] for name, _ in model(fusion="ir").streams.named_parameters(prefix="streams")} == {"ir"}
    assert set(model(levels=("p4",)).blocks) == {"p4"}


# --- every option changes the result ------------------------------------------------------------------------------


def with_weights(network: Model, weights: dict[str, Tensor]) -> Model:
    own = network.state_dict()
    fitting = {key: tensor for key, tensor in weights.items() if key in own and own[key].shape == tensor.shape}
    network.load_state_dict(fitting, strict=False)
    return network


def test_every_option_changes_the_result() -> None:
    """With the same weights wherever there are the same.

    Norms use the statistics of the batch, as in training: with those that they start with a fresh network passes next
    to nothing of its images on.
    """
    weights = model(depth=3).state_dict()
    others = {**ABLATIONS, "more states": {"d_state": 6}, "wider": {"expand": 2}, "size s": {"network": "s"}}
    outputs: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, changes in others.items():
            outputs[name] = joined(with_weights(model(**changes), weights)(*images(2, 3, 64, 64)))
    names = list(outputs)
    for place, one in enumerate(names):
        for other in names[:place]:
            assert (outputs[one] - outputs[other]).abs().max() > 1e-4, (one, other)


def test_zero_projections_keep_the_chain_silent_at_the_start() -> None:
    network = model(zero_init=True)
    silent = [name for name, p in network.blocks.named_parameters() if not p.any() and name.endswith("weight")]
    assert silent and all("out_proj" in name for name in silent)
    other = model()
    with torch.no_grad():
        a, b = (joined(each(*images(2, 3, 64, 64))) for each in (network, other))
    assert (a - b).abs().max() > 1e-4


def test_the_distance_that_boxes_start_with() -> None:
    """The expected distance of every side, in cells: the mean over the image is near what was asked for."""
    with torch.no_grad():
        found = {}
        for distance in (None, 2.0, 5.0):
            network = model(initial_distance=distance).eval()
            boxes, _ = decode(network(*images(1, 3, 64, 64)))
            finest = boxes[0, :64]  # cells of 8 pixels
            found[distance] = float((finest[:, 2:] - finest[:, :2]).mean()) / 16
    assert found[2.0] == pytest.approx(2, abs=0.5) and found[5.0] == pytest.approx(5, abs=1)
    assert found[None] == pytest.approx(7.5, abs=1.5)


# --- symmetry, sensors --------------------------------------------------------------------------------------------


def tied(network: Model) -> Model:
    """The weights of RGB for infrared too."""
    state = network.state_dict()
    for key in state:
        for own, other in (("streams.ir.", "streams.rgb."), (".ir.", ".rgb."), ("_ir.", "_rgb.")):
            if own in key and key.replace(own, other) in state:
                state[key] = state[key.replace(own, other)]
                break
    network.load_state_dict(state)
    return network


@pytest.mark.parametrize("changes", [{}, {"fusion": "add"}, {"depth": 0}, {"propagate": False}], ids=str)
def test_with_tied_weights_the_sensors_can_change_places(changes: dict[str, Any]) -> None:
    network = tied(model(**changes)).double()
    rgb, ir = (each.double() for each in images(2, 3, 64, 64))
    with torch.no_grad():
        there, back = joined(network(rgb, ir)), joined(network(ir, rgb))
        torch.testing.assert_close(there, back, rtol=1e-9, atol=1e-9)
        assert (there - joined(network(rgb, rgb))).abs().max() > 1e-4


def test_one_direction_breaks_the_symmetry() -> None:
    network = tied(model(ir_to_rgb=False))
    with torch.no_grad():
        rgb, ir = images(2, 3, 64, 64)
        assert (joined(network(rgb, ir)) - joined(network(ir, rgb))).abs().max() > 1e-4


def system(**changes: Any) -> System:
    classes = ("car", "person")
    settings = config.build(
        Config,
        config.preset("fusionmamba", "tiny"),
        {"model": {"depth": 1, "num_classes": 2, **changes}, "task": {"classes": classes}, "data": {"size": 64}},
    )
    torch.manual_seed(0)
    return System(settings)


def batch(rgb: Tensor, ir: Tensor, *, present: dict[str, list[bool]]) -> dict[str, Any]:
    return {"rgb": rgb, "ir": ir[:, :1], "present": {name: torch.tensor(flags) for name, flags in present.items()}}


@pytest.mark.parametrize("sensor", ["rgb", "ir"])
def test_the_content_of_a_missing_image_never_matters(sensor: str) -> None:
    """Neither where the sample lacks it nor where a verb takes it away; and the other sample of the batch stays."""
    detector = system()
    detector.model.eval()
    rgb, ir = images(2, 3, 64, 64)
    other = {"rgb": (1 - rgb, ir), "ir": (rgb, 1 - ir)}[sensor]
    both, lacking = {"rgb": [True, True], "ir": [True, True]}, {"rgb": [True, True], "ir": [True, True]}
    lacking[sensor] = [False, True]
    with torch.no_grad():
        a, b = (joined(detector.forward(batch(*pair, present=lacking))) for pair in ((rgb, ir), other))
        assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1]) and torch.isfinite(a).all()
        c, d = (
            joined(detector.forward(batch(*pair, present=both), without=frozenset([sensor])))
            for pair in ((rgb, ir), other)
        )
        whole = joined(detector.forward(batch(rgb, ir, present=both)))
    assert torch.equal(c, d) and torch.isfinite(c).all()
    torch.testing.assert_close(c[0], a[0])
    assert (whole[0] - c[0]).abs().max() > 1e-4


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"levels": ()}, "fusion blocks need levels"),
        ({"levels": ("p3", "p3")}, "a level is named twice"),
        ({"swap": False, "depth": 0}, "nothing is fused: choose fusion add"),
    ],
)
def test_options_without_effect_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ModelConfig(**changes)


def test_impossible_networks_are_refused() -> None:
    with pytest.raises(UserError, match="A direction of DSSF is switched off, but there is no DSSF"):
        model(depth=0, ir_to_rgb=False)
    with pytest.raises(UserError, match="The network has 3 classes, but the task has 2"):
        system(num_classes=3)


def test_the_head_is_the_one_of_the_classes() -> None:
    network = model(num_classes=5)
    assert isinstance(network.head, DetectHead) and isinstance(network.neck, nn.Module)
    assert [tuple(level.shape) for level in network(*images(2, 3, 64, 96))] == [
        (2, 69, 8, 12), (2, 69, 4, 6), (2, 69, 2, 3),
    ]  # fmt: skip
