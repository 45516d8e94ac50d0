"""Output and prompt lengths, from the distributions in `data/`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sim.workload import Floats, Ints

DATA = Path(__file__).with_name("data")
Source = Literal["azure-conv", "dolly", "mbpp", "gsm8k"]


@cache
def distribution(name: str) -> dict[str, Any]:
    """Read a distribution of `data/`."""
    content: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return content


@dataclass(frozen=True)
class Lengths:
    """Lengths of a data set, output lengths clipped; prompts are independent of outputs."""

    source: Source = "azure-conv"
    low: int = 4
    high: int = 1000

    def draw_outputs(self, rng: np.random.Generator, count: int) -> Ints:
        """Draw output lengths, in tokens."""
        content = distribution(self.source)
        weights: Floats = np.array(content["counts"], float)
        values = rng.choice(content["output_tokens"], size=count, p=weights / weights.sum())
        return np.clip(values, self.low, self.high).astype(np.int64)

    def draw_prompts(self, rng: np.random.Generator, count: int) -> Ints:
        """Draw prompt lengths, in tokens."""
        quantiles = distribution(self.source)["prompt_quantiles"]
        return rng.choice(quantiles, size=count).astype(np.int64)
