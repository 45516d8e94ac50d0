"""Properties that hold for every policy, whatever happens to a worker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from laps.engine.engine import Engine
from laps.engine.types import Capacity, Handle, Phase, PolicySpec
from laps.policies.registry import POLICIES
from unit.fake_worker import FakeWorker
from unit.reference import LearnsNoLengths, NoPrior, Reference, Rules

RULES = st.builds(
    Rules,
    policy=st.sampled_from(sorted(POLICIES)),
    order=st.sampled_from(["one-scale", "strict"]),
    quantum=st.integers(1, 6),
    ratio=st.sampled_from([1.0, 1.5, 2.0]),
    levels=st.integers(1, 4),
    min_rounds=st.integers(2, 6),
    max_wait_s=st.sampled_from([0.0, 0.1, 0.5]),
    boost_rounds=st.integers(1, 4),
    prefill_tokens=st.integers(3, 40),
    patience=st.sampled_from([0.7, 3.0, 200.0]),
    margin=st.sampled_from([0.0, 0.1, 0.5]),
    recompute=st.sampled_from([0.0, 3.0, 40.0]),
)
CAPACITIES = st.builds(
    lambda running, spare: Capacity(running, running + spare), st.integers(1, 4), st.integers(0, 6)
)
ACCEPT_LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=6)


class WorkerAndEngine(RuleBasedStateMachine):
    """A fake worker lives through arrivals, rounds, aborts, demotions; the engine must follow."""

    @initialize(rules=RULES, capacity=CAPACITIES)
    def build(self, rules: Rules, capacity: Capacity) -> None:
        self.worker = FakeWorker(capacity)
        self.reference = Reference(rules)
        self.spec = PolicySpec(rules.policy, rules.parameters())
        # The plan may name every request, so that its whole order can be compared.
        roomy = replace(self.worker.snapshot(), capacity=Capacity(500, 500))
        self.engine = Engine(roomy, self.spec, LearnsNoLengths(), NoPrior())

    @rule(
        length=st.integers(1, 60),
        accept_lengths=ACCEPT_LENGTHS,
        spare=st.integers(8, 40),
        prompt=st.integers(0, 60),
        priority=st.integers(-2, 2),
    )
    def submit(
        self, length: int, accept_lengths: list[int], spare: int, prompt: int, priority: int
    ) -> None:
        hint = length + spare
        self.worker.submit(length, accept_lengths, hint=hint, prompt=prompt, priority=priority)

    @rule(rounds=st.integers(1, 8))
    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            plan = self.engine.plan()
            could_run = len(self.worker.requests)
            report = self.worker.run(plan)
            assert len(report.decoded) == min(self.worker.capacity.max_running, could_run)
            self._observe(report)

    @rule(seconds=st.floats(0.0, 0.3))
    def idle(self, seconds: float) -> None:
        self.worker.advance(seconds)
        self._observe(self.worker.flush())

    @precondition(lambda self: self.worker.requests)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.worker.abort(data.draw(st.sampled_from(sorted(self.worker.requests))))
        self._observe(self.worker.flush())

    @precondition(lambda self: self._resident())
    @rule(data=st.data())
    def demote(self, data: st.DataObject) -> None:
        self.worker.demote(data.draw(st.sampled_from(self._resident())))
        self._observe(self.worker.flush())

    @rule()
    def rebuild(self) -> None:
        """The same policy again: ordering from scratch must give the order kept step by step."""
        starving = any(record.boost_left for record in self.reference.records.values())
        if not starving:
            self.engine.set_policy(self.spec)

    @invariant()
    def nothing_lost_nothing_twice(self) -> None:
        self._observe(self.worker.flush())
        queued = [rid for queue in self.engine.queues() for rid in queue.rids]
        assert sorted(queued) == sorted(f"r{handle}" for handle in self.worker.requests)
        assert queued == [status.rid for status in self.engine.statuses()]
        assert len(self.engine.plan().order) == len(queued)

    @invariant()
    def order_is_the_written_rule(self) -> None:
        assert list(self.engine.plan().order) == self.reference.order()
        for rank, handle in enumerate(self.engine.plan().order):
            assert self.engine.explain(f"r{handle}").rank == rank

    @invariant()
    def phases_are_the_workers(self) -> None:
        for handle, request in self.worker.requests.items():
            status = self.engine.status(handle)
            assert status.phase is request.phase
            assert status.output_tokens == request.progress.output_tokens
        stats = self.engine.stats()
        assert stats.running + stats.paused + stats.waiting == len(self.worker.requests)
        assert stats.ignored == 0

    def _observe(self, report: Any) -> None:
        self.engine.observe(report)
        self.reference.observe(report)

    def _resident(self) -> list[Handle]:
        return [h for h, r in self.worker.requests.items() if r.phase.resident]


def test_the_engine_follows_a_worker_through_anything() -> None:
    run_state_machine_as_test(
        WorkerAndEngine, settings=settings(max_examples=300, stateful_step_count=30, deadline=None)
    )


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(
    arrivals=st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 40), ACCEPT_LENGTHS), min_size=1, max_size=30
    ),
    cap=st.integers(1, 4),
)
@settings(deadline=None, max_examples=30)
def test_every_round_is_as_full_as_it_can_be(
    policy: str, arrivals: list[tuple[int, int, list[int]]], cap: int
) -> None:
    worker = FakeWorker(Capacity(cap, cap + 2))
    engine = Engine(worker.snapshot(), PolicySpec(policy))
    pending = list(arrivals)
    while pending or worker.requests:
        if pending:
            count, length, accept_lengths = pending.pop()
            for _ in range(count):
                worker.submit(length, accept_lengths)
        could_run = len(worker.requests)
        report = worker.run(engine.plan())
        assert len(report.decoded) == min(cap, could_run)
        engine.observe(report)
    assert engine.stats().finished == sum(count for count, _, _ in arrivals)


@pytest.mark.parametrize("policy", ["fcfs", "sjf"])
@given(
    arrivals=st.lists(
        st.lists(st.tuples(st.integers(1, 40), ACCEPT_LENGTHS), max_size=3), max_size=40
    ),
    capacity=CAPACITIES,
)
@settings(deadline=None)
def test_without_preemption_nothing_is_paused(
    policy: str, arrivals: list[list[tuple[int, list[int]]]], capacity: Capacity
) -> None:
    worker = FakeWorker(capacity)
    engine = Engine(worker.snapshot(), PolicySpec(policy))
    pending = list(arrivals)
    while pending or worker.requests:
        for length, accept_lengths in pending.pop() if pending else []:
            worker.submit(length, accept_lengths)
        engine.observe(worker.run(engine.plan()))
    assert engine.stats().preemptions == 0
    assert worker.demotions == 0


def test_fcfs_preempts_after_a_demotion_only_for_an_older_request() -> None:
    worker = FakeWorker(Capacity(max_running=2, max_resident=3))
    engine = Engine(worker.snapshot(), PolicySpec("fcfs"))
    old, middle, young = (worker.submit(length=50) for _ in range(3))
    engine.observe(worker.run(engine.plan()))
    worker.demote(old)
    engine.observe(worker.flush())
    report = worker.run(engine.plan())
    engine.observe(report)
    assert set(report.decoded) == {old, middle}
    assert engine.status(young).phase is Phase.WAITING
    assert engine.stats().preemptions == 0
    assert engine.status(old).preemptions == 0


@pytest.mark.parametrize(
    "spec",
    [
        PolicySpec("fcfs"),
        PolicySpec("laps-sd", {"max_wait_s": 0.0, "quantum": 3, "recompute": 0.0}),
        PolicySpec(
            "laps-sd", {"order": "strict", "max_wait_s": 0.0, "quantum": 3, "recompute": 0.0}
        ),
        PolicySpec("laps-sd+", {"patience": 1e9, "recompute": 0.0}),
        PolicySpec("las", {"quantum": 3}),
        PolicySpec("mlfq", {"max_wait_s": 0.0}),
        PolicySpec("priority"),
        PolicySpec("sjf"),
        PolicySpec("srtf", {"recompute": 0.0}),
    ],
    ids=str,
)
@given(
    load=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 3)), min_size=1, max_size=20),
    capacity=CAPACITIES,
    rounds=st.integers(0, 60),
)
@settings(deadline=None, max_examples=40)
def test_an_engine_built_from_a_snapshot_plans_like_one_that_lived_through_it(
    spec: PolicySpec, load: list[tuple[int, int]], capacity: Capacity, rounds: int
) -> None:
    """What a snapshot cannot carry is kept out: starvation, age, what was learnt, uneven rounds,
    and that memory was short."""
    worker = FakeWorker(capacity)
    lived = Engine(worker.snapshot(), spec, LearnsNoLengths(), NoPrior())
    for index in range(rounds):
        if index < len(load):
            length, accept_length = load[index]
            worker.submit(
                length, [accept_length], hint=length + 10, prompt=40 * length, priority=length % 3
            )
        lived.observe(worker.run(lived.plan()))
    restored = Engine(worker.snapshot(), spec, LearnsNoLengths(), NoPrior())
    assert restored.plan().order == lived.plan().order
    for _ in range(20):
        report = worker.run(lived.plan())
        lived.observe(report)
        restored.observe(report)
        assert restored.plan().order == lived.plan().order
        assert [s.rid for s in restored.statuses()] == [s.rid for s in lived.statuses()]
