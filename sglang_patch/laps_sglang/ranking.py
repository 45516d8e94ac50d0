"""A plan's order over the requests of a worker, walked from the best on.

The same order as sorting by `laps.engine.selection.rank_by`, but what a walk costs depends on how
far it goes and not on how many requests wait: a step must not slow down because a queue is long.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from laps.engine.types import Handle, Plan


class Ranking:
    """The order of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._named = frozenset(plan.order)
        order = plan.order
        if len(self._named) < len(order):
            # What is named twice stands where it is named last, as in `rank_by`.
            order = tuple(reversed(dict.fromkeys(reversed(order))))
        self._order = order

    def first(self, count: int, among: Any, skip: Container[Handle | None] = ()) -> list[Handle]:
        """Return the best `count` handles of `among` that are not in `skip`, best first.

        `among` is a SortedDict with handles as keys.
        """
        found: list[Handle] = []
        if count <= 0:
            return found
        for handle in self._order:
            if handle in among and handle not in skip:
                found.append(handle)
                if len(found) == count:
                    return found
        newer = among.irange(self.plan.horizon, inclusive=(False, False))
        older = among.irange(maximum=self.plan.horizon)
        for rest in (newer, older):
            for handle in rest:
                if handle not in self._named and handle not in skip:
                    found.append(handle)
                    if len(found) == count:
                        return found
        return found
