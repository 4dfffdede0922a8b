"""Multimodal fusion with selective state-space models (Mamba).

    import scanfuse
    result = scanfuse.load("runs/brain").predict(mri="mri.png", ct="ct.png")

Importing this package imports nothing heavy; `load` does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scanfuse.verbs.predict import Predictor

__all__ = ["__version__", "load"]

__version__ = "0.1.0"


def load(
    run_or_hub_id: str | Path, *, device: str = "auto", adjusted: Mapping[str, str] | None = None
) -> "Predictor":
    """A trained run, ready to predict: a run folder, or `hf://owner/name` on the Hugging Face Hub.

    Args:
        run_or_hub_id: where the run lies.
        device: "auto" takes a GPU where there is one; else a torch device such as "cpu" or "cuda:1".
        adjusted: settings that may be changed when a run is applied, as text, such as {"window": "64"}.

    Raises:
        scanfuse.errors.UserError: there is no such run, or its files are damaged.
    """
    from scanfuse.verbs.predict import load as load_predictor

    return load_predictor(run_or_hub_id, device=device, adjusted=adjusted)
