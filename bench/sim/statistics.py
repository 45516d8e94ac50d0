"""Means over seeds, and how far they may be off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and the half-width of its confidence interval, which one seed has not."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        digits = 3 if abs(self.mean) < 10 else 1
        if self.half is None:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ± {self.half:.{digits}f}"


def estimate(values: Sequence[float]) -> Estimate:
    """Return the t-interval of independent values."""
    samples = np.asarray(values, float)
    if len(samples) < 2:
        return Estimate(float(samples.mean()), None)
    error = float(samples.std(ddof=1)) / len(samples) ** 0.5
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, len(samples) - 1))
    return Estimate(float(samples.mean()), quantile * error)


def ratio(values: Sequence[float], yardsticks: Sequence[float]) -> Estimate:
    """Return the t-interval of the ratios seed by seed.

    Both are of the same requests, so that much of what chance did to one it did to the other.
    """
    return estimate([value / yard for value, yard in zip(values, yardsticks, strict=True)])
