"""Grad-CAM: where in a feature map, of a picture or a volume, the evidence for an output lies."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Method", "Target", "grad_cam", "maps_of", "output", "scaled_together", "tapped"]

Method = Literal["gradcam", "hirescam"]
Target = Callable[[Any], Tensor]
"""Outputs (b, n) -> the number (b,) that is to be explained."""


def output(column: int, *, against: bool = False) -> Target:
    """One logit as the target; with `against`, what speaks for the negative outcome of a sigmoid."""

    def target(logits: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
        return -logits[:, column] if against else logits[:, column]

    return target


def grad_cam(
    model: nn.Module,
    taps: Sequence[str],
    forward: Callable[[], Any],
    target: Target,
    *,
    method: Method = "gradcam",
) -> dict[str, Float[Tensor, "b ..."]]:
    """The maps of several modules for one target, from one pass through the model.

    Put the model into evaluation mode first. It does not matter whether its parameters ask for gradients, nor whether
    gradients are switched off around the call (but not `torch.inference_mode`).

    Args:
        model: holds the tapped modules; none of its parameters gets a gradient.
        taps: names of submodules that put out (b, c, h, w) or (b, c, d, h, w) and are called once in `forward`.
        forward: computes the outputs.
        target: picks what is explained; the samples of a batch must not depend on each other.
        method: see `maps_of`.

    Returns:
        Per tap (b, h, w) or (b, d, h, w), 0 and up, not scaled; zero where nothing speaks for the target.

    Raises:
        ValueError: a module is not called, called twice, or puts out no such map.
        AttributeError: the model has no module of that name.
    """
    with torch.enable_grad(), tapped(model, taps) as activations:
        score = target(forward())
        missing = [name for name in taps if name not in activations]
        if missing:
            raise ValueError(f"the module {missing[0]!r} was not called")
        return maps_of(score, activations, method=method)


@contextlib.contextmanager
def tapped(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Float[Tensor, "b c *places"]]]:
    """Collects the outputs of submodules by name while the block runs; they can be differentiated by."""
    activations: dict[str, Tensor] = {}

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> Tensor:
            if not isinstance(result, Tensor) or result.ndim not in (4, 5):
                raise ValueError(f"the module {name!r} does not put out one map (b, c, h, w) or (b, c, d, h, w)")
            if name in activations:
                raise ValueError(f"the module {name!r} is called twice; tap a module that each view passes alone")
            activations[name] = result if result.requires_grad else result.detach().requires_grad_()
            return activations[name]

        return hook

    handles = [model.get_submodule(name).register_forward_hook(listen(name)) for name in names]
    try:
        yield activations
    finally:
        for handle in handles:
            handle.remove()


def maps_of(
    score: Float[Tensor, " b"], activations: Mapping[str, Float[Tensor, "b c *places"]], *, method: Method = "gradcam"
) -> dict[str, Float[Tensor, "b ..."]]:
    """The maps from a score and the activations it was computed from.

        gradcam    relu( sum_c  mean(dS/dA_c) A_c ), the mean over places
        hirescam   relu( sum_c  dS/dA_c A_c )

    Grad-CAM asks how much a channel matters as a whole and shows where that channel is active, also at places that
    the score does not use. HiResCAM asks at each place. Where a linear layer on the mean follows the map, HiResCAM is
    Grad-CAM.

    Args:
        score: (b,), with a graph that leads to the activations.
        activations: name -> (b, c, *places); a map that the score does not depend on gives zeros.
        method: gradcam or hirescam.

    Source: Selvaraju et al. 2017 (Grad-CAM); Draelos, Carin 2020 (HiResCAM).
    """
    tensors = list(activations.values())
    gradients = torch.autograd.grad(score.sum(), tensors, allow_unused=True)
    found = {}
    for (name, activation), gradient in zip(activations.items(), gradients, strict=True):
        slope = torch.zeros_like(activation) if gradient is None else gradient
        weight = slope.mean(dim=tuple(range(2, slope.ndim)), keepdim=True) if method == "gradcam" else slope
        found[name] = (weight * activation).sum(dim=1).relu().detach()
    return found


def scaled_together(maps: Mapping[str, Float[Tensor, "h w"]]) -> dict[str, Float[Tensor, "h w"]]:
    """Maps of the views of one sample in [0, 1] of their common largest value, so that views can be compared.

    A view scaled by its own maximum would glow even where it contributes nothing. All zero stays zero.
    """
    largest = max((float(value.max()) for value in maps.values()), default=0.0)
    return {name: value / largest if largest > 0 else torch.zeros_like(value) for name, value in maps.items()}
