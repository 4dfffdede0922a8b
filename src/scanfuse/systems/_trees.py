"""Gradient-boosted trees beside a network: on the table alone, or stacked with a network that is trained already.

Neither is trained in steps: `fit` fills trees from the training rows and chooses on the validation rows. Any system
whose samples hold a table can have both; see `scanfuse.systems.mambaderm`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from scanfuse.backbones.boosted_trees import BoostedTrees, TreeSettings, fit_trees
from scanfuse.config import Section
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs import Fitted, Samples
from scanfuse.errors import UserError
from scanfuse.run import CROSS_VALIDATION, Run, open_run
from scanfuse.tasks.classify import Classification
from scanfuse.tasks.classify.classes import parse_targets
from scanfuse.tasks.classify.stacking import fit_stack

__all__ = ["Stacked", "TreeConfig", "TreesAlone", "fit", "network_of", "require_network"]


class TreeConfig(Section):
    """Trees in place of the network, or beside it."""

    use: Literal["none", "alone", "stacked"] = Field(
        "none",
        description="alone: on the table, no network; stacked: with the network of --network",
        json_schema_extra={"flag": "trees"},
    )
    network: str = Field("", description="run (or cross-validation) whose network is stacked with trees")
    settings: TreeSettings = TreeSettings()

    @model_validator(mode="after")
    def _a_stack_has_a_network(self) -> "TreeConfig":
        if (self.use == "stacked") != bool(self.network):
            raise ValueError("trees: stacked and network: RUN belong together; a stack takes a trained network")
        return self


class TabledSamples(Samples, Protocol):
    """A data set whose samples have a table."""

    @property
    def tables(self) -> Float[np.ndarray, "n f 2"]:
        """Values and flags of all samples, as the network gets them; UserError for a cell that cannot be read."""


class TreesAlone(nn.Module):
    """image, table, present -> logits of the trees; the picture is not looked at."""

    taps: tuple[str, ...] = ()

    def __init__(self, categories: tuple[int, ...], outputs: int, settings: TreeSettings) -> None:
        super().__init__()
        self.trees = BoostedTrees(categories, outputs, settings)

    def forward(self, image: Tensor, table: Tensor, present: Tensor | None = None) -> Tensor:
        return self.trees(table)


class Stacked(nn.Module):
    """image, table, present -> w_1 network(image, table) + w_2 trees(table) + b.

    The weights are one for each output; see `scanfuse.tasks.classify.stacking`.
    """

    weights: Tensor
    bias: Tensor

    def __init__(self, network: nn.Module, categories: tuple[int, ...], outputs: int, settings: TreeSettings) -> None:
        super().__init__()
        self.network = network
        self.trees = BoostedTrees(categories, outputs, settings)
        self.register_buffer("weights", torch.full((2, outputs), 0.5))
        self.register_buffer("bias", torch.zeros(outputs))

    @property
    def taps(self) -> tuple[str, ...]:
        found: tuple[str, ...] = self.network.taps  # type: ignore[assignment]
        return found

    def forward(self, image: Tensor, table: Tensor, present: Tensor | None = None) -> Tensor:
        return self.weights[0] * self.network(image, table, present) + self.weights[1] * self.trees(table) + self.bias


def network_of(config: TreeConfig, folds: FoldConfig) -> Run:
    """The finished run whose network is to be stacked: that of the same fold, where it is a cross-validation.

    Raises:
        UserError: no such run, or one that is not finished.
    """
    path = Path(config.network)
    if (path / CROSS_VALIDATION).is_file():
        if not folds.folds:
            raise UserError(f"{path} is a cross-validation: give --folds as it has, or one of its runs as --network.")
        path = path / f"fold-{folds.fold}"
    run = open_run(path)
    if not run.is_finished:
        raise UserError(f"The training of {path} is not finished: continue it with scanfuse train --resume {path}")
    return run


def require_network(run: Run, fitted: Fitted, training: Samples, validation: Samples) -> None:
    """Refuses a network that was trained on other samples than the stack has, or with another table.

    Raises:
        UserError: it was.
    """
    table = run.split()
    for name, samples in (("train", training), ("val", validation)):
        theirs = set(table.loc[table["split"] == name, "id"])
        if theirs != {samples.row(place).id for place in range(len(samples))}:
            raise UserError(
                f"{run.path} was trained on another split ({name}) than this one: give the same data and folds, else "
                "the stack would be fitted on what its network has learned by heart."
            )
    kept = run.load_fitted()
    same = kept.values == fitted.values and kept.tensors.keys() == fitted.tensors.keys()
    if not same or not all(torch.equal(kept.tensors[name], fitted.tensors[name]) for name in kept.tensors):
        raise UserError(f"{run.path} has another table than the one that these data give: use the same files.")


def fit(
    model: TreesAlone | Stacked,
    task: Classification,
    training: TabledSamples,
    validation: TabledSamples,
    *,
    forward: Callable[[nn.Module, dict[str, Any]], Tensor],
    collate: Callable[[Any], dict[str, Any]],
    settings: TreeSettings,
    batch: int,
    seed: int,
) -> str:
    """Fills the trees from training rows, and fits the weights of a stack on the validation samples.

    The training rows are those that the task draws for one epoch, so that its sampling counts.

    Args:
        model: to be filled, on any device.
        task: after its `begin`.
        training, validation: with tables.
        forward: a network and a batch -> logits, without gradients.
        collate: samples to a batch.
        settings: of the trees.
        batch: samples at once.
        seed: of what is drawn.

    Returns:
        What was chosen, in words.
    """
    if task.loss_settings.name != "cross_entropy" or task.loss_settings.label_smoothing:
        raise UserError("Trees minimise the plain cross-entropy: leave --loss and --label-smoothing out.")
    device = model.trees.value.device
    trees = model.trees.cpu()
    drawn = [place for part in task.order(len(training), batch=batch, seed=seed, epoch=0) for place in part]
    rows = np.sort(np.array(drawn))
    target, known = parse_targets(training.targets, task.classes)
    held, held_known = parse_targets(validation.targets, task.classes)
    said = fit_trees(
        trees,
        (training.tables[rows], target[rows], known[rows]),
        (validation.tables, held, held_known),
        settings,
        exclusive=task.classes.kind == "multiclass",
        weights=None if task.weights is None else task.weights.tolist(),
        seed=seed,
    )
    if isinstance(model, Stacked):
        loader: DataLoader[Any] = DataLoader(validation, batch_size=batch, collate_fn=collate)  # type: ignore[arg-type]
        model.to(device).eval()
        with torch.no_grad():
            logits = torch.cat([forward(model.network, found).double().cpu() for found in loader])
            of_trees = torch.cat([model.trees(found["table"].to(device)).double().cpu() for found in loader])
        found = fit_stack(np.stack([logits.numpy(), of_trees.numpy()]), held, held_known, task.classes.kind)
        model.weights.copy_(torch.from_numpy(found.weights))
        model.bias.copy_(torch.from_numpy(found.bias))
        shares = ", ".join(f"{value:.2f}" for value in found.weights[:, 0])
        losses = " and ".join(f"{value:.4f}" for value in found.nll_members)
        said += f"; weights of network and trees {shares}: validation loss {found.nll:.4f} (alone {losses})"
    trees.to(device)
    return said
