"""The ClinicalFMamba network for volumes: size, use of every part, any sides, windows against the whole."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from scanfuse import config
from scanfuse.errors import UserError
from scanfuse.systems.clinicalfmamba3d import Config, Model, ModelConfig, System

TINY, BASE = (config.build(Config, config.preset("clinicalfmamba3d", name)).model for name in ("tiny", "base"))
ABLATIONS = [
    {},
    {"routes": "axial"},
    {"routes": "triplane6"},
    {"fusion": "concat"},
    {"fusion": "mean"},
    {"cmca": False},
    {"norm": "group"},
    {"stem_stride": 2},
    {"head": "details"},
    {"head": "details", "cmca": False, "detail_levels": 1, "detail_dilations": (2,)},
]


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def tiny(**changes: object) -> Model:
    torch.manual_seed(0)
    return Model(ModelConfig(**{**TINY.model_dump(), **changes}))


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    a, b = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    return a, b


def dead_parts(model: Model, a: Tensor, b: Tensor) -> list[str]:
    """Names of parameters and inputs without a gradient of the output."""
    a.requires_grad_()
    b.requires_grad_()
    fused = model(a, b)
    (fused * torch.randn(fused.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    named = [*model.named_parameters(), ("a", a), ("b", b)]
    largest = max(p.grad.abs().max().item() for _, p in named if p.grad is not None)
    return [name for name, p in named if p.grad is None or p.grad.abs().max().item() < 1e-7 * largest]


@pytest.mark.parametrize(
    ("routes", "parameters"), [("triplane3", 3_287_969), ("triplane6", 3_721_121), ("axial", 2_999_201)]
)
def test_base_has_the_parameters_that_its_description_says(routes: str, parameters: int) -> None:
    """Per latent block 111,104, 135,168, 171,264 (axial, 3, 6 routes), per cross block 33,024 more; two and ten."""
    blocks = {"axial": 111_104, "triplane3": 135_168, "triplane6": 171_264}[routes]
    encoder = 896 + 8_224 + 16_448 + 65_664 + sum(55 * c**2 + 9 * c for c in (32, 64, 128))
    decoder = 27 * (128 * 64 + 64 * 32 + 32 * 32) + 3 * (64 + 32 + 32) + 2 * 32**2 + 27 * 32 + 1
    assert encoder + 10 * blocks + 2 * (blocks + 33_024) + 128**2 + 128 + decoder == parameters
    with torch.device("meta"):
        assert count(Model(BASE.model_copy(update={"routes": routes}))) == parameters


def test_base_uses_every_parameter() -> None:
    torch.manual_seed(0)
    assert dead_parts(Model(BASE), *pair(1, 1, 16, 24, 16)) == []


@pytest.mark.parametrize("changes", ABLATIONS, ids=str)
def test_every_option_leaves_nothing_unused(changes: dict) -> None:
    assert dead_parts(tiny(**changes), *pair(2, 1, 16, 12, 8)) == []


@pytest.mark.parametrize("sides", [(9, 13, 17), (8, 8, 16), (1, 1, 1), (3, 20, 7)], ids=str)
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_any_sides(sides: tuple[int, int, int], stem_stride: int) -> None:
    a, b = pair(1, 1, *sides)
    with torch.no_grad():
        fused = tiny(stem_stride=stem_stride).eval()(a, b)
    assert fused.shape == a.shape
    assert fused.min() > 0 and fused.max() < 1


def test_padding_is_replication_on_every_side() -> None:
    model = tiny().eval()
    a, b = pair(1, 1, 8, 8, 8)
    for side in (2, 3, 4):
        last, before = torch.tensor([7]), torch.tensor([6])
        x, y = (v.index_copy(side, last, v.index_select(side, before)) for v in (a, b))
        with torch.no_grad():
            torch.testing.assert_close(
                model(x.narrow(side, 0, 7), y.narrow(side, 0, 7)), model(x, y).narrow(side, 0, 7)
            )


@pytest.mark.parametrize("sides", [(9, 13, 17), (1, 1, 1), (3, 20, 7)], ids=str)
def test_details_of_any_sides(sides: tuple[int, int, int]) -> None:
    a, b = pair(2, 1, *sides)
    with torch.no_grad():
        fused = tiny(head="details").eval()(a, b)
    assert fused.shape == a.shape
    assert fused.min() >= 0 and fused.max() <= 1


@pytest.mark.parametrize(("sharpness", "start"), [(50.0, torch.maximum), (0.01, lambda a, b: (a + b) / 2)])
def test_details_start_near_the_brighter_source_or_the_mean(
    sharpness: float, start: Callable[[Tensor, Tensor], Tensor]
) -> None:
    model = tiny(head="details", detail_sharpness=sharpness).eval()
    a, b = pair(1, 1, 24, 24, 24)
    with torch.no_grad():
        assert (model(a, b) - start(a, b)).abs().mean() < 0.05


def test_options_of_details_need_their_head() -> None:
    for name, value in {"width": 8, "dilations": (1,), "levels": 3, "sharpness": 1, "edges": True}.items():
        with pytest.raises(ValidationError, match=f"detail_{name} needs the head of details: --head details"):
            ModelConfig(**{f"detail_{name}": value})


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_merged_convolutions_equal_the_layers_one_by_one(stem_stride: int) -> None:
    """Stem and reduction, enlargement and convolution, stem and attention are merged; here each map is built."""
    model = tiny(stem_stride=stem_stride).double().eval()
    a, b = (x.double() for x in pair(2, 1, 8, 16, 24))
    s_a, s_b = model.stem(a), model.stem(b)

    def encode(s: Tensor) -> Tensor:
        return model.encoder.stages(s if model.encoder.down is None else model.encoder.down(s)).permute(0, 2, 3, 4, 1)

    f = model.fusion(model.latent_a(encode(s_a)), model.latent_b(encode(s_b))).permute(0, 4, 1, 2, 3)
    for stage in model.decoder:
        if hasattr(stage, "conv"):
            f = stage.conv(torch.nn.functional.interpolate(f, scale_factor=2, mode="nearest"))
        else:
            f = stage(f)
    expected = torch.sigmoid(model.head(f + model.cmca(s_a, s_b) + model.cmca(s_b, s_a)))
    torch.testing.assert_close(model(a, b), expected)


def test_attention_of_the_whole_volume_is_the_same_slab_by_slab() -> None:
    model = tiny().double().eval()
    a, b = (x.double() for x in pair(1, 1, 16, 8, 8))
    with torch.no_grad():
        torch.testing.assert_close(model(a, b, model.attention_of(a, b)), model(a, b))
        other = model.attention_of(a + 1, b)
        assert (model(a, b, other) - model(a, b)).abs().max() > 1e-6
    assert tiny(cmca=False).attention_of(a, b) is None


def test_equal_modalities_are_exchangeable() -> None:
    model = tiny().eval()
    model.latent_b.load_state_dict(model.latent_a.state_dict())
    model.fusion.cross2.load_state_dict(model.fusion.cross1.state_dict())
    a, b = pair(1, 1, 8, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(a, b), model(b, a), rtol=0, atol=1e-5)
        assert (model(a, b) - model(a, a)).abs().max() > 1e-4


def test_group_norm_does_not_depend_on_the_batch() -> None:
    model = tiny(norm="group").train()
    a, b = pair(2, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(a, b)[:1], model(a[:1], b[:1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", ["sigmoid", "details"])
def test_bfloat16_autocast_stays_close_and_trains(head: str) -> None:
    model = tiny(norm="group", head=head)
    a, b = pair(2, 1, 8, 16, 8)
    exact = model(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(a, b)
        bands = model.bands_of(a, b)
    assert rounded.dtype == torch.float32
    assert all(torch.equal(given, exactly) for given, exactly in zip(bands, model.bands_of(a, b), strict=True))
    assert (rounded - exact).abs().mean() < 0.01
    rounded.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_what_cannot_be_is_refused() -> None:
    a, _ = pair(1, 1, 8, 8, 8)
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8, 8\) and \(1, 1, 8, 8, 7\)"):
        tiny()(a, a[..., :-1])
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        ModelConfig(channels=(8, 0, 32))
    with pytest.raises(ValidationError):
        ModelConfig(routes="cross")
    preset = config.preset("clinicalfmamba3d", "tiny")
    with pytest.raises(UserError, match="--norm group or --batch 2"):
        config.build(Config, preset, {"train": {"batch": 1}})
    config.build(Config, preset, {"train": {"batch": 1}, "model": {"norm": "group"}})


def whole(system: System, a: Tensor, b: Tensor, window: int) -> Tensor:
    """Through the system, with the window that a user sets."""
    changed = system.config.model_copy(
        update={"prediction": system.config.prediction.model_copy(update={"window": window})}
    )
    system.config = changed
    first, second = system.data.modalities
    box = tuple(slice(0, side) for side in a.shape[2:])
    with torch.no_grad():
        return system.forward({first: a, second: b, "meta": [{"box": box}]})


def system_with(head: str) -> System:
    """With a head of details that adds them, as a trained one does: at its start it adds next to nothing."""
    torch.manual_seed(0)
    system = System(config.build(Config, config.preset("clinicalfmamba3d", "tiny"), {"model": {"head": head}}))
    if head == "details":
        torch.nn.init.normal_(system.model.details.head.weight, std=0.02)
    system.model.eval()
    return system


@pytest.mark.parametrize("head", ["sigmoid", "details"])
def test_windows_give_what_the_whole_volume_gives_without_a_seam(head: str) -> None:
    """Smooth volumes: where windows meet, the result jumps no more than that of the whole does."""
    system = system_with(head)
    coarse = torch.rand(2, 1, 5, 6, 7, generator=torch.Generator().manual_seed(3))
    a, b = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="trilinear")[:, None]
    entire, parts = whole(system, a, b, 64), whole(system, a, b, 24)
    with torch.no_grad():
        assert torch.equal(entire, system.model(a, b, system.model.attention_of(a, b)))
    assert not torch.equal(entire, parts)
    assert (entire - parts).abs().mean() < 0.01
    for side in (2, 3, 4):
        jump, usual = (x.diff(dim=side).abs().mean(dim=[d for d in range(5) if d != side]) for x in (parts, entire))
        assert (jump - usual).abs().max() < 0.005, side


def test_details_of_a_window_are_those_of_the_whole_volume() -> None:
    """With weights that are the same everywhere the head is a filter, whose windows must give its result exactly."""
    system = system_with("details")
    torch.nn.init.zeros_(system.model.details.head.weight)
    torch.nn.init.normal_(system.model.details.head.bias)
    system.model.details.head.bias.data.view(9, 8)[:] = torch.randn(9, 1)
    a, b = pair(1, 1, 33, 30, 41)
    entire, parts = whole(system, a, b, 64), whole(system, a, b, 16)
    torch.testing.assert_close(parts, entire, rtol=0, atol=1e-5)
    one = (slice(None), slice(None), *(slice(8, 24),) * 3)
    with torch.no_grad():
        alone = system.model(a[one], b[one])
    assert (alone - entire[one]).abs().max() > 0.01


def test_details_where_both_sources_are_background_are_background() -> None:
    system = system_with("details")
    a, b = pair(1, 1, 16, 16, 16)
    a[..., :6], b[..., 3:9] = 0, 0
    first, second = system.data.modalities
    for training in (True, False):
        system.model.train(training)
        fused = system.forward({first: a, second: b, "meta": [{"box": (slice(0, 16),) * 3}]})
        assert not fused[..., 3:6].any()
        assert fused[..., :3].any() and fused[..., 6:].any()


def test_what_lies_outside_the_box_is_zero_and_inputs_cannot_be_left_out() -> None:
    system = System(config.build(Config, config.preset("clinicalfmamba3d", "tiny")))
    system.model.eval()
    a, b = pair(1, 1, 16, 16, 16)
    first, second = system.data.modalities
    batch = {first: a, second: b, "meta": [{"box": (slice(4, 12), slice(0, 16), slice(8, 16))}]}
    with torch.no_grad():
        fused = system.forward(batch)
        inside = fused[..., 4:12, :, 8:].clone()
        assert (inside > 0).all()
        fused[..., 4:12, :, 8:] = 0
    assert not fused.any()
    with pytest.raises(ValueError, match="not without flair"):
        system.forward(batch, frozenset({"flair"}))


def test_the_preset_detail_is_whole_and_each_of_its_parameters_has_a_gradient_of_its_loss() -> None:
    found = config.build(Config, config.preset("clinicalfmamba3d", "detail"))
    assert found.model.head == "details"
    torch.manual_seed(0)
    system = System(found)
    head = (27 * 48 + 1) * 24 + (8 * 8 + 1) * 24 + 4 * (55 * 24**2 + 3 * 24) + (27 * 24 + 1) * 72 + 1
    head += (27 * 6 + 1) * 32 + (16 + 1) * 9
    assert count(system.model.details) == head == 211_794
    assert count(system.model) == count(tiny(norm="group")) - (27 * 8 + 1) + head
    a, b = pair(2, 1, 24, 24, 24)
    first, second = system.data.modalities
    batch = {first: a, second: b, "meta": [{}, {}]}
    parts = system.task.loss(system.forward(batch), batch)
    assert {"edge_loss", "false_edges"} <= set(parts)
    parts["loss"].backward()
    without = [
        name for name, p in system.model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-12
    ]
    assert without == []


def test_the_published_presets_have_neither_the_head_nor_the_terms_that_are_ours() -> None:
    for name in ("tiny", "base"):
        found = config.build(Config, config.preset("clinicalfmamba3d", name))
        assert found.model.head == "sigmoid"
        assert (found.loss.information_weight, found.loss.edge_weight, found.loss.false_edge_weight) == (0, 0, 0)
