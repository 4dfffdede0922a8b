"""What a network starts from: another run's weights (`--start-from`), or what its system fills it with.

A run that has learned from a patient whom the new one tests or validates on would make its results too good: such a
start is refused, by what both runs have recorded of their samples.
"""

from torch import Tensor

from scanfuse import systems
from scanfuse.data.fingerprint import fingerprints
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.run import Run, file_digest, misfits, open_run
from scanfuse.systems import System
from scanfuse.verbs.samples import MUST_NOT_SHARE

__all__ = ["begin"]


def begin(system: System, manifest: Manifest) -> str:
    """Fills the network as the settings ask.

    Args:
        system: with random weights, which are changed.
        manifest: the samples of the new training with their splits.

    Returns:
        What with, for the record; "" where there is nothing to say.

    Raises:
        UserError: a run that is none, of another system or shape, that has learned from patients of the new test or
            validation part, or beside which the settings name other weights.
    """
    if system.config.train.start_from:
        return _from_run(system, manifest, system.config.train.start_from)
    start = systems.ability(system, "start")
    return "" if start is None else str(start())


def _from_run(system: System, manifest: Manifest, name: str) -> str:
    other = getattr(system.config, "start", None)
    if other is not None and other != type(other)():
        raise UserError(
            "--start-from fills all weights: leave out the settings that name other weights to start from."
        )
    if systems.ability(system, "fit_once") is not None:
        raise UserError("--start-from has no effect on what is fitted in one go: leave it out.")
    run = open_run(name)
    if run.config().get("system") != system.config.system:
        raise UserError(f"{name} is a run of {run.config().get('system')}, not of {system.config.system}.")
    weights, own = run.load_weights(), system.model.state_dict()
    if wrong := misfits(weights, own):
        there, here = (_shape(each.get(wrong[0])) for each in (weights, own))
        raise UserError(
            f"The network of {name} has another shape ({wrong[0]}: {there} there, {here} here): give the same model "
            "settings, such as --preset, and classes."
        )
    _refuse_leaks(run, name, manifest)
    system.model.load_state_dict(weights)
    return f"All weights start from {name} (SHA-256 {file_digest(run.weights_file)})."


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else " x ".join(map(str, tensor.shape)) or "one number"


def _refuse_leaks(run: Run, name: str, manifest: Manifest) -> None:
    """Raises UserError if the run has learned from a patient that the new training tests or validates on."""
    recorded = run.split()
    if "fingerprint" not in recorded:
        raise UserError(
            f"{name} was made by an early version and does not say which files it has seen: train it anew."
        )
    table = manifest.table.assign(fingerprint=fingerprints(manifest))
    known = set(zip(recorded["id"], recorded["fingerprint"], strict=True))
    # Names of patients mean the same only where the data are the same.
    same_data = any(pair in known for pair in zip(table["id"], table["fingerprint"], strict=True))
    for part, learned_from in MUST_NOT_SHARE.items():
        held_out = table[table["split"] == part]
        seen = recorded[recorded["split"].isin(learned_from)]
        again = held_out["fingerprint"].isin(set(seen["fingerprint"]) - {""})
        if same_data:
            again |= held_out["group"].isin(seen["group"])
        if again.any():
            raise UserError(
                f"{name} has learned from the case {held_out.loc[again, 'group'].iloc[0]}, which this training holds "
                "out: the results would be too good. Split the data as that run did (its config.yaml), or start from "
                "another run."
            )
