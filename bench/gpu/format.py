"""Numbers as the page shows them."""

from __future__ import annotations

from collections.abc import Callable

from gpu.spread import Spread


def missing(stage: str) -> str:
    """Say that a stage has no results."""
    return f"Not run yet: `python -m gpu.{stage}`."


def times(value: Spread | None, unit: float) -> Spread | None:
    """Return the same in another unit, of which one of its own has so many."""
    if value is None:
        return None
    return Spread(unit * value.median, unit * value.least, unit * value.most)


def in_ms(seconds: Spread | None) -> Spread | None:
    """Return the same in milliseconds."""
    return times(seconds, 1e3)


def ranged(value: Spread | None, digits: int) -> str:
    """Return median and range."""
    if value is None:
        return ""
    number: Callable[[float], str] = f"{{:.{digits}f}}".format
    if value.least == value.most:
        return number(value.median)
    return f"{number(value.median)} ({number(value.least)}–{number(value.most)})"


def plain(value: Spread | None, digits: int) -> str:
    """Return the median."""
    return "" if value is None else f"{value.median:.{digits}f}"
