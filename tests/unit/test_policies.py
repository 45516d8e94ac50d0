"""The policies against hand-worked examples, and how they are asked for."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from laps.engine.engine import Engine
from laps.engine.selection import rank_by
from laps.engine.table import Request
from laps.engine.types import (
    Arrival,
    Capacity,
    Hints,
    Phase,
    Plan,
    PolicySpec,
    Progress,
    Snapshot,
    StepReport,
)
from laps.policies.base import OneQueue, PolicyError
from laps.policies.registry import POLICIES, build_policy
from unit.examples import EMPTY, arrival
from unit.fake_worker import FakeWorker

Parameters = dict[str, float | int | str | bool]

EVEN = 3
"""Accept length of every round in these examples, so that acceptance is stable at min_rounds."""


def request(handle: int, rounds: int, predicted: int = 0, arrival_s: float = 0.0) -> Arrival:
    """Return a request with `rounds` rounds of EVEN tokens each and its first token."""
    accepted = EVEN - 1
    return Arrival(
        handle=handle,
        rid=f"r{handle}",
        arrival_s=arrival_s,
        prompt_tokens=10,
        max_new_tokens=10_000,
        hints=Hints(predicted_tokens=predicted),
        phase=Phase.PAUSED if rounds else Phase.WAITING,
        progress=Progress(
            output_tokens=1 + EVEN * rounds if rounds else 0,
            rounds=rounds,
            proposed=4 * rounds,
            accepted=accepted * rounds,
            accepted_sq=accepted * accepted * rounds,
        ),
    )


def planned(
    *requests: Arrival, name: Any = "laps-sd", **parameters: float | int | str | bool
) -> list[int]:
    snapshot = Snapshot(step=1, time_s=10.0, capacity=Capacity(2, 20), requests=requests)
    return list(Engine(snapshot, PolicySpec(name, parameters)).plan().order)


# Perceived from 8 rounds on; an unperceived one counts its rounds in whole quanta of 4.
#   handle  rounds  predicted  output  what it is                      key on one scale
#   1       0       -          0       unperceived                     0
#   2       3       -          10      unperceived, first quantum      0
#   3       4       -          13      unperceived, second quantum     4
#   4       7       -          22      unperceived, second quantum     4
#   5       8       31         25      perceived, 6 tokens left        2
#   6       8       85         25      perceived, 60 tokens left       20
#   7       40      136        121     perceived, 15 tokens left       5
#   8       40      421        121     perceived, 300 tokens left      100
EXAMPLE = (
    request(1, 0, arrival_s=5.0),
    request(2, 3, arrival_s=4.0),
    request(3, 4, arrival_s=3.0),
    request(4, 7, arrival_s=2.0),
    request(5, 8, predicted=31),
    request(6, 8, predicted=85),
    request(7, 40, predicted=136),
    request(8, 40, predicted=421),
)


def test_one_scale_by_hand() -> None:
    # 2 and 1 share the first quantum: 2 arrived earlier. So did 4 before 3 in the second.
    assert planned(*EXAMPLE, quantum=4, min_rounds=8) == [2, 1, 5, 4, 3, 7, 6, 8]


def test_strict_by_hand() -> None:
    # Here perceived from 6 rounds on, so that 5 to 8 are frozen at 6 rounds: in level 2, as the
    # quanta are 2 and 4. 1 is in level 0, 2 and 3 are in level 1. 4 is perceived now: without a
    # hint it is expected to get to the next power of two: 10 tokens more, or 3.3 rounds.
    # Level 0: 1. Level 1: 2 (key 2), 3 (key 4). Level 2: 5 (2), 4 (3.3), 7 (5), 6 (20), 8 (100).
    parameters: Parameters = {"quantum": 2, "ratio": 2.0, "levels": 3, "min_rounds": 6}
    assert planned(*EXAMPLE, order="strict", **parameters) == [1, 2, 3, 5, 4, 7, 6, 8]
    # On one scale 5 has the same key as 2, and arrived earlier.
    assert planned(*EXAMPLE, order="one-scale", **parameters) == [1, 5, 2, 4, 3, 7, 6, 8]


@pytest.mark.parametrize(
    ("rounds", "level"),
    [(0, 0), (2, 0), (3, 1), (8, 1), (9, 2), (20, 2), (21, 3), (10_000, 3)],
)
def test_levels_have_quanta_that_grow_by_the_ratio(rounds: int, level: int) -> None:
    # Quanta 3, 6, 12: demoted at 3, 9 and 21 rounds; the last level has no end.
    snapshot = Snapshot(0, 0.0, Capacity(2, 4), (request(1, rounds),))
    parameters: Parameters = {"order": "strict", "quantum": 3, "levels": 4, "min_rounds": 20_000}
    engine = Engine(snapshot, PolicySpec("laps-sd", parameters))
    assert engine.explain("r1").queue == f"level {level}"
    assert [queue.name for queue in engine.queues()] == [
        "starving",
        "level 0",
        "level 1",
        "level 2",
        "level 3",
    ]


def test_a_perceived_request_stays_in_its_level() -> None:
    worker = FakeWorker(Capacity(1, 1))
    spec = PolicySpec("laps-sd", {"order": "strict", "quantum": 3, "min_rounds": 5})
    engine = Engine(worker.snapshot(), spec)
    worker.submit(length=200, accept_lengths=[2])
    levels = []
    for _ in range(40):
        engine.observe(worker.run(engine.plan()))
        levels.append(engine.explain("r1").queue)
    # Level 0 for 3 rounds; perceived in level 1, which would end at 9 rounds.
    assert levels == ["level 0"] * 2 + ["level 1"] * 38


# What is left of 5 to 8 is 6, 60, 15 and 300 tokens. Nobody has finished: 1 is expected to need all
# of its 10,000, and 2, 3 and 4 (10, 13 and 22 tokens) to get to the next power of two: 6, 3 and 10.
@pytest.mark.parametrize(
    ("name", "parameters", "order"),
    [
        ("fcfs", {}, [5, 6, 7, 8, 4, 3, 2, 1]),
        # All have the same priority.
        ("priority", {}, [5, 6, 7, 8, 4, 3, 2, 1]),
        # All but 1 have begun.
        ("sjf", {}, [5, 6, 7, 8, 4, 3, 2, 1]),
        ("srtf", {}, [3, 5, 2, 4, 7, 6, 8, 1]),
        # All get 3 tokens a round, but 1, of which nothing is known: rounds in the order of tokens.
        ("laps-sd+", {}, [3, 5, 2, 4, 7, 6, 8, 1]),
        # Whole quanta of 4 rounds: 0, 0, 4, 4, 8, 8, 40, 40.
        ("las", {"quantum": 4}, [2, 1, 4, 3, 5, 6, 7, 8]),
        # Quanta 2, 4, 8 and no end: demoted at 2, 6 and 14 rounds. 10 prompt tokens take a round.
        # Level 0: 1. Level 1 (2 to 5 rounds): 2 and 3 (4 and 5 with the prefill). Level 2: 4, 5, 6.
        (
            "mlfq",
            {"quantum": 2, "levels": 4, "prefill_tokens": 10},
            [1, 3, 2, 5, 6, 4, 7, 8],
        ),
    ],
)
def test_rivals_by_hand(name: str, parameters: Parameters, order: list[int]) -> None:
    assert planned(*EXAMPLE, name=name, **parameters) == order


def test_priority_goes_before_arrival() -> None:
    requests = [
        replace(request(handle, rounds), hints=Hints(priority=priority))
        for handle, rounds, priority in ((1, 5, 0), (2, 0, 7), (3, 0, -1), (4, 0, 7))
    ]
    assert planned(*requests, name="priority") == [2, 4, 1, 3]


def test_sjf_goes_by_the_predicted_length_of_what_has_not_begun() -> None:
    requests = [request(1, 0, 500), request(2, 0, 20), request(3, 9, 5000), request(4, 0, 60)]
    assert planned(*requests, name="sjf") == [3, 2, 4, 1]


def test_srtf_preempts_for_a_shorter_rest_and_sjf_does_not() -> None:
    preemptions = {}
    for name in ("sjf", "srtf"):
        worker = FakeWorker(Capacity(max_running=1, max_resident=4))
        engine = Engine(worker.snapshot(), PolicySpec(name))
        worker.submit(length=100, hint=100)
        for _ in range(5):
            engine.observe(worker.run(engine.plan()))
        worker.submit(length=20, hint=20)
        engine.observe(worker.flush())
        while worker.requests:
            engine.observe(worker.run(engine.plan()))
        preemptions[name] = engine.stats().preemptions
    assert preemptions == {"sjf": 0, "srtf": 1}


def test_laps_sd_plus_counts_rounds_from_the_first_one_on() -> None:
    engine = Engine(EMPTY, PolicySpec("laps-sd+"))
    hints = {1: 60, 2: 90}
    new = tuple(arrival(h, hints=Hints(predicted_tokens=hint)) for h, hint in hints.items())
    engine.observe(StepReport(1, 101.0, arrived=new, prefilled=(1, 2)))
    assert engine.plan().order == (1, 2)
    engine.observe(StepReport(2, 101.0, decoded=(1, 2), committed=(1, 4)))
    # 58 tokens at 1 a round, 85 at 4 a round (at most 63 by their limit of 64).
    assert engine.plan().order == (2, 1)


@pytest.mark.parametrize(("rounds", "first"), [(81, 1), (79, 2)])
def test_a_newcomer_must_be_shorter_by_the_margin_than_what_runs(rounds: int, first: int) -> None:
    engine = Engine(EMPTY, PolicySpec("laps-sd+", {"margin": 0.2}))
    runs = arrival(1, hints=Hints(predicted_tokens=102), max_new_tokens=500)
    engine.observe(StepReport(1, 101.0, arrived=(runs,), prefilled=(1,)))
    engine.observe(StepReport(2, 101.0, decoded=(1,), committed=(1,)))  # 100 rounds left
    new = arrival(2, hints=Hints(predicted_tokens=rounds), max_new_tokens=500)
    engine.observe(StepReport(3, 101.0, arrived=(new,)))
    assert engine.plan().order[0] == first
    # Paused, it has no such advantage any more.
    engine.observe(StepReport(4, 101.0, requeued=(1,)))
    assert engine.plan().order[0] == 2


@pytest.mark.parametrize(("left", "first"), [(0, 3), (6, 3), (7, 1), (20, 1)])
def test_age_goes_by_the_requests_that_left(left: int, first: int) -> None:
    # Twice as long counts like ln 2 times 10 requests that left, 6.9.
    engine = Engine(EMPTY, PolicySpec("laps-sd+", {"patience": 10.0}))
    old = arrival(1, hints=Hints(predicted_tokens=40))
    engine.observe(StepReport(1, 101.0, arrived=(old,)))
    for handle in range(100, 100 + left):
        engine.observe(StepReport(2, 101.0, arrived=(arrival(handle),), aborted=(handle,)))
    new = arrival(3, hints=Hints(predicted_tokens=20))
    engine.observe(StepReport(3, 101.0, arrived=(new,)))
    assert engine.plan().order[0] == first


def test_in_a_backlog_requests_that_leave_count_less() -> None:
    # 8 are live and 2 can run: 40 that leave count like 10, and 7 of these are needed (see above).
    engine = Engine(EMPTY, PolicySpec("laps-sd+", {"patience": 10.0}))
    old = tuple(arrival(h, hints=Hints(predicted_tokens=40)) for h in range(1, 8))
    engine.observe(StepReport(1, 101.0, arrived=old))
    first = []
    for handle in range(100, 141):
        engine.observe(StepReport(2, 101.0, arrived=(arrival(handle, rid=str(handle)),)))
        new = arrival(handle + 100, hints=Hints(predicted_tokens=20))
        engine.observe(StepReport(2, 101.0, aborted=(handle,), arrived=()))
        engine.observe(StepReport(3, 101.0, arrived=(new,)))
        first.append(engine.plan().order[0] == 1)
        engine.observe(StepReport(3, 101.0, aborted=(handle + 100,)))
    # Two leave for each newcomer, so the 14th comes after 27 of them, 6.75.
    assert first == [False] * 14 + [True] * 27


@pytest.mark.parametrize(("patience", "served"), [(3.0, True), (1e9, False)])
def test_nobody_who_comes_after_enough_have_left_goes_before(patience: float, served: bool) -> None:
    worker = FakeWorker(Capacity(max_running=1, max_resident=8))
    engine = Engine(worker.snapshot(), PolicySpec("laps-sd+", {"patience": patience}))
    victim = worker.submit(length=300, hint=300)
    # 300 rounds against 0.9, of a running request with one left: 3 ln 333 = 17.4 requests that
    # leave, or 35, as of two that are live one can run.
    while engine.stats().finished < 35:
        if len(worker.requests) < 2:
            worker.submit(length=3, hint=3)
        engine.observe(worker.run(engine.plan()))
    newcomer = worker.submit(length=3, hint=3)
    engine.observe(worker.flush())
    order = engine.plan().order
    ahead = victim not in order or order.index(victim) < order.index(newcomer)
    assert ahead is served


def test_las_lets_requests_take_turns_by_whole_quanta() -> None:
    worker = FakeWorker(Capacity(max_running=1, max_resident=4))
    engine = Engine(worker.snapshot(), PolicySpec("las", {"quantum": 5}))
    for _ in range(2):
        worker.submit(length=1000)
    engine.observe(worker.flush())
    ran: list[int] = []
    for _ in range(20):
        report = worker.run(engine.plan())
        engine.observe(report)
        ran.extend(report.decoded)
    assert ran == [1] * 5 + [2] * 5 + [1] * 5 + [2] * 5


@pytest.mark.parametrize(
    ("prompt", "rounds", "level"),
    [
        (0, 0, 0),
        (512, 0, 0),  # its prefill fits into one round
        (513, 0, 1),
        (2048, 0, 2),
        (100_000, 0, 3),
        # From the first token on the prefill counts, too: 1 round of it uses level 0 up.
        (512, 1, 1),
        (0, 1, 1),
        (0, 2, 1),
        (0, 3, 2),
        (0, 7, 3),
        # Joined level 2, whose quantum is 4, with a prefill of 3 rounds.
        (1536, 1, 3),
        (100_000, 10_000, 3),
    ],
)
def test_a_request_joins_the_level_that_its_prefill_fits_in(
    prompt: int, rounds: int, level: int
) -> None:
    arrival = replace(request(1, rounds), prompt_tokens=prompt)
    snapshot = Snapshot(0, 0.0, Capacity(2, 4), (arrival,))
    engine = Engine(snapshot, PolicySpec("mlfq", {"levels": 4}))
    assert engine.explain("r1").queue == f"level {level}"


@dataclass(frozen=True)
class NewestFirst(OneQueue):
    """A policy that the registry does not know."""

    name: ClassVar[str] = "newest-first"
    queues: ClassVar[tuple[str, ...]] = ("age",)
    key_parts: ClassVar[tuple[str, ...]] = ("-handle",)
    rule: ClassVar[str] = "newest first"

    def key(self, request: Request) -> tuple[float, ...]:
        return (-request.handle, request.arrival_s, request.handle)


def test_the_engine_takes_a_policy_that_is_not_in_the_registry() -> None:
    snapshot = Snapshot(0, 0.0, Capacity(2, 4), tuple(request(handle, 0) for handle in (1, 2, 3)))
    engine = Engine(snapshot, NewestFirst())
    assert engine.plan().order == (3, 2, 1)
    assert engine.policy_spec == PolicySpec("newest-first")
    engine.set_policy(PolicySpec("fcfs"))
    assert engine.plan().order == (1, 2, 3)
    engine.set_policy(NewestFirst())
    assert engine.plan().order == (3, 2, 1)


def test_ties_go_by_arrival_then_handle() -> None:
    requests = [request(3, 0, arrival_s=1.0), request(1, 0, arrival_s=2.0)]
    assert planned(*requests, request(2, 0, arrival_s=1.0)) == [2, 3, 1]


def test_a_plan_names_no_more_than_can_matter() -> None:
    requests = [request(handle, 0) for handle in range(1, 100)]
    snapshot = Snapshot(0, 0.0, Capacity(max_running=3, max_resident=7), tuple(requests))
    plan = Engine(snapshot).plan()
    assert plan.order == tuple(range(1, 11))
    assert plan.horizon == 99


def test_selection_takes_the_named_then_the_new_then_the_old() -> None:
    rank = rank_by(Plan(seq=1, step=1, order=(7, 3, 9), horizon=10))
    assert sorted([1, 2, 3, 7, 9, 10, 11, 12], key=rank) == [7, 3, 9, 11, 12, 1, 2, 10]


def test_selection_without_a_plan_is_by_arrival() -> None:
    assert sorted([4, 2, 9], key=rank_by(Plan())) == [2, 4, 9]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            PolicySpec("lottery"),
            r"no policy 'lottery'; there are: fcfs, laps-sd, laps-sd\+, las, mlfq, priority, sjf, ",
        ),
        (PolicySpec("fcfs", {"quantum": 1}), "no parameter quantum; it has none"),
        (PolicySpec("srtf", {"quantum": 1}), "no parameter quantum; it has none"),
        (PolicySpec("las", {"quantum": 0}), "quantum = 0: .*greater than or equal to 1"),
        (PolicySpec("laps-sd+", {"patience": 0.0}), r"patience = 0.0: .*greater than 0"),
        (PolicySpec("laps-sd+", {"margin": 1.0}), r"margin = 1.0: .*less than 1"),
        (PolicySpec("mlfq", {"levels": 33}), "levels = 33: .*less than or equal to 32"),
        (PolicySpec("laps-sd", {"quanta": 1}), r"no parameter quanta; it has: order, quantum, .*"),
        (PolicySpec("laps-sd", {"order": "lax"}), "order = 'lax': .*'one-scale' or 'strict'"),
        (PolicySpec("laps-sd", {"quantum": 0}), "quantum = 0: .*greater than or equal to 1"),
        (PolicySpec("laps-sd", {"quantum": 2.5}), "quantum = 2.5: .*integer"),
        (PolicySpec("laps-sd", {"quantum": True}), "quantum = True: .*integer"),
        (PolicySpec("laps-sd", {"max_wait_s": "5"}), "max_wait_s = '5': .*number"),
        (PolicySpec("laps-sd", {"max_wait_s": float("nan")}), "max_wait_s = nan: .*finite"),
        (PolicySpec("laps-sd", {"ratio": 0.5, "levels": 0}), "ratio = 0.5: .*; levels = 0: "),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(spec: PolicySpec, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        build_policy(spec)


def test_whole_numbers_are_taken_for_fractions() -> None:
    build_policy(PolicySpec("laps-sd", {"max_wait_s": 5, "ratio": 3}))


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_the_page_of_policies_has_every_parameter_with_its_default(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
    section = re.split(r"^## ", page, flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(f"`{name}`"))
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| `([^`]+)` \|", text, flags=re.MULTILINE))
    assert rows == {
        field.name: str(field.default)
        for field in fields(POLICIES[name])
        if field.default is not MISSING
    }
