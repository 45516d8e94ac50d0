"""A figure over the turns of a measurement."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median over the rounds of a contest, and the least and most of them."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Return median and range."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(mine: Mapping[int, float], yard: Mapping[int, float]) -> Spread | None:
    """Return a figure as a multiple of another one, formed turn by turn; None without any.

    Both by turn. What drifts from turn to turn falls out.
    """
    found = [mine[turn] / yard[turn] for turn in mine.keys() & yard.keys() if yard[turn]]
    return spread(found) if found else None
