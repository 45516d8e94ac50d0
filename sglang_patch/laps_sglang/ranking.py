"""A plan's order over the requests of a worker, walked from the best on.

The same order as sorting by `laps.engine.selection.rank_by`, but what a walk costs depends on how
far it goes and not on how many requests wait: a step must not slow down because a queue is long.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import chain, islice
from typing import Any

from laps.engine.types import Handle, Plan


def best_of(
    plan: Plan, count: int, among: Any, skip: Container[Handle | None] = ()
) -> list[Handle]:
    """Return the first `count` handles of `among` that are not in `skip`, best first.

    `among` is a SortedDict with handles as keys; the plan names none twice.
    """
    return list(islice(_walk(plan, among, skip), max(count, 0)))


def _walk(plan: Plan, among: Any, skip: Container[Handle | None]) -> Iterator[Handle]:
    yield from (handle for handle in plan.order if handle in among and handle not in skip)
    named = frozenset(plan.order)
    newer = among.irange(plan.horizon, inclusive=(False, False))
    older = among.irange(maximum=plan.horizon)
    yield from (h for h in chain(newer, older) if h not in named and h not in skip)
