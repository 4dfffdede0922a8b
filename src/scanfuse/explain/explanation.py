"""What an explanation of one sample is, for any task, and how it is written."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanfuse.explain.overlay import panel, write_overlay, write_panel
from scanfuse.files import file_name, write_text

__all__ = ["Explanation"]


@dataclass(frozen=True)
class Explanation:
    """Why one sample got its result.

    Attributes:
        id: of the sample.
        outcome: what the maps speak for, such as "abnormal" or "not abnormal".
        pixels: input -> the original picture.
        heats: input -> name of the map -> (H, W) in [0, 1], the size of the picture.
        captions: input -> its name and what changes without it.
        titles: name of a map -> whose it is, and how coarse.
        content: the numbers, plain values for explanation.json.
    """

    id: str
    outcome: str
    pixels: dict[str, np.ndarray]
    heats: dict[str, dict[str, np.ndarray]]
    captions: dict[str, str]
    titles: dict[str, str]
    content: dict[str, Any]

    def picture(self, height: int = 260) -> np.ndarray:
        """The panel, (h, w, 3) uint8."""
        return panel(self.pixels, self.heats, captions=self.captions, titles=self.titles, height=height)

    def write(self, folder: Path, further: dict[str, Any]) -> Path:
        """Writes `<id>/panel.png`, an overlay per input and map, and explanation.json; returns the panel.

        Args:
            folder: the one that holds those of all samples.
            further: plain values to stand beside `content`.
        """
        own = folder / file_name(self.id)
        for name, heats in self.heats.items():
            for title, heat in heats.items():
                write_overlay(own / f"{name}_{title}.png", self.pixels[name], heat)
        write_panel(own / "panel.png", self.pixels, self.heats, captions=self.captions, titles=self.titles)
        write_text(own / "explanation.json", json.dumps({**self.content, **further}, indent=2) + "\n")
        return own / "panel.png"
