"""Who is offered and who runs: the same as by sorting everything, whatever the state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sortedcontainers import SortedDict

from laps.engine.selection import rank_by
from laps.engine.types import Plan
from laps_sglang.ledger import handle_of
from laps_sglang.ranking import best_of
from laps_sglang.worker import Worker

HANDLES = st.integers(0, 12)
PLANS = st.builds(
    Plan,
    order=st.lists(HANDLES, max_size=16, unique=True).map(tuple),
    horizon=HANDLES,
)


@given(PLANS, st.sets(HANDLES), st.sets(HANDLES), st.integers(0, 14))
def test_a_walk_is_a_sort(plan: Plan, live: set[int], skip: set[int], count: int) -> None:
    among = SortedDict(dict.fromkeys(live))
    expected = sorted(live - skip, key=rank_by(plan))[:count]
    assert best_of(plan, count, among, skip) == expected


@dataclass(eq=False)
class FakeReq:
    """A request as the worker sees it."""

    rid: str
    where: str
    to_finish: object = None
    output_ids: tuple[int, ...] = ()
    origin_input_ids: tuple[int, ...] = ()
    sampling_params: Any = field(
        default_factory=lambda: SimpleNamespace(custom_params=None, max_new_tokens=8)
    )

    def finished(self) -> bool:
        return False


class FakeBatch:
    """Rows without tensors."""

    def __init__(self, reqs: list[FakeReq]) -> None:
        self.reqs = reqs
        self.spec_info = self.sampling_info = self.inner_idle_batch = None
        self.batch_is_full = False

    def is_empty(self) -> bool:
        return not self.reqs

    def filter_batch(self, keep_indices: list[int]) -> None:
        self.reqs = [self.reqs[row] for row in keep_indices]

    def merge_batch(self, other: FakeBatch) -> None:
        self.reqs = self.reqs + other.reqs


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["waiting", "running", "paused", "chunked"]),
        st.booleans(),  # aborted
        st.integers(0, 7).map(lambda n: n == 0),  # a health probe
    ),
    min_size=1,
    max_size=12,
)


def worker_with(reqs: list[FakeReq], plan: Plan, cap: int) -> tuple[Worker, FakeBatch]:
    """Return a worker in the state that `reqs` describe, and SGLang's running batch."""
    scheduler = SimpleNamespace(
        max_running_requests=16,
        max_total_num_tokens=0,
        waiting_queue=[],
        chunked_req=None,
        spec_algorithm=SimpleNamespace(is_none=lambda: False),
    )
    engine: Any = SimpleNamespace(finishing=lambda scheduler, batch: ())
    worker = Worker(scheduler, engine, 16)
    for req in reqs:
        scheduler.waiting_queue.append(req)
        worker.ledger.queued(req, 0.0)
    admitted = [req for req in reqs if req.where != "waiting"]
    worker.ledger.admitted(admitted)
    scheduler.waiting_queue = [req for req in reqs if req.where == "waiting"]
    scheduler.chunked_req = next((req for req in reqs if req.where == "chunked"), None)
    rows = FakeBatch([req for req in reqs if req.where in ("running", "paused")])
    paused = [row for row, req in enumerate(rows.reqs) if req.where == "paused"]
    if paused:
        worker.paused.take_in(rows, paused, 0)
        worker.paused.expose()  # some are marked to finish
    worker.capacity = replace(worker.capacity, max_running=cap)
    worker.use(plan)
    return worker, rows


def sorted_best(reqs: list[FakeReq], plan: Plan, cap: int) -> list[FakeReq]:
    """The rule, by sorting everything: `rank_by`, but first health probes, then the aborted."""
    rank = rank_by(plan)
    order = {"running": 0, "paused": 1, "chunked": 2, "waiting": 3}

    def key(req: FakeReq) -> tuple[int, ...]:
        handle = handle_of(req)
        if handle is None or req.to_finish is not None:
            return (-2 if handle is None else -1, order[req.where])
        return rank(handle)

    probes = sum(handle_of(req) is None for req in reqs)
    return sorted(reqs, key=key)[: cap + probes]


@settings(max_examples=1000)
@given(REQUESTS, PLANS, st.integers(1, 6), PLANS)
def test_the_worker_chooses_as_if_it_sorted_everything(
    shapes: list[tuple[str, bool, bool]], plan: Plan, cap: int, next_plan: Plan
) -> None:
    chunked = 0
    reqs = []
    for index, (where, aborted, probe) in enumerate(shapes):
        chunked += where == "chunked"
        place = "running" if where == "chunked" and chunked > 1 else where
        # SGLang drops an aborted request that waits; a probe never pauses.
        place = "running" if probe and place == "paused" else place
        marked = object() if aborted and place != "waiting" else None
        reqs.append(FakeReq(f"{'HEALTH_CHECK' if probe else 'r'}{index}", place, marked))
    worker, rows = worker_with(reqs, plan, cap)
    for current in (plan, plan, next_plan):  # nothing changes, then the plan does
        worker.use(current) if current is not worker.plan else None
        expected = sorted_best(reqs, current, cap)
        assert [r for r in worker._deserving(rows) if worker.ledger.is_waiting(r)] == [
            req for req in expected if req.where == "waiting"
        ]
        residents = [req for req in reqs if req.where in ("running", "paused")]
        if rows.reqs:
            worker._swap(rows)
            if worker.paused or len(residents) > cap:
                assert set(rows.reqs) == set(sorted_best(residents, current, cap))
            assert {*rows.reqs, *worker.paused.reqs} == set(residents)
        for req in residents:
            req.where = "running" if req in rows.reqs else "paused"
