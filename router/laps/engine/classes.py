"""Kinds of requests that are alike, so that what one was like tells of the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from laps.engine.types import Hints

RequestClass = str | int
"""A tenant; for a request of none, the binary digits of its `max_new_tokens`."""

MOST_CLASSES = 256
"""Classes that are remembered: tenants are names that clients choose, so there is a bound."""

T = TypeVar("T")


def class_of(hints: Hints, max_new_tokens: int) -> RequestClass:
    """Return the class of a request."""
    return hints.tenant or max_new_tokens.bit_length()


class ByClass(Generic[T]):
    """What was learnt from all requests, and from those of each class."""

    def __init__(self, new: Callable[[], T]) -> None:
        self.all = new()
        self._new = new
        self._classes: OrderedDict[RequestClass, T] = OrderedDict()

    def get(self, request_class: RequestClass) -> T | None:
        """Return what is known of a class, or None."""
        return self._classes.get(request_class)

    def learn(self, request_class: RequestClass) -> T:
        """Return what is known of a class, to be added to; the class that learnt least lately is
        forgotten for a new one."""
        known = self._classes.get(request_class)
        if known is None:
            known = self._classes[request_class] = self._new()
            if len(self._classes) > MOST_CLASSES:
                self._classes.popitem(last=False)
        else:
            self._classes.move_to_end(request_class)
        return known
