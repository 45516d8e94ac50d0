"""From a plan to the requests that run: the rule that every host applies."""

from __future__ import annotations

from collections.abc import Callable

from laps.engine.types import Handle, Plan

Rank = tuple[int, int]


def rank_by(plan: Plan) -> Callable[[Handle], Rank]:
    """Return the rank function of `plan`: smaller runs first, and no two handles are equal.

    1. Requests that the plan names, in its order.
    2. Requests newer than the plan (above its horizon), by arrival: until the planner has seen
       them, they may use what the named ones leave free.
    3. The rest, by arrival.

    The worker runs the first `max_running` of those that can run. A plan therefore stays
    work-conserving when requests finish after it was made, and no plan, however old or wrong,
    can make more than the cap run or leave a round empty.
    """
    position = {handle: index for index, handle in enumerate(plan.order)}
    horizon = plan.horizon

    def rank(handle: Handle) -> Rank:
        index = position.get(handle)
        if index is not None:
            return (0, index)
        return (1, handle) if handle > horizon else (2, handle)

    return rank
