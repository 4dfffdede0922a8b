"""The ClinicalFMamba network: size, use of every part, behaviour on images of any size."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from scanfuse import config
from scanfuse.systems.clinicalfmamba import Config, Model, ModelConfig

TINY, BASE = (config.build(Config, config.preset("clinicalfmamba", name)).model for name in ("tiny", "base"))
ABLATIONS = [
    {},
    {"fusion": "concat"},
    {"fusion": "mean"},
    {"cmca": False},
    {"routes": "raster"},
    {"norm": "group"},
    {"stem_stride": 1},
    {"stem_stride": 2},
    {"decoder_blocks": 0},
    {"head": "details"},
    {"head": "details", "cmca": False, "detail_levels": 1, "detail_dilations": (2,)},
]


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def tiny(**changes: object) -> Model:
    torch.manual_seed(0)
    return Model(ModelConfig(**{**TINY.model_dump(), **changes}))


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, *shape, generator=generator)
    return a, b


def dead_parts(model: Model, a: Tensor, b: Tensor) -> list[str]:
    """Names of parameters and inputs without a gradient of the output."""
    a.requires_grad_()
    b.requires_grad_()
    fused = model(a, b)
    (fused * torch.randn(fused.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    named = [*model.named_parameters(), ("a", a), ("b", b)]
    # Relative to the largest gradient: a parameter that cancels leaves rounding errors, not zeros.
    largest = max(p.grad.abs().max().item() for _, p in named if p.grad is not None)
    return [name for name, p in named if p.grad is None or p.grad.abs().max().item() < 1e-7 * largest]


def test_base_has_the_parameters_of_the_publication_and_uses_them_all() -> None:
    torch.manual_seed(0)
    model = Model(BASE)
    assert count(model) == 3_168_961
    assert dead_parts(model, *pair(1, 1, 64, 64)) == []


def test_variant_for_small_images_has_the_live_parameters_of_the_published_code() -> None:
    with torch.device("meta"):
        assert count(Model(ModelConfig(stem_stride=1))) == 3_155_521


def test_tiny_is_tiny() -> None:
    assert count(tiny()) == 145_337


@pytest.mark.parametrize("changes", ABLATIONS, ids=str)
def test_every_option_leaves_nothing_unused(changes: dict) -> None:
    assert dead_parts(tiny(**changes), *pair(2, 1, 32, 40)) == []


def test_what_is_switched_off_does_not_exist() -> None:
    names = {name for name, _ in tiny(cmca=False, fusion="mean").named_parameters()}
    assert not any(name.startswith("cmca") or "cross" in name for name in names)
    with torch.device("meta"):
        base = count(Model(ModelConfig()))
        assert count(Model(ModelConfig(cmca=False))) == base - 2 * 32**2
        assert count(Model(ModelConfig(fusion="mean"))) == base - 2 * 180_224
        # ten latent and two cross blocks lose three of four routes of 12,032 parameters
        assert count(Model(ModelConfig(routes="raster"))) == base - 12 * 3 * 12_032


@pytest.mark.parametrize("size", [(37, 51), (32, 32), (33, 32), (32, 33), (8, 8), (1, 1)], ids=str)
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_any_size(size: tuple[int, int], stem_stride: int) -> None:
    model = tiny(stem_stride=stem_stride).eval()
    a, b = pair(1, 1, *size)
    with torch.no_grad():
        fused = model(a, b)
    assert fused.shape == a.shape
    assert fused.min() > 0 and fused.max() < 1


@pytest.mark.parametrize("size", [(37, 51), (33, 32), (1, 1)], ids=str)
def test_details_of_any_size(size: tuple[int, int]) -> None:
    model = tiny(head="details").eval()
    a, b = pair(1, 1, *size)
    with torch.no_grad():
        fused = model(a, b)
    assert fused.shape == a.shape
    assert fused.min() >= 0 and fused.max() <= 1


def test_details_start_near_the_brighter_source() -> None:
    model = tiny(head="details").eval()
    a, b = pair(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(a, b), torch.maximum(a, b), rtol=0, atol=0.3)
        assert (model(a, b) - torch.maximum(a, b)).abs().mean() < 0.05


def test_options_of_details_need_their_head() -> None:
    with pytest.raises(ValidationError, match="detail_levels needs the head of details: --head details"):
        ModelConfig(detail_levels=3)


def test_padding_is_replication() -> None:
    model = tiny().eval()
    stride = TINY.stride
    a, b = pair(1, 1, 2 * stride, 2 * stride)
    a[..., -1] = a[..., -2]
    b[..., -1] = b[..., -2]
    with torch.no_grad():
        torch.testing.assert_close(model(a[..., :-1], b[..., :-1]), model(a, b)[..., :-1])


def test_a_sample_does_not_depend_on_its_batch_in_evaluation() -> None:
    model = tiny().eval()
    a, b = pair(3, 1, 24, 32)
    with torch.no_grad():
        together = model(a, b)
        alone = torch.cat([model(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_group_norm_does_not_depend_on_the_batch_in_training_either() -> None:
    model = tiny(norm="group").train()
    a, b = pair(2, 1, 24, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(a, b)[:1], model(a[:1], b[:1]), rtol=0, atol=1e-5)


def test_same_seed_same_weights_and_other_seed_other_weights() -> None:
    first, second = tiny().state_dict(), tiny().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(1)
    assert not torch.equal(Model(TINY).state_dict()["stem.weight"], first["stem.weight"])


def test_equal_modalities_are_exchangeable() -> None:
    """With equal weights on both sides the two inputs play the same role."""
    model = tiny().eval()
    model.latent_b.load_state_dict(model.latent_a.state_dict())
    model.mix.norm_b.load_state_dict(model.mix.norm_a.state_dict())
    model.mix.mamba_b.load_state_dict(model.mix.mamba_a.state_dict())
    model.fusion.cross2.load_state_dict(model.fusion.cross1.state_dict())
    a, b = pair(1, 1, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(model(a, b), model(b, a), rtol=0, atol=1e-5)
        assert (model(a, b) - model(a, a)).abs().max() > 1e-4


def test_bfloat16_autocast_stays_close_and_trains() -> None:
    model = tiny(norm="group")
    a, b = pair(2, 1, 32, 32)
    exact = model(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(a, b)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().mean() < 0.01
    rounded.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_learns_to_copy_the_brighter_pixel() -> None:
    """Overfits four pairs: a loss of a few thousandths, where the mean of the two images is off by 0.17."""
    torch.manual_seed(0)
    model = tiny()
    a, b = (enlarged(x) for x in pair(4, 1, 4, 4))
    target = torch.maximum(a, b)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    first = None
    for _ in range(60):
        optimiser.zero_grad()
        loss = (model(a, b) - target).abs().mean()
        loss.backward()
        optimiser.step()
        first = loss.item() if first is None else first
    assert loss.item() < 0.2 * first
    assert loss.item() < 0.06 < ((a + b) / 2 - target).abs().mean().item()


def enlarged(x: Tensor) -> Tensor:
    """Smooth images of 32 x 32 from 4 x 4 numbers."""
    return torch.nn.functional.interpolate(x, scale_factor=8, mode="bilinear")


def test_images_of_different_shape_are_refused_by_their_shapes() -> None:
    a, _ = pair(1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"\(1, 1, 16, 16\) and \(1, 1, 16, 15\)"):
        tiny()(a, a[..., :-1])


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValidationError):
        ModelConfig(chanels=(8, 16, 32))
    with pytest.raises(ValidationError):
        ModelConfig(fusion="sum")


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_merged_convolutions_equal_the_layers_one_by_one(stem_stride: int) -> None:
    """The stem is merged with what follows it; here every map is built, as in the diagram of the module."""
    model = tiny(stem_stride=stem_stride).double().eval()
    a, b = (x.double() for x in pair(2, 1, 24, 32))
    s_a, s_b = model.stem(a), model.stem(b)

    def encode(s: Tensor) -> Tensor:
        return model.encoder.stages(s if model.encoder.down is None else model.encoder.down(s)).permute(0, 2, 3, 1)

    e_a, e_b = encode(s_a), encode(s_b)
    f = model.decoder(model.fusion(*model.mix(model.latent_a(e_a), model.latent_b(e_b), e_a, e_b)))
    expected = torch.sigmoid(model.head(f + model.cmca(s_a, s_b) + model.cmca(s_b, s_a)))
    torch.testing.assert_close(model(a, b), expected)
