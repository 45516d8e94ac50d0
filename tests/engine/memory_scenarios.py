"""What becomes of paused requests when KV cache or slots are short, as scenarios.

Each fails without one of the hooks (see test_hooks.py).
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from sglang.srt.managers.io_struct import AbortReq

from engine.one_at_a_time import FixedPlanner, finish, one_at_a_time, run_until_idle, same_texts
from engine.random_load import Load, run_random_load
from engine.real_loop import RealLoop
from engine.real_scheduler import Setup


def scarce_memory() -> None:
    """Paused requests are demoted before a running one is retracted or lost."""
    load = Load(seed=0, requests=12, tokens=(30, 70), longest_prompt=20, scarce_memory=True)
    assert run_random_load(Setup(slots=12, kv_tokens=230), load)["demotions"] > 0


def the_least_loss_goes_first_then_the_worst_rank() -> None:
    """Of three paused requests, the one with the fewest tokens of its own gives way to a newcomer.

    r1 is the longest, but most of it is a prefix that r0 had brought; r2 and r3 lose more.
    """
    with one_at_a_time(slots=4) as (loop, planner):
        prefix = list(range(60))
        prompts = [prefix, [*prefix, 1], [*range(200, 230)], [*range(300, 330)], [7, 8]]
        reqs: list[Any] = []
        demoted: list[str] = []

        def each(iteration: int) -> None:
            if iteration % 6 == 1 and len(reqs) < 5:
                reqs.append(loop.submit(f"r{len(reqs)}", prompts[len(reqs)], 60))
                planner.order(*range(len(reqs), 0, -1))
            demoted.extend(r.rid for r in reqs if r.is_retracted and r.rid not in demoted)

        assert finish(loop, reqs, each)[0] == "r4"
        assert demoted == ["r1"]
        same_texts(reqs)


def a_better_newcomer_takes_a_slot() -> None:
    """All slots are held: the newcomer need not wait for a resident to finish. A worse one does."""
    for rank, demotions in ((0, 1), (3, 0)):
        with one_at_a_time(slots=3) as (loop, planner):
            reqs: list[Any] = []

            def each(
                iteration: int,
                reqs: list[Any] = reqs,
                loop: RealLoop = loop,
                planner: FixedPlanner = planner,
                rank: int = rank,
            ) -> None:
                if iteration % 6 == 1 and len(reqs) < 4:
                    reqs.append(loop.submit(f"r{len(reqs)}", range(len(reqs), 9), 50))
                    order = list(range(len(reqs), 0, -1)) if len(reqs) < 4 else [3, 2, 1]
                    if len(reqs) == 4:
                        order.insert(rank, 4)
                    planner.order(*order)

            assert finish(loop, reqs, each).index("r3") == rank
            assert loop.worker.memory.demotions == demotions
            same_texts(reqs)


def nobody_starts_anew_whom_sglang_would_answer_otherwise() -> None:
    """All slots are held by requests that cannot be admitted again: the best newcomer waits."""
    for sampling, as_sent in (
        ({"presence_penalty": 0.1}, {}),
        ({"min_new_tokens": 2}, {}),
        ({"stop": "never"}, {}),
        ({"stop_regex": "never"}, {}),
        # The model takes the likeliest token all the same.
        ({}, {"top_k": 5, "min_p": 0.1}),
        ({}, {"top_k": 5, "sampling_seed": 7}),
    ):
        _the_best_newcomer_waits(sampling, as_sent)


def _the_best_newcomer_waits(sampling: dict[str, Any], as_sent: dict[str, Any]) -> None:
    with one_at_a_time(slots=2) as (loop, planner):
        reqs: list[Any] = []

        def each(iteration: int) -> None:
            if iteration % 6 == 1 and len(reqs) < 3:
                req = loop.submit(f"r{len(reqs)}", range(len(reqs), 9), 50, **sampling)
                for name, value in as_sent.items():
                    setattr(req.sampling_params, name, value)
                reqs.append(req)
                planner.order(*range(len(reqs), 0, -1))

        assert finish(loop, reqs, each)[0] != "r2", sampling | as_sent
        assert loop.worker.memory.demotions == 0


def a_better_newcomer_takes_memory() -> None:
    """The KV cache is promised to paused requests: the best of all is admitted nevertheless.

    But not if all of them together could not make it fit: then none of them is demoted.
    """
    for tokens, demotions in ((60, 1), (130, 0)):
        with one_at_a_time(kv_tokens=200) as (loop, planner):
            loop.expect_answers(1.0)
            reqs: list[Any] = []
            demoted: list[int] = []  # while both residents are there

            def each(
                iteration: int,
                reqs: list[Any] = reqs,
                demoted: list[int] = demoted,
                loop: RealLoop = loop,
                planner: FixedPlanner = planner,
                tokens: int = tokens,
            ) -> None:
                if iteration % 6 == 1 and len(reqs) < 3:
                    last = len(reqs) == 2
                    reqs.append(
                        loop.submit(f"r{len(reqs)}", range(len(reqs), 9), tokens if last else 70)
                    )
                    planner.order(*range(len(reqs), 0, -1))
                if not any(req.finished() for req in reqs):
                    demoted.append(loop.worker.memory.demotions)

            first = finish(loop, reqs, each)[0]
            assert (first == "r2") == bool(demotions)
            assert demoted[-1] == demotions
            same_texts(reqs)


def a_swap_without_memory_loses_nothing() -> None:
    """A row that was paused a moment ago cannot be demoted; nor may the other one be aborted."""
    for kv_tokens in (70, 80, 90):
        for overlap in (True, False):
            with one_at_a_time(kv_tokens=kv_tokens, overlap=overlap) as (loop, planner):
                loop.expect_answers(0.05)
                reqs = [loop.submit(f"r{i}", range(5 + i, 10 + i), 40) for i in range(2)]

                def each(iteration: int, planner: FixedPlanner = planner) -> None:
                    planner.order(*((1, 2) if iteration % 2 else (2, 1)))

                finish(loop, reqs, each)
                same_texts(reqs)
                assert not loop.worker.ledger.live


def a_full_queue_takes_back_no_paused_request() -> None:
    """With SGLang's queue full a demotion would lose the request; and no lost one is remembered."""
    with one_at_a_time(kv_tokens=120) as (loop, planner):
        loop.expect_answers(0.05)
        loop.scheduler.max_queued_requests = 0
        planner.order(2, 1)
        reqs: list[Any] = []

        def each(iteration: int) -> None:
            if iteration in (1, 6):
                loop.scheduler.max_queued_requests = None
                reqs.append(loop.submit(f"r{len(reqs)}", range(5 + iteration, 10 + iteration), 70))
            elif not loop.scheduler.waiting_queue:
                loop.scheduler.max_queued_requests = 0

        run_until_idle(loop, lambda: len(reqs) == 2, each)
        assert loop.worker.memory.demotions == 0
        assert not loop.worker.ledger.live


def a_full_queue_takes_no_newcomer() -> None:
    """SGLang refuses a request that it has no room to queue; the plugin has never heard of it."""
    with one_at_a_time() as (loop, _):
        loop.scheduler.max_queued_requests = 0
        refused: list[Any] = []
        loop.scheduler.ipc_channels = SimpleNamespace(
            send_to_tokenizer=SimpleNamespace(send_output=lambda out, req: refused.append(req))
        )
        req = loop.submit("r0", range(5), 20)
        assert refused == [req]
        assert not loop.worker.ledger.live


def admission_reopens_when_a_row_pauses() -> None:
    """A newcomer that outranks the running request gets the slot that another one has left."""
    with one_at_a_time(slots=2, overlap=False) as (loop, planner):
        reqs: dict[str, Any] = {}
        first_token_of_d = 0

        def each(iteration: int) -> None:
            nonlocal first_token_of_d
            if iteration == 1:
                reqs["a"] = loop.submit("a", range(5), 150)
                planner.order(1)
            elif iteration == 4:
                reqs["b"] = loop.submit("b", range(6), 20)
                planner.order(2, 1)
            elif iteration == 8:
                planner.order(1, 2)
            elif iteration == 12:  # finds both slots taken: SGLang notes that it is full
                reqs["c"] = loop.submit("c", range(7), 20)
                planner.order(3, 2, 1)
            elif iteration == 14:
                loop.scheduler.abort_request(AbortReq(rid="c"))
            elif "d" not in reqs and iteration > 14 and reqs["b"].finished():
                reqs["d"] = loop.submit("d", range(8), 10)
                planner.order(4, 1)
            elif "d" in reqs and reqs["d"].output_ids and not first_token_of_d:
                first_token_of_d = len(reqs["a"].output_ids)

        run_until_idle(loop, lambda: "d" in reqs, each)
        assert 0 < first_token_of_d < 100


def paused_requests_count_in_admission() -> None:
    """A request is not admitted into memory that paused requests will need."""
    with one_at_a_time(kv_tokens=300) as (loop, planner):
        loop.expect_answers(1.0)
        reqs: list[Any] = []
        residents = []

        def each(iteration: int) -> None:
            # Each newcomer outranks those before it: two fit, the third does not.
            if iteration % 4 == 1 and len(reqs) < 3:
                reqs.append(loop.submit(f"r{len(reqs)}", range(10), 100))
                planner.order(*range(len(reqs), 0, -1))
            residents.append(len(loop.worker.paused) + len(loop.scheduler.running_batch.reqs))

        finish(loop, reqs, each)
        assert max(residents) == 2


MEMORY_SCENARIOS: tuple[Callable[[], None], ...] = (
    paused_requests_count_in_admission,
    a_swap_without_memory_loses_nothing,
    a_full_queue_takes_no_newcomer,
    a_full_queue_takes_back_no_paused_request,
    admission_reopens_when_a_row_pauses,
    the_least_loss_goes_first_then_the_worst_rank,
    a_better_newcomer_takes_a_slot,
    nobody_starts_anew_whom_sglang_would_answer_otherwise,
    a_better_newcomer_takes_memory,
    scarce_memory,
)
