"""Numbers as the page shows them."""

from __future__ import annotations

from collections.abc import Callable

from gpu.spread import Spread


def missing(stage: str) -> str:
    """Say that a stage has no results."""
    return f"Not run yet: `python -m gpu.{stage}`."


def in_ms(seconds: Spread | None) -> Spread | None:
    """Return the same in milliseconds."""
    if seconds is None:
        return None
    return Spread(1e3 * seconds.median, 1e3 * seconds.least, 1e3 * seconds.most)


def ranged(value: Spread | None, digits: int) -> str:
    """Return median and range."""
    if value is None:
        return ""
    number: Callable[[float], str] = f"{{:.{digits}f}}".format
    if value.least == value.most:
        return number(value.median)
    return f"{number(value.median)} ({number(value.least)}–{number(value.most)})"


def plain(value: Spread | None, digits: int, unit: float = 1.0) -> str:
    """Return the median, times `unit`."""
    return "" if value is None else f"{unit * value.median:.{digits}f}"
