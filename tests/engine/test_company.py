"""Newcomers share their prefills in SGLang's real loop."""

from __future__ import annotations

from typing import Any

import pytest

from engine.one_at_a_time import FixedPlanner, finish, same_texts
from engine.random_load import Load, run_random_load
from engine.real_loop import RealLoop
from engine.real_scheduler import Setup
from engine.test_pause import MODES
from laps.engine.company import MEMORY, PATIENCE

pytestmark = pytest.mark.engine

REQUESTS = 20
BUSY = 8 * MEMORY
"""Admissions lately: eight in each step."""
RUNNING = 3


def batches_of(
    overlap: bool, admitted: int, arrivals: dict[int, int], prompt: int = 5
) -> list[tuple[str, Any]]:
    """Run requests that come at these iterations, each before all others in the plan's order."""
    setup = Setup(overlap=overlap, slots=REQUESTS, kv_tokens=4096, max_running=RUNNING)
    loop, planner = RealLoop(setup), FixedPlanner()
    try:
        loop.plan_with(planner)
        planner.order(*range(REQUESTS, 0, -1))
        loop.worker._sharing.admitted(admitted, 0)
        reqs: list[Any] = []

        def each(iteration: int) -> None:
            for _ in range(arrivals.get(iteration, 0)):
                reqs.append(
                    loop.submit(
                        f"r{len(reqs)}", range(len(reqs) * prompt, (len(reqs) + 1) * prompt), 60
                    )
                )

        finish(loop, reqs, each)
        same_texts(reqs)
        batches: list[tuple[str, Any]] = list(loop.scheduler.model_worker.batches)
        return batches
    finally:
        loop.close()


@pytest.mark.parametrize("overlap", [True, False], ids=["overlap", "sync"])
def test_newcomers_wait_for_each_other_where_many_come(overlap: bool) -> None:
    arrivals = dict.fromkeys(range(1, 2 * REQUESTS, 2), 1)

    def sizes(admitted: int) -> list[int]:
        batches = batches_of(overlap, admitted, arrivals)
        return [len(rids) for mode, rids in batches if mode == "EXTEND"]

    apart, together = sizes(0), sizes(BUSY)
    assert apart == [1] * REQUESTS
    assert max(together) > 1
    assert len(together) < REQUESTS == sum(together)


@pytest.mark.parametrize("overlap", [True, False], ids=["overlap", "sync"])
def test_company_that_does_not_come_is_not_waited_for_without_end(overlap: bool) -> None:
    def rounds_before_the_second(admitted: int) -> int:
        modes = [mode for mode, _ in batches_of(overlap, admitted, {1: RUNNING, 6: 1})]
        first, second = (place for place, mode in enumerate(modes) if mode == "EXTEND")
        return second - first - 1

    assert rounds_before_the_second(BUSY) == rounds_before_the_second(0) + PATIENCE


@pytest.mark.parametrize("overlap", [True, False], ids=["overlap", "sync"])
def test_those_next_in_line_come_along_and_pause(overlap: bool) -> None:
    batches = batches_of(overlap, BUSY, {1: RUNNING, 4: REQUESTS - RUNNING})
    prefills = [rids for mode, rids in batches if mode == "EXTEND"]
    assert len(prefills[0]) == RUNNING
    # Three are to run, and the others that share their prefill are ready before they can.
    assert len(prefills[1]) > RUNNING
    assert prefills[1][0] == f"r{REQUESTS - 1}"
    assert all(len(rids) <= RUNNING for mode, rids in batches if mode == "DECODE")


def test_nobody_who_comes_along_is_cut_in_two() -> None:
    """SGLang fills a prefill to the last token, here 64: the rest would take one of its own."""
    batches = batches_of(True, BUSY, {1: RUNNING, 6: REQUESTS - RUNNING}, prompt=15)
    prefills = [rids for mode, rids in batches if mode == "EXTEND"]
    assert max(map(len, prefills)) == RUNNING + 1
    assert sum(map(len, prefills)) == REQUESTS


def test_those_whom_no_prefill_holds_together_wait_once() -> None:
    """A prompt fills a prefill: once the first newcomer has been admitted, so are the others."""
    batches = batches_of(True, BUSY, {1: RUNNING, 8: RUNNING}, prompt=64)
    places = [place for place, (mode, _) in enumerate(batches) if mode == "EXTEND"]
    assert places[-RUNNING:] == [*range(places[RUNNING], places[RUNNING] + RUNNING)]


def test_those_whose_grammars_get_ready_do_not_make_others_wait_anew() -> None:
    loop, planner = RealLoop(Setup(slots=64, kv_tokens=16384, max_running=8)), FixedPlanner()
    try:
        loop.plan_with(planner)
        scheduler = loop.scheduler
        ready: list[Any] = []
        grammars = scheduler.grammar_manager
        grammars.has_waiting_grammars = lambda: bool(ready)
        grammars.get_ready_grammar_requests = lambda: [ready.pop() for _ in list(ready)]
        loop.worker._sharing.admitted(BUSY, 0)
        reqs: list[Any] = []
        came, began = 6, 0

        def request(tokens: int) -> Any:
            start = 5 * len(reqs)
            reqs.append(loop.submit(f"r{len(reqs)}", range(start, start + 5), tokens))
            return reqs[-1]

        def each(iteration: int) -> None:
            nonlocal began
            if iteration == 1:
                for _ in range(8):
                    request(200)
            if iteration == came:
                planner.order(request(10).laps_handle)
            if came < iteration <= 10 * PATIENCE and not iteration % (PATIENCE - 1):
                late = request(10)
                scheduler.waiting_queue.remove(late)  # until SGLang asks for those who are ready
                loop.worker.ledger.rejected(late)
                ready.append(late)
            if len(reqs) > 8 and reqs[8].output_ids and not began:
                began = iteration

        finish(loop, reqs, each)
        assert 0 < began - came <= PATIENCE + 4
    finally:
        loop.close()


@pytest.mark.parametrize(("speculative", "overlap"), MODES)
def test_a_random_load_that_shares_prefills_loses_nothing(speculative: bool, overlap: bool) -> None:
    """`run_random_load` fails if a request is aborted, its text differs, or anything leaks."""
    largest = 0

    def each(loop: RealLoop, reqs: list[Any]) -> None:
        nonlocal largest
        if len(reqs) == 1:
            loop.worker._sharing.admitted(BUSY, 0)
        batches = loop.scheduler.model_worker.batches[-1:]
        largest = max([largest, *(len(rids) for mode, rids in batches if mode == "EXTEND")])

    for seed in range(3):
        setup = Setup(speculative, overlap, slots=12, kv_tokens=230, seed=seed)
        load = Load(
            seed, requests=24, aborts=5, tokens=(20, 60), longest_prompt=20, scarce_memory=True
        )
        assert run_random_load(setup, load, each)["pauses"] > 0
    assert largest > 2
