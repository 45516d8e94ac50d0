"""What each hook is for, as a scenario that fails without it (see test_hooks.py)."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sglang.srt.managers.io_struct import (
    AbortReq,
    GetInternalStateReqOutput,
    PauseGenerationReqInput,
)
from sglang.srt.managers.scheduler import Scheduler

from engine.fake_model import reference
from engine.random_load import Load, run_random_load
from engine.real_loop import HOOKS, RealLoop
from engine.real_scheduler import NEWEST, Setup
from laps.engine.types import Handle, Plan, StepReport
from laps_sglang.compat import UnsupportedEngineError


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


def _finish(loop: RealLoop, reqs: Sequence[Any], each: Callable[[int], None]) -> list[str]:
    """Run until all of `reqs` are done; return their ids in the order in which they finished."""
    done: list[str] = []

    def script(iteration: int) -> bool:
        each(iteration)
        done.extend(req.rid for req in reqs if req.finished() and req.rid not in done)
        return iteration > 20 and all(r.finished() for r in reqs) and loop.scheduler.is_fully_idle()

    loop.run(script)
    loop.check_no_leak()
    return done


def _run(loop: RealLoop, ready: Callable[[], bool], each: Callable[[int], None]) -> None:
    """Run until the scheduler is idle, once `ready`."""

    def script(iteration: int) -> bool:
        each(iteration)
        return iteration > 20 and ready() and loop.scheduler.is_fully_idle()

    loop.run(script)
    loop.check_no_leak()


def _same_texts(reqs: Sequence[Any]) -> None:
    for req in reqs:
        tokens = req.sampling_params.max_new_tokens
        assert list(req.output_ids)[:tokens] == reference(list(req.origin_input_ids), tokens)


def random_pauses() -> None:
    """Texts, homes, aborts, reports and memory under random plans."""
    for seed in range(2):
        run_random_load(Setup(seed=seed), Load(seed=seed, aborts=4))


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

        assert _finish(loop, reqs, each)[0] == "r4"
        assert demoted == ["r1"]
        _same_texts(reqs)


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

            assert _finish(loop, reqs, each).index("r3") == rank
            assert loop.worker.memory.demotions == demotions
            _same_texts(reqs)


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

            first = _finish(loop, reqs, each)[0]
            assert (first == "r2") == bool(demotions)
            assert demoted[-1] == demotions
            _same_texts(reqs)


def a_swap_without_memory_loses_nothing() -> None:
    """A row that was paused a moment ago cannot be demoted; nor may the other one be aborted."""
    for kv_tokens in (70, 80, 90):
        for overlap in (True, False):
            with one_at_a_time(kv_tokens=kv_tokens, overlap=overlap) as (loop, planner):
                loop.expect_answers(0.05)
                reqs = [loop.submit(f"r{i}", range(5 + i, 10 + i), 40) for i in range(2)]

                def each(iteration: int, planner: FixedPlanner = planner) -> None:
                    planner.order(*((1, 2) if iteration % 2 else (2, 1)))

                _finish(loop, reqs, each)
                _same_texts(reqs)
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

        _run(loop, lambda: len(reqs) == 2, each)
        assert loop.worker.memory.demotions == 0
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

        _run(loop, lambda: "d" in reqs, each)
        assert 0 < first_token_of_d < 100


def plan_order_is_served() -> None:
    """Requests finish in the plan's order, whatever the order of arrival."""
    with one_at_a_time() as (loop, planner):
        planner.order(4, 3, 2, 1)
        reqs: list[Any] = []

        def each(iteration: int) -> None:
            if iteration == 1:
                reqs.extend(loop.submit(f"r{i}", range(5), 20) for i in range(4))

        assert _finish(loop, reqs, each) == ["r3", "r2", "r1", "r0"]


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

        _finish(loop, reqs, each)
        assert max(residents) == 2


def retraction_of_the_whole_engine_finds_paused_requests() -> None:
    """SGLang's /pause_generation in mode "retract" gives all memory back, and no text changes."""
    with one_at_a_time() as (loop, planner):
        planner.order(3, 2, 1)
        reqs: list[Any] = []
        retracted = False

        def each(iteration: int) -> None:
            nonlocal retracted
            if iteration % 4 == 1 and len(reqs) < 3:
                reqs.append(loop.submit(f"r{len(reqs)}", range(5), 60))
            s = loop.scheduler
            if len(loop.worker.paused) == 2 and not retracted:
                retracted = True
                s.pause_generation(PauseGenerationReqInput(mode="retract"))
                free = s.token_to_kv_pool_allocator.available_size()
                assert free + s.tree_cache.evictable_size() == loop.setup.kv_tokens
                s._engine_paused = False

        _finish(loop, reqs, each)
        assert retracted
        _same_texts(reqs)


def paused_requests_time_out() -> None:
    """SGLang's limit on running time holds for paused requests too."""
    os.environ["SGLANG_REQ_RUNNING_TIMEOUT"] = "1000"
    try:
        with one_at_a_time() as (loop, planner):
            planner.order(2, 1)
            loop.scheduler._request_dispatcher = loop.scheduler.abort_request
            reqs: list[Any] = []

            def each(iteration: int) -> None:
                if iteration in (1, 4):
                    reqs.append(loop.submit(f"r{len(reqs)}", range(5), 400))
                for req in loop.worker.paused.reqs:
                    req.time_stats.forward_entry_time = 1e-9  # long overdue

            # Without the hook the paused one would outlive the running one.
            assert _finish(loop, reqs, each) == ["r0", "r1"]
    finally:
        del os.environ["SGLANG_REQ_RUNNING_TIMEOUT"]


def server_info_shows_the_plugin() -> None:
    """`/server_info` proves from outside that the server is patched."""
    with one_at_a_time() as (loop, _):
        s = loop.scheduler
        weights = types.SimpleNamespace(weight_load_mem_usage=0.0)
        s.tp_worker.model_runner, s.tp_worker.graph_memory_usage = weights, None
        s.token_to_kv_pool_allocator._kvcache = types.SimpleNamespace(mem_usage=0.0)
        vars(s).update(
            startup_available_gpu_memory_gb=1.0, startup_time=0.0, swa_tokens_per_layer=None
        )
        if NEWEST:
            output = GetInternalStateReqOutput(internal_state={})
            s.internal_state = types.SimpleNamespace(get_internal_state=lambda _: output)
        laps = s.get_internal_state(None).internal_state["laps"]
        assert laps["mode"] == "fixed"
        assert laps["max_running"] == 1


def unsupported_servers_are_refused_before_the_model_is_loaded() -> None:
    """The check runs before SGLang's own initialisation."""

    def refuse() -> None:
        raise UnsupportedEngineError("no")

    check, HOOKS._check = HOOKS._check, refuse
    try:
        Scheduler.__init__(object.__new__(Scheduler), None, None)
    except UnsupportedEngineError:
        return
    except Exception as error:
        raise AssertionError("SGLang went ahead") from error
    finally:
        HOOKS._check = check


SCENARIOS: tuple[Callable[[], None], ...] = (
    unsupported_servers_are_refused_before_the_model_is_loaded,
    server_info_shows_the_plugin,
    plan_order_is_served,
    paused_requests_count_in_admission,
    retraction_of_the_whole_engine_finds_paused_requests,
    paused_requests_time_out,
    a_swap_without_memory_loses_nothing,
    a_full_queue_takes_back_no_paused_request,
    admission_reopens_when_a_row_pauses,
    the_least_loss_goes_first_then_the_worst_rank,
    a_better_newcomer_takes_a_slot,
    a_better_newcomer_takes_memory,
    random_pauses,
    scarce_memory,
)
