"""What each view contributes: the change of a prediction when the view is taken away."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["ViewAblation", "view_ablation"]


@dataclass(frozen=True)
class ViewAblation:
    """Probabilities with all views and without each.

    Attributes:
        probability: (b, c) with all views.
        without: view -> (b, c) without that view.
    """

    probability: Float[Tensor, "b c"]
    without: dict[str, Float[Tensor, "b c"]]

    @property
    def drop(self) -> dict[str, Float[Tensor, "b c"]]:
        """View -> probability with all views minus that without it: above 0, the view speaks for the outcome.

        The drops of the views do not add up to anything: two views that show the same finding both drop by little.
        """
        return {view: self.probability - value for view, value in self.without.items()}


@torch.no_grad()
def view_ablation(
    probability: Callable[[frozenset[str]], Float[Tensor, "b c"]], views: Sequence[str]
) -> ViewAblation:
    """Runs the model once with all views and once without each.

    Args:
        probability: the views that are there -> probabilities; the model must know missing views, else a change only
            shows that it has never seen one.
        views: at least two names, all of them present in the sample.

    Raises:
        ValueError: fewer than two views: nothing would be left.
    """
    if len(set(views)) < 2:
        raise ValueError(f"an ablation needs two views; given: {', '.join(views) or 'none'}")
    everything = frozenset(views)
    return ViewAblation(
        probability(everything).detach(), {view: probability(everything - {view}).detach() for view in views}
    )
