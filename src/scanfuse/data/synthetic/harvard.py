"""Made-up heads in the Harvard layout: registered MRI, CT, SPECT and PET slices of nobody.

The anatomy is in `_head`; here are the contrasts. Each modality shows what the others do not: CT the bone, calcium
and fresh blood; MRI the cortex, nuclei, oedema and plaques; SPECT and PET the uptake. The pictures are for trying the
programs and for tests; nothing about them is fit for a medical statement.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator
from scipy import ndimage

from scanfuse.config import Section
from scanfuse.data.readers import write_image
from scanfuse.data.synthetic._folder import Facts, empty_folder
from scanfuse.data.synthetic._head import FIELD_OF_VIEW_MM, Case, draw_case, tissue_fractions
from scanfuse.files import write_text

__all__ = ["FACTS", "MODALITIES", "Options", "render", "write"]

MODALITIES = ("CT", "MRI", "SPECT", "PET")
FACTS = Facts(counted="cases", seconds=0.15)


class Options(Section):
    """How many heads, and how they are shown."""

    cases: int = Field(24, ge=1, le=9999, description="heads, numbered from 1")
    slices: int = Field(4, ge=1, le=900, description="neighbouring slices of each head")
    size: int = Field(128, ge=32, le=1024, description="side in pixels; the field of view is 240 mm")
    pair: str = Field("CT-MRI", description="two of CT, MRI, SPECT, PET, joined by a dash")
    seed: int = Field(0, ge=0, description="seed of everything")

    @field_validator("pair")
    @classmethod
    def _two_modalities(cls, value: str) -> str:
        names = value.upper().split("-")
        if len(names) != 2 or names[0] == names[1] or not set(names) <= set(MODALITIES):
            raise ValueError(f"phantoms come as two of {', '.join(MODALITIES)} joined by a dash")
        return value

    @property
    def modalities(self) -> tuple[str, ...]:
        """The two in the order in which published folders name them: <other>-MRI."""
        return tuple(sorted(self.pair.upper().split("-"), key=("CT", "SPECT", "PET", "MRI").index))


# T2-like and T1-like signal (1 = the brightest), Hounsfield units, uptake relative to the cortex
_TISSUES = {
    "air":           (0.00, 0.00, -1000.0, 0.00),
    "skin":          (0.34, 0.45,   -10.0, 0.14),
    "fat":           (0.47, 0.93,   -95.0, 0.10),
    "muscle":        (0.17, 0.34,    45.0, 0.22),
    "bone":          (0.03, 0.04,  1150.0, 0.06),
    "diploe":        (0.22, 0.45,   620.0, 0.10),
    "csf":           (0.95, 0.12,     4.0, 0.06),
    "grey":          (0.47, 0.42,    39.0, 1.00),
    "white":         (0.31, 0.58,    29.0, 0.34),
    "nuclei":        (0.41, 0.47,    37.0, 0.98),
    "pallidum":      (0.28, 0.54,    37.0, 0.70),
    "dura":          (0.10, 0.16,    62.0, 0.15),
    "blood vessel":  (0.10, 0.20,    52.0, 0.35),
    "oedema":        (0.74, 0.36,    19.0, 0.22),
    "tumour":        (0.58, 0.44,    37.0, 0.90),
    "tumour rim":    (0.50, 0.88,    44.0, 1.00),
    "necrosis":      (0.88, 0.22,    14.0, 0.10),
    "blood":         (0.20, 0.80,    72.0, 0.05),
    "blood rim":     (0.09, 0.30,    60.0, 0.10),
    "infarct":       (0.76, 0.34,    19.0, 0.08),
    "calcium":       (0.06, 0.10,   260.0, 0.30),
}  # fmt: skip
_T2, _T1, _CT, _UPTAKE = ({name: values[column] for name, values in _TISSUES.items()} for column in range(4))
_CT_WINDOW = (-12.0, 100.0)
_BLUR_MM = {"SPECT": 4.2, "PET": 2.6}
# Level, red, green, blue: from black over slate, indigo and rose to orange and pale yellow
_COLOURS = np.array(
    [
        (0.00, 0, 0, 0), (0.10, 12, 18, 21), (0.22, 46, 68, 74), (0.29, 42, 36, 88), (0.38, 52, 0, 118),
        (0.50, 86, 22, 132), (0.62, 176, 82, 128), (0.72, 216, 98, 96), (0.82, 255, 112, 12), (0.91, 255, 132, 10),
        (0.96, 255, 196, 104), (1.00, 255, 248, 226),
    ]
)  # fmt: skip


def write(root: str | Path, options: Options = Options()) -> Path:  # noqa: B008 (frozen)
    """Writes <root>/<PAIR>/{train,test}/<MODALITY>/<case><3-digit slice>.png and a note that they are made up.

    As in the published data, train and test are drawn by slice (every seventh slice is test), so cases are in both:
    split by case. CT and MRI are 8-bit grey, SPECT and PET 8-bit RGB. The same options give the same bytes.

    Args:
        root: folder; made where it is missing.
        options: see `Options`.

    Returns:
        `root`.

    Raises:
        UserError: a folder that is not empty or cannot be written.
    """
    root = empty_folder(root)
    cases, slices, size, seed = options.cases, options.slices, options.size, options.seed
    folder = root / "-".join(options.modalities)
    count = 0
    for number in range(1, cases + 1):
        for index, pictures in enumerate(
            render(number, slices=slices, size=size, seed=seed, modalities=options.modalities)
        ):
            part = "test" if count % 7 == 3 else "train"
            count += 1
            for name, pixels in pictures.items():
                write_image(folder / part / name / f"{number}{index + 5:03d}.png", pixels)
    write_text(
        folder / "ABOUT.txt",
        f"Made-up heads, no patients: {cases} cases of {slices} slices, {size} x {size} pixels, seed {seed}.\n"
        "Written by ScanFuse in the layout of the Harvard fusion pairs. Not for any medical statement.\n",
    )
    return root


def render(
    number: int, *, slices: int = 4, size: int = 128, seed: int = 0, modalities: Sequence[str] = MODALITIES
) -> list[dict[str, np.ndarray]]:
    """The slices of case `number`, from low to high: modality -> uint8 (size, size), or (size, size, 3) for uptake.

    A modality's picture does not depend on which others are asked for.
    """
    case = draw_case(np.random.default_rng([seed, number]), slices)
    pictures = []
    for index, level in enumerate(case.levels):
        fractions = tissue_fractions(case, level, size)
        picture = {}
        for name in modalities:
            # The case's stream sets what its slices share (bias, contrast), the slice's own stream the noise.
            shared = np.random.default_rng([seed, number, MODALITIES.index(name) + 1])
            noise = np.random.default_rng([seed, number, MODALITIES.index(name) + 1, index])
            picture[name] = _RENDERERS[name](case, fractions, level, shared, noise)
        pictures.append(picture)
    return pictures


def _mri(
    case: Case,
    fractions: dict[str, np.ndarray],
    level: float,
    shared: np.random.Generator,
    noise: np.random.Generator,
) -> np.ndarray:
    """T2-like (three of four) or T1-like magnitude picture: receive-coil bias, slight blur, Rician noise."""
    values = _T2 if shared.random() < 0.75 else _T1
    signal = _mix(fractions, values)
    size = signal.shape[0]
    signal = signal * (1 + 0.04 * _texture(case, level, size))
    signal = signal * _bias(shared, size)
    signal = ndimage.gaussian_filter(signal, 0.35 * size / 128)
    sigma = shared.uniform(0.008, 0.02)
    magnitude = np.hypot(signal + noise.normal(0, sigma, signal.shape), noise.normal(0, sigma, signal.shape))
    # The display window of the film cuts the noise floor away.
    return _to_bytes((magnitude - 1.3 * sigma) * shared.uniform(0.85, 1.05))


def _ct(
    case: Case,
    fractions: dict[str, np.ndarray],
    level: float,
    shared: np.random.Generator,
    noise: np.random.Generator,
) -> np.ndarray:
    """Hounsfield units in a brain window: partial volume, cupping, correlated noise, sometimes a head rest."""
    units = _mix(fractions, _CT)
    size = units.shape[0]
    pixel = FIELD_OF_VIEW_MM / size
    # The scanner's resolution and its reconstruction kernel
    units = ndimage.gaussian_filter(units, 0.8 / pixel)
    brain = 1 - fractions["air"]
    bone = ndimage.gaussian_filter(fractions["bone"] + fractions.get("diploe", 0), 9 / pixel)
    units = units + 14 * bone * brain  # beam hardening brightens the rim of the brain
    grain = ndimage.gaussian_filter(noise.normal(size=units.shape), 0.55)
    units = units + shared.uniform(1.6, 3.2) * grain / grain.std()
    offset = shared.uniform(-4, 4)
    if shared.random() < 0.5:
        place = (np.arange(size) - (size - 1) / 2) * pixel
        x, y = np.meshgrid(place, place)
        radius = shared.uniform(118, 128)
        ring = np.abs(np.hypot(x, y + shared.uniform(-4, 4)) - radius)
        rest = np.clip((1.0 - ring) / pixel + 0.5, 0, 1) * (y > shared.uniform(30, 60)) * fractions["air"]
        units = units + 1150 * rest
    low, high = _CT_WINDOW
    return _to_bytes((units + offset - low) / (high - low))


def _uptake(
    blur_mm: float,
    case: Case,
    fractions: dict[str, np.ndarray],
    level: float,
    shared: np.random.Generator,
    noise: np.random.Generator,
) -> np.ndarray:
    """Perfusion or metabolism, blurred, with counting noise, in false colours."""
    values = dict(_UPTAKE)
    values["tumour"], values["tumour rim"] = (1.45, 1.5) if shared.random() < 0.5 else (0.45, 0.6)
    activity = _mix(fractions, values)
    size = activity.shape[0]
    pixel = FIELD_OF_VIEW_MM / size
    place = np.linspace(-1, 1, size)
    behind = 1 + shared.uniform(0.0, 0.18) * place[:, None] + shared.normal(0, 0.05) * place[None, :]
    patches = ndimage.gaussian_filter(shared.normal(size=activity.shape), 12 / pixel)
    activity = activity * behind * (1 + 0.10 * patches / patches.std())
    image = ndimage.gaussian_filter(activity, blur_mm / pixel)
    grain = ndimage.gaussian_filter(noise.normal(size=image.shape), 0.75 * blur_mm / pixel)
    image = image + 0.055 * np.sqrt(np.maximum(image, 0.02)) * grain / grain.std()
    image = np.clip((image - 0.04) / (0.98 * np.quantile(image, 0.998) - 0.04), 0, 1)
    level_8bit = np.rint(image * 255) / 255
    colour = [np.interp(level_8bit, _COLOURS[:, 0], _COLOURS[:, channel]) for channel in (1, 2, 3)]
    return np.rint(np.stack(colour, axis=-1)).astype(np.uint8)


def _spect(
    case: Case,
    fractions: dict[str, np.ndarray],
    level: float,
    shared: np.random.Generator,
    noise: np.random.Generator,
) -> np.ndarray:
    return _uptake(_BLUR_MM["SPECT"], case, fractions, level, shared, noise)


def _pet(
    case: Case,
    fractions: dict[str, np.ndarray],
    level: float,
    shared: np.random.Generator,
    noise: np.random.Generator,
) -> np.ndarray:
    return _uptake(_BLUR_MM["PET"], case, fractions, level, shared, noise)


_RENDERERS = {"CT": _ct, "MRI": _mri, "SPECT": _spect, "PET": _pet}


def _mix(fractions: dict[str, np.ndarray], values: dict[str, float]) -> np.ndarray:
    return np.sum([share * values[tissue] for tissue, share in fractions.items()], axis=0)


def _texture(case: Case, level: float, size: int) -> np.ndarray:
    lattice = case.lattices["texture"]
    plane = lattice[int(level * lattice.shape[0]) % lattice.shape[0]]
    return ndimage.zoom(plane, size / plane.shape[0], order=3)[:size, :size]


def _bias(shared: np.random.Generator, size: int) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    a, b, c, d, e = shared.normal(0, [0.08, 0.08, 0.05, 0.05, 0.05])
    return np.exp(a * x + b * y + c * x * y + d * x * x + e * y * y)


def _to_bytes(unit: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)
