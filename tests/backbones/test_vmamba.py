"""VMamba as a network: published sizes, maps of any size, training options."""

import pytest
import torch
from torch import nn

from scanfuse.backbones.vmamba import PRESETS, PatchMerge, VMamba, VMambaConfig, preset_of

PUBLISHED_COUNTS = {
    "v0_t": 22_893_448,
    "v0_s": 44_417_416,
    "v0_b": 76_254_056,
    "t_s2l5": 30_705_832,
    "s_s2l15": 50_147_752,
    "b_s2l15": 88_557_800,
    "t_s1l8": 30_249_064,
    "s_s1l20": 49_012_840,
    "b_s1l20": 86_614_504,
}
SMALL = {
    "v0": VMambaConfig(family="v0", dim=16, depths=(1, 1, 2, 1), d_state=4, ratio=2.0, drop_path=0.0),
    "v2": VMambaConfig(dim=16, depths=(1, 1, 2, 1), ratio=1.0, drop_path=0.0),
}


def small(family: str, *, num_classes: int = 5, out_norms: tuple[int, ...] = (), **changes: object) -> VMamba:
    torch.manual_seed(0)
    config = SMALL[family].model_copy(update=changes)
    return VMamba(config, num_classes=num_classes, out_norms=out_norms)


@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_published_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        model = VMamba(PRESETS[name])
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED_COUNTS[name]
    assert preset_of(model.config) == name


def test_every_preset_has_a_published_count() -> None:
    assert set(PRESETS) == set(PUBLISHED_COUNTS)


@pytest.mark.parametrize("family", ["v0", "v2"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (61, 37), (7, 130), (4, 4)])
def test_maps_of_any_size(family: str, height: int, width: int) -> None:
    model = small(family).eval()
    with torch.no_grad():
        maps = model.features(torch.rand(2, 3, height, width))
    # v0's stem ignores the rest of a division by 4; its merging and all of v2 round up.
    sizes = [(height // 4, width // 4) if family == "v0" else (-(-height // 4), -(-width // 4))]
    for _ in range(3):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    assert [tuple(m.shape) for m in maps] == [(2, 16 * 2**i, *size) for i, size in enumerate(sizes)]
    assert all(bool(torch.isfinite(m).all()) for m in maps)


def test_odd_map_merges_as_if_it_had_a_zero_row_and_column() -> None:
    torch.manual_seed(0)
    merge = PatchMerge(4)
    x = torch.rand(1, 3, 5, 4)
    padded = torch.zeros(1, 4, 6, 4)
    padded[:, :3, :5] = x
    torch.testing.assert_close(merge(x), merge(padded), rtol=0, atol=0)


def test_neighbours_are_merged_column_by_column() -> None:
    """The order (0,0), (1,0), (0,1), (1,1) as (row, column): seen through a reduction that keeps the second."""
    merge = PatchMerge(1)
    merge.norm = nn.Identity()
    with torch.no_grad():
        merge.reduction.weight.zero_()[0, 1] = 1.0
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    assert merge(x).flatten().tolist() == [3.0, 0.0]


@pytest.mark.parametrize("family", ["v0", "v2"])
def test_recomputing_gives_the_same_gradients(family: str) -> None:
    x = torch.rand(2, 3, 33, 40)
    gradients = []
    for recompute in (False, True):
        model = small(family, recompute=recompute)
        model(x).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-7)


def test_drop_path_grows_with_depth_and_acts_in_training_only() -> None:
    model = small("v2", drop_path=0.4)
    assert [block.drop_path.rate for layer in model.layers for block in layer.blocks] == pytest.approx(
        [0.0, 0.1, 0.2, 0.3, 0.4]
    )
    x = torch.rand(2, 3, 32, 32)
    torch.manual_seed(1)
    first, second = model.train()(x), model(x)
    assert not torch.equal(first, second)
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize("family", ["v0", "v2"])
def test_every_parameter_gets_a_gradient(family: str) -> None:
    classifier = small(family)
    encoder = small(family, num_classes=0, out_norms=(0, 1, 2, 3))
    x = torch.rand(2, 3, 40, 56)
    (classifier(x) * torch.randn(2, 5)).sum().backward()
    sum((f * torch.randn_like(f)).sum() for f in encoder.features(x)).backward()
    for model in (classifier, encoder):
        assert [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9] == []


@pytest.mark.parametrize("family", ["v0", "v2"])
def test_batch_norms_keep_what_layer_norms_remove(family: str) -> None:
    """A map whose channels grow together is nothing but brightness: a layer norm removes it, a batch norm not."""
    brightness = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1).expand(3, 3, 8, 8)
    spreads = {}
    for conv_norm in ("layer", "batch"):
        stem = small(family, conv_norm=conv_norm).patch_embed[0]
        with torch.no_grad():
            stem.conv.bias.zero_()
            out = stem(brightness.permute(0, 2, 3, 1))[:, 1:, 1:]
        spreads[conv_norm] = out.std(dim=0).mean().item()
    assert spreads["layer"] < 1e-3 and spreads["batch"] > 0.3
    counts = [sum(p.numel() for p in small(family, conv_norm=norm).parameters()) for norm in ("layer", "batch")]
    assert counts[0] == counts[1]


def test_fan_in_keeps_the_variance_that_0_02_loses_in_a_narrow_network() -> None:
    """A linear map of unit-variance input gives unit variance if its weights have variance 1 / fan-in."""
    torch.manual_seed(0)
    sizes = VMambaConfig(dim=24, depths=(1, 1, 1, 1), drop_path=0.0)
    gains: dict[str, list[float]] = {}
    for init in ("published", "fan_in"):
        network = VMamba(sizes.model_copy(update={"init": init}), num_classes=3)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                x = torch.randn(4096, module.in_features)
                gains.setdefault(init, []).append(float((x @ module.weight.detach().T).var()))
            elif isinstance(module, nn.Conv2d) and init == "fan_in":
                fan_in = module.weight[0].numel()
                assert float(module.weight.detach().var()) == pytest.approx(2 / fan_in, rel=0.5)
    assert all(value == pytest.approx(1, rel=0.35) for value in gains["fan_in"])
    assert max(gains["published"]) < 0.5


def test_initial_values_survive_the_reset_of_linear_layers() -> None:
    model = small("v2")
    assert 0.015 < model.head.weight.std() < 0.025
    op = model.layers[3].blocks[0].op
    assert 0.015 < op.in_proj.weight.std() < 0.025
    # Uniform in +-1/sqrt(R): the standard deviation is 1/sqrt(3 R), far from 0.02.
    rank = op.dt_projs_weight.shape[2]
    assert op.dt_projs_weight.std().item() == pytest.approx((3 * rank) ** -0.5, rel=0.1)
    steps = torch.nn.functional.softplus(op.dt_projs_bias)
    assert steps.min() >= 0.99e-3 and steps.max() <= 0.101


def test_an_encoder_has_no_logits() -> None:
    model = small("v2", num_classes=0)
    assert not any(name.startswith(("head", "norm")) for name, _ in model.named_parameters())
    with pytest.raises(ValueError, match="no classifier"):
        model(torch.rand(1, 3, 32, 32))
