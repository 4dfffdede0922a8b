"""How weights are moved: the optimisers, the nominal batch, and the rates of a warm-up, by hand."""

import pytest
import torch
from torch import nn

from scanfuse.config import TrainConfig
from scanfuse.verbs.optimisation import learning_rate, make_optimizer, parameter_groups, steps_per_update


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1, bias=False))


@pytest.mark.parametrize(
    ("nominal", "batch", "accumulate", "steps"),
    [(0, 4, 1, 1), (0, 4, 3, 3), (64, 4, 1, 16), (16, 5, 1, 3), (16, 32, 7, 1), (16, 16, 1, 1)],
)
def test_steps_of_a_nominal_batch(nominal: int, batch: int, accumulate: int, steps: int) -> None:
    """It wins over --accumulate; 16 / 5 = 3.2 is three steps; a larger batch is one."""
    assert steps_per_update(TrainConfig(nominal_batch=nominal, batch=batch, accumulate=accumulate)) == steps


def test_the_rates_of_a_warm_up() -> None:
    """Ten updates an epoch, 0.4 epochs of warm-up: 4 updates to 0.01 and, for biases, from 0.1 to 0.01."""
    settings = TrainConfig(lr=0.01, min_lr=0.0, warmup_epochs=0.4, epochs=2, schedule="cosine")
    rates = [learning_rate(settings, update, 10) for update in range(5)]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    biases = [learning_rate(settings, update, 10, start=0.1) for update in range(5)]
    assert biases == pytest.approx([0.1, 0.0775, 0.055, 0.0325, 0.01])
    # Half way through the 16 updates of the cosine half the rate is left, for all parameters.
    assert [learning_rate(settings, 12, 10, start=start) for start in (0.0, 0.1)] == pytest.approx([0.005, 0.005])
    assert learning_rate(settings, 20, 10) == pytest.approx(0.0)


def test_groups_hold_every_parameter_once() -> None:
    model = network()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    two = parameter_groups(model, 0.1)
    assert [[names[id(p)] for p in group["params"]] for group in two] == [
        ["0.weight", "2.weight"], ["0.bias", "1.weight", "1.bias"],
    ]  # fmt: skip
    assert [group["weight_decay"] for group in two] == [0.1, 0.0] and not any("is_bias" in group for group in two)
    three = parameter_groups(model, 0.1, biases_apart=True)
    assert [[names[id(p)] for p in group["params"]] for group in three] == [
        ["0.weight", "2.weight"], ["1.weight"], ["0.bias", "1.bias"],
    ]  # fmt: skip
    assert [group.get("is_bias", False) for group in three] == [False, False, True]


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    inputs = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    model(inputs).square().mean().backward()
    optimizer.step()


def test_adamw_is_torchs_with_two_groups() -> None:
    """Bit for bit: the options of detectors change nothing for who does not ask for them."""
    ours, theirs = network(), network()
    settings = TrainConfig(lr=1e-2, weight_decay=0.1)
    first = make_optimizer(ours, settings)
    decay = [theirs[0].weight, theirs[2].weight]
    rest = [theirs[0].bias, theirs[1].weight, theirs[1].bias]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    second = torch.optim.AdamW(groups, lr=1e-2)
    for _ in range(3):
        step(ours, first)
        step(theirs, second)
    assert type(first) is torch.optim.AdamW
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_sgd_by_hand() -> None:
    """Nesterov, decay in the gradient: v = m v + (g + d w), w -= lr (g + d w + m v)."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0]]))
    settings = TrainConfig(optimizer="sgd", momentum=0.9, lr=0.1, weight_decay=0.5)
    optimizer = make_optimizer(model, settings)
    weight, speed = torch.tensor([[1.0, -2.0]]), torch.zeros(1, 2)
    gradient = torch.tensor([[0.3, 0.7]])
    for _ in range(3):
        model.weight.grad = gradient.clone()
        optimizer.step()
        whole = gradient + 0.5 * weight
        speed = 0.9 * speed + whole
        weight = weight - 0.1 * (whole + 0.9 * speed)
        torch.testing.assert_close(model.weight.detach(), weight)
    plain = make_optimizer(nn.Linear(2, 1), TrainConfig(optimizer="sgd", momentum=0.0))
    assert not plain.defaults["nesterov"]


def test_a_bias_rate_needs_its_group() -> None:
    settings = TrainConfig(optimizer="sgd", warmup_bias_lr=0.1)
    assert [group.get("is_bias", False) for group in make_optimizer(network(), settings).param_groups] == [
        False, False, True,
    ]  # fmt: skip
    assert len(make_optimizer(network(), TrainConfig()).param_groups) == 2
