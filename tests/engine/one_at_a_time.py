"""A loop in which one request decodes at a time, in an order that the test fixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engine.fake_model import reference
from engine.real_loop import RealLoop
from engine.real_scheduler import Setup
from laps.engine.types import Handle, Plan, StepReport


class FixedPlanner:
    """Always gives the plan that the test put in."""

    def __init__(self) -> None:
        self.plan = Plan()

    def order(self, *order: Handle) -> None:
        """Rank `order` first, and know no other request."""
        self.plan = Plan(self.plan.seq + 1, 0, order, max(order))

    def submit(self, report: StepReport | None) -> None:
        pass

    def newest(self) -> Plan:
        return self.plan

    @property
    def seq(self) -> int:
        return 0

    def describe(self) -> dict[str, object]:
        return {"mode": "fixed"}

    def close(self) -> None:
        pass


@contextmanager
def one_at_a_time(**setup: Any) -> Iterator[tuple[RealLoop, FixedPlanner]]:
    """Run a loop in which one request decodes at a time, in the order of a FixedPlanner."""
    loop = RealLoop(Setup(max_running=1, **setup))
    try:
        planner = FixedPlanner()
        loop.plan_with(planner)
        yield loop, planner
    finally:
        loop.close()


def finish(loop: RealLoop, reqs: Sequence[Any], each: Callable[[int], None]) -> list[str]:
    """Run until all of `reqs` are done; return their ids in the order in which they finished."""
    done: list[str] = []

    def script(iteration: int) -> bool:
        each(iteration)
        done.extend(req.rid for req in reqs if req.finished() and req.rid not in done)
        return iteration > 20 and all(r.finished() for r in reqs) and loop.scheduler.is_fully_idle()

    loop.run(script)
    loop.check_no_leak()
    return done


def run_until_idle(loop: RealLoop, ready: Callable[[], bool], each: Callable[[int], None]) -> None:
    """Run until the scheduler is idle, once `ready`."""

    def script(iteration: int) -> bool:
        each(iteration)
        return iteration > 20 and ready() and loop.scheduler.is_fully_idle()

    loop.run(script)
    loop.check_no_leak()


def same_texts(reqs: Sequence[Any]) -> None:
    for req in reqs:
        tokens = req.sampling_params.max_new_tokens
        assert list(req.output_ids)[:tokens] == reference(list(req.origin_input_ids), tokens)
