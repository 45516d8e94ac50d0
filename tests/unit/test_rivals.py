"""The other policies against hand-worked examples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from laps.engine.engine import Engine
from laps.engine.types import (
    Capacity,
    Hints,
    PolicySpec,
    Snapshot,
)
from unit.examples import EXAMPLE, Parameters, planned, request
from unit.fake_worker import FakeWorker


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
