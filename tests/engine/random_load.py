"""A random load under plans that know nothing: every iteration another order and another cap."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.fake_model import VOCABULARY, reference
from engine.real_loop import RealLoop
from engine.real_scheduler import Setup
from laps.engine.types import Plan, StepReport
from laps_sglang.ledger import handle_of
from laps_sglang.worker import Worker


class RandomPlanner:
    """Gives a plan of random order at random iterations, and moves the worker's cap up to `most`.

    The cap is this rank's alone: with tensor parallelism it must stay (None).
    """

    def __init__(self, worker: Worker, rng: random.Random, change: float, most: int | None) -> None:
        self._worker = worker
        self._rng = rng
        self._change = change
        self._most = most
        self._live: set[int] = set()
        self._plan = Plan()
        self.reports: list[StepReport] = []

    def submit(self, report: StepReport | None) -> None:
        if report is not None:
            self.reports.append(report)
            self._live.update(arrival.handle for arrival in report.arrived)
            self._live.difference_update(report.finished, report.aborted)

    def newest(self) -> Plan:
        if self._rng.random() < self._change:
            order = [handle for handle in sorted(self._live) if self._rng.random() < 0.8]
            self._rng.shuffle(order)
            self._plan = Plan(self._plan.seq + 1, 0, tuple(order), max(self._live, default=0))
            if self._most is not None:
                cap = self._rng.randint(1, self._most)
                self._worker.capacity = dataclasses.replace(self._worker.capacity, max_running=cap)
        return self._plan

    @property
    def seq(self) -> int:
        return 0

    def describe(self) -> dict[str, object]:
        return {}

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Load:
    """A random load; everything follows from the seed."""

    seed: int
    requests: int = 14
    change: float = 0.7
    """Share of iterations that get a new plan."""
    aborts: int = 0
    longest_prompt: int = 40
    tokens: tuple[int, int] = (5, 60)
    penalties: bool = False
    stops: bool = False
    """Let requests end at a token, or at a string, that comes long before `max_new_tokens`."""
    scarce_memory: bool = False
    """Let SGLang admit far more than the KV pool will hold, and few run at once."""


Check = Callable[[RealLoop, list[Any]], None]


def run_random_load(setup: Setup, load: Load, every_iteration: Check | None = None) -> Counter[str]:
    """Run `load`; check texts, homes, aborts, reports and memory; return the worker's counters."""
    rng = random.Random(load.seed)
    loop = RealLoop(setup)
    if load.scarce_memory:
        loop.expect_answers(0.05)
    try:
        most = 2 if load.scarce_memory else setup.slots
        planner = RandomPlanner(loop.worker, random.Random(load.seed + 1), load.change, most)
        loop.plan_with(planner)
        reqs: list[Any] = []
        aborted: set[str] = set()
        aborted_paused: set[str] = set()

        def script(iteration: int) -> bool:
            if iteration % 2 and len(reqs) < load.requests:
                prompt = [
                    rng.randrange(VOCABULARY) for _ in range(rng.randint(3, load.longest_prompt))
                ]
                tokens = rng.randint(*load.tokens)
                options: dict[str, Any] = {}
                if load.penalties and len(reqs) % 3:
                    options["frequency_penalty"] = 0.1
                if load.stops:
                    last = reference(prompt, tokens)[tokens // 3]
                    by_token = len(reqs) % 2 == 0
                    options = {"stop_token_ids": [last]} if by_token else {"stop": f"<{last}>"}
                reqs.append(loop.submit(f"r{len(reqs):03d}", prompt, tokens, **options))
            if len(aborted) < load.aborts and iteration % 9 == 0:
                _abort_one(loop, reqs, rng, aborted, aborted_paused)
            _one_home_each(loop)
            if every_iteration is not None:
                every_iteration(loop, reqs)
            return (
                len(reqs) == load.requests
                and all(req.finished() or req.rid in aborted for req in reqs)
                and loop.scheduler.is_fully_idle()
            )

        loop.run(script)
        for req in reqs:
            if req.rid in aborted_paused:
                assert type(req.finished_reason).__name__ == "FINISH_ABORT"
            elif req.rid not in aborted:
                _same_text(req, setup)
        loop.check_no_leak()
        _reports_add_up(planner.reports, reqs, aborted)
        counters = Counter(loop.worker.counters)
        return counters + Counter(
            {
                "demotions": loop.worker.memory.demotions,
                "aborted": len(aborted),
                "aborted_paused": len(aborted_paused),
                "requests": len(reqs),
            }
        )
    finally:
        loop.close()


def _abort_one(
    loop: RealLoop,
    reqs: list[Any],
    rng: random.Random,
    aborted: set[str],
    aborted_paused: set[str],
) -> None:
    """Abort one live request, a paused one if there is any, and note its id."""
    from sglang.srt.managers.io_struct import AbortReq

    live = [req for req in reqs if not req.finished() and req.rid not in aborted]
    paused = {req.rid for req in loop.worker.paused.reqs if not req.finished()}
    choice = [req for req in live if req.rid in paused] or live
    if choice:
        rid = rng.choice(choice).rid
        aborted.add(rid)
        if rid in paused:
            aborted_paused.add(rid)
        loop.scheduler.abort_request(AbortReq(rid=rid))


def _one_home_each(loop: RealLoop) -> None:
    homes = [
        id(req)
        for place in (
            loop.scheduler.waiting_queue,
            loop.scheduler.running_batch.reqs,
            loop.worker.paused.reqs,
        )
        for req in place
        if not req.finished()
    ]
    assert len(homes) == len(set(homes)), "a request is in two places"
    # Idle, SGLang would take the paused requests' KV cache for a leak.
    assert not (loop.worker.paused and loop.scheduler.is_fully_idle())


def _same_text(req: Any, setup: Setup) -> None:
    params = req.sampling_params
    expected = reference(list(req.origin_input_ids), params.max_new_tokens)
    if params.frequency_penalty and not setup.speculative:
        # The overlap loop itself misses a token's count whenever a prefill comes in between, so
        # that there is no one text to hold on to.
        expected = [] if setup.overlap else _text_alone(req, setup)
    if stops := [*(params.stop_token_ids or ()), *(int(s[1:-1]) for s in params.stop_strs)]:
        expected = expected[: expected.index(stops[0]) + 1]
        assert type(req.finished_reason).__name__.startswith("FINISH_MATCHED")
        assert list(req.output_ids_through_stop) == expected, f"{req.rid}: another text"
    assert list(req.output_ids)[: len(expected)] == expected, f"{req.rid}: another text"
    assert type(req.finished_reason).__name__ != "FINISH_ABORT", f"{req.rid} was aborted"


def _text_alone(req: Any, setup: Setup) -> list[int]:
    """Return what `req` gets when it never pauses: alone in a loop without a planner."""
    loop = RealLoop(dataclasses.replace(setup, max_running=None))
    try:
        params = req.sampling_params
        alone = loop.submit(
            "alone",
            list(req.origin_input_ids),
            params.max_new_tokens,
            frequency_penalty=params.frequency_penalty,
        )
        loop.run(lambda _: alone.finished() and loop.scheduler.is_fully_idle())
        assert not loop.worker.counters["pauses"]
        return list(alone.output_ids)[: params.max_new_tokens]
    finally:
        loop.close()


def _reports_add_up(reports: list[StepReport], reqs: list[Any], aborted: set[str]) -> None:
    """Every request arrives once, leaves once, and the tokens reported are the tokens it got."""
    assert [report.step for report in reports] == list(range(1, len(reports) + 1))
    arrived = [a.rid for report in reports for a in report.arrived]
    assert sorted(arrived) == sorted(req.rid for req in reqs)
    finished = [h for report in reports for h in report.finished]
    gone = [h for report in reports for h in report.aborted]
    assert len(set(finished) | set(gone)) == len(finished) + len(gone) == len(reqs)
    rid_of = {handle_of(req): req.rid for req in reqs}
    assert {rid_of[h] for h in gone} <= aborted
    tokens: Counter[int] = Counter()
    for report in reports:
        tokens.update(report.prefilled)
        tokens.update(dict(zip(report.decoded, report.committed, strict=True)))
    for req in reqs:
        if req.rid not in aborted:
            assert tokens[req.laps_handle] >= len(req.output_ids), f"{req.rid}: tokens missing"
