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
    in_order: bool = False
    """Whether lengths are like those of the trace at that time, from a time chosen by chance on:
    each is one of the quantiles of its window. Else they are drawn from all, independently."""

    def draw_outputs(self, rng: np.random.Generator, count: int) -> Ints:
        """Draw output lengths, in tokens."""
        content = distribution(self.source)
        if self.in_order:
            values = _from_windows(content["windows"], rng, count)
        else:
            weights: Floats = np.array(content["counts"], float)
            values = rng.choice(content["output_tokens"], size=count, p=weights / weights.sum())
        return np.clip(values, self.low, self.high).astype(np.int64)

    def draw_prompts(self, rng: np.random.Generator, count: int) -> Ints:
        """Draw prompt lengths, in tokens."""
        quantiles = distribution(self.source)["prompt_quantiles"]
        return rng.choice(quantiles, size=count).astype(np.int64)


def _from_windows(windows: dict[str, Any], rng: np.random.Generator, count: int) -> Ints:
    quantiles = np.array(windows["output_quantiles"])
    start = rng.integers(len(quantiles) * windows["requests"])
    place = (start + np.arange(count)) // windows["requests"] % len(quantiles)
    values: Ints = quantiles[place, rng.integers(quantiles.shape[1], size=count)]
    return values
