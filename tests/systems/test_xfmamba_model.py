"""The XFMamba network: size, use of every part and both views, missing views, encoders, baselines."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scanfuse.backbones.vmamba import VMamba, VMambaConfig
from scanfuse.errors import UserError
from scanfuse.systems.xfmamba import PRESETS, Model, ModelConfig

TINY = PRESETS["tiny"]
# The published totals less the weights that the published code never uses: the projection in the deep block and the
# output norms of stages 1 to 3.
COUNTS = {
    "t": 38_831_810 - 2_359_296 - 1_344,
    "s": 58_730_498 - 2_359_296 - 1_344,
    "b": 103_933_954 - 4_194_304 - 1_792,
    "tiny": 1_281_986,
}
VARIANTS: list[dict[str, object]] = [
    {},
    {"swap": "token"},
    {"merge": "deinterleave"},
    {"norm": "bn"},
    {"gate": "channel"},
    {"share_encoder": False},
    {"fusion": "late"},
    {"fusion": "late", "share_encoder": False},
    {"fusion": "early"},
    {"fusion": "single"},
    {"encoder": "timm", "timm_model": "convnext_atto"},
    {"vmamba": VMambaConfig(dim=16, depths=(1, 1, 1, 1), drop_path=0.0)},
    {"vmamba": VMambaConfig(family="v0", dim=16, depths=(1, 1, 1, 1), d_state=4, ratio=2.0, drop_path=0.0)},
]


def tiny(**changes: object) -> Model:
    torch.manual_seed(0)
    return Model(ModelConfig(**{**TINY.model_dump(), **changes}))


def views(batch: int = 2, channels: int = 1, height: int = 64, width: int = 96) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, batch, channels, height, width, generator=torch.Generator().manual_seed(1))
    return a, b


def flags(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_presets_have_the_published_parameters_less_the_unused_ones(name: str) -> None:
    with torch.device("meta"):
        assert count(Model(PRESETS[name])) == COUNTS[name]


def test_parts_have_the_published_parameters() -> None:
    with torch.device("meta"):
        model = Model(PRESETS["t"])
    parts = {name: count(part) for name, part in model.named_children()}
    assert parts == {
        "encoder": 29_481_408 - 1_344,
        "view_a": 0,
        "view_b": 0,
        "fused": 590_592,
        "shallow": 3_122_688,
        "deep": 5_635_584 - 2_359_296,
        "head": 1_538,
    }


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_parameter_and_both_views_get_a_gradient(changes: dict[str, object]) -> None:
    model = tiny(**changes)
    a, b = (view.requires_grad_() for view in views(height=64, width=64))
    logits = model(a, b)
    assert logits.shape == (2, 2)
    (logits * torch.tensor([[1.0, -0.5], [0.3, 2.0]])).sum().backward()
    named = [*model.named_parameters(), ("a", a), ("b", b)]
    dead = [name for name, p in named if p.grad is None or p.grad.abs().max() < 1e-10]
    assert dead == (["b"] if changes.get("fusion") == "single" else [])


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_content_of_a_missing_view_does_not_matter(changes: dict[str, object]) -> None:
    model = tiny(**changes).eval()
    a, b = views(3)
    present_a, present_b = flags(1, 0, 1), flags(1, 1, 0)
    with torch.no_grad():
        both = model(a, b)
        logits = model(a, b, present_a, present_b)
        a[1], b[2] = torch.nan, torch.nan
        assert torch.equal(model(a, b, present_a, present_b), logits)
    assert torch.equal(logits[0], both[0])
    changed = [not torch.equal(logits[i], both[i]) for i in (1, 2)]
    assert changed == ([True, False] if changes.get("fusion") == "single" else [True, True])


def test_a_missing_view_trains_and_gets_no_gradient() -> None:
    model = tiny()
    a, b = (view.requires_grad_() for view in views(2))
    model(a, b, flags(1, 1), flags(1, 0)).square().sum().backward()
    assert b.grad[1].abs().max() == 0 and b.grad[0].abs().max() > 0 and a.grad[1].abs().max() > 0
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_single_takes_the_view_that_exists() -> None:
    model = tiny(fusion="single").eval()
    a, b = views(1)
    with torch.no_grad():
        assert torch.equal(model(a, b, flags(0), flags(1)), model(b, b))


def test_identical_views_have_identical_maps_only_with_tied_streams() -> None:
    model = tiny().eval()
    a, _ = views(1)

    def maps() -> tuple[Tensor, Tensor]:
        outputs, _ = tapped(model, a, a)
        return outputs["view_a"], outputs["view_b"]

    first, second = maps()
    assert (first - second).abs().max() > 1e-4
    with torch.no_grad():
        for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"):
            parameter = getattr(model.shallow, name)
            parameter[len(parameter) // 2 :] = parameter[: len(parameter) // 2]
    torch.testing.assert_close(*maps())


def test_exchanging_the_views_and_the_streams_changes_nothing() -> None:
    model = tiny().eval()
    a, b = views(2)
    with torch.no_grad():
        model.shallow.out_proj.weight.mul_(30)  # at its initial scale the residual hides the exchange
        model.shallow.excite.weight.mul_(30)
        logits = model(a, b)
        assert (model(b, a) - logits).abs().max() > 1e-3
        for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"):
            parameter = getattr(model.shallow, name)
            parameter.copy_(torch.cat(parameter.chunk(2)[::-1]))
        torch.testing.assert_close(model(b, a), logits, rtol=1e-4, atol=1e-5)


def tapped(model: Model, a: Tensor, b: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What the modules named in `taps` give, as Grad-CAM collects it, and the logits."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in model.taps]
    logits = model(a, b)
    for handle in handles:
        handle.remove()
    return outputs, logits


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_taps_are_maps_that_the_logits_depend_on(changes: dict[str, object]) -> None:
    model = tiny(**changes).eval()
    a, b = views(2)
    outputs, logits = tapped(model, a, b)
    assert tuple(outputs) == model.taps
    for output in outputs.values():
        assert output.dim() == 4 and tuple(output.shape[2:]) == (2, 3)
    gradients = torch.autograd.grad(logits[:, 1].sum(), list(outputs.values()))
    assert all(g.abs().max() > 0 for g in gradients)


def test_same_seed_same_weights_and_saved_weights_give_the_same_bits(tmp_path: Path) -> None:
    first, second = tiny(), tiny()
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))
    save_file(first.state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(5)
    other = Model(TINY)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    a, b = views()
    with torch.no_grad():
        assert torch.equal(first.eval()(a, b), other.eval()(a, b))


def test_grey_and_repeated_grey_are_the_same_and_samples_do_not_mix() -> None:
    model = tiny().eval()
    a, b = views(3, height=70, width=51)
    with torch.no_grad():
        logits = model(a, b)
        torch.testing.assert_close(model(a.repeat(1, 3, 1, 1), b.repeat(1, 3, 1, 1)), logits)
        torch.testing.assert_close(model(a[1:2], b[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)


def test_logits_are_float32_under_autocast() -> None:
    model = tiny().eval()
    a, b = views()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(a, b)
    assert logits.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(logits, model(a, b), rtol=0.1, atol=0.05)


def test_encoder_weights_reach_every_encoder(tmp_path: Path) -> None:
    torch.manual_seed(7)
    sizes = TINY.vmamba.model_copy(update={"conv_norm": "layer"})
    published = VMamba(sizes, num_classes=5)
    torch.save({"model": published.state_dict()}, tmp_path / "encoder.pth")
    for changes in ({}, {"share_encoder": False}, {"fusion": "early"}):
        model = tiny(vmamba=sizes, **changes)
        text = model.load_encoder(tmp_path / "encoder.pth")
        encoders = [model.encoder] if "share_encoder" not in changes else [model.encoder, model.encoder_b]
        assert text.count("matched:") == len(encoders) and "skipped: classifier" in text
        x = torch.rand(1, 3, 64, 64)
        for encoder in encoders:
            with torch.no_grad():
                expected = published.norm(published.features(x)[3].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
                torch.testing.assert_close(encoder.features(x)[3], expected)
    with pytest.raises(UserError, match="needs a checkpoint file"):
        tiny().load_encoder()
    with pytest.raises(UserError, match="batch norms: choose the file"):
        tiny().load_encoder(tmp_path / "encoder.pth")
    with pytest.raises(UserError, match="the encoder is VMamba v2: dim 32"):
        tiny(vmamba=sizes.model_copy(update={"dim": 32})).load_encoder(tmp_path / "encoder.pth")


def test_tiny_learns_what_only_both_views_tell() -> None:
    """Four samples of class 1 only where both views are bright: a view alone leaves two of them undecided."""
    torch.manual_seed(0)
    model = Model(TINY)
    dark, bright = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    bright[..., 8:20, 8:20] = 2.0
    a = torch.cat([dark, dark, bright, bright])
    b = torch.cat([dark, bright, dark, bright])
    target = torch.tensor([0, 0, 0, 1])
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(a, b), target)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    assert loss.item() < 0.1


def test_inputs_that_do_not_fit_are_refused() -> None:
    model = tiny()
    a, b = views()
    with pytest.raises(ValueError, match="of one shape"):
        model(a, b[..., :-1])
    with pytest.raises(ValueError, match="1 or 3"):
        model(a.repeat(1, 2, 1, 1), b.repeat(1, 2, 1, 1))
    with pytest.raises(ValueError, match="neither view"):
        model(a, b, flags(1, 0), flags(1, 0))
    with pytest.raises(ValidationError, match="separate encoders need two maps"):
        ModelConfig(fusion="single", share_encoder=False)
