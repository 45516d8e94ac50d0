"""What each hook is for, as a scenario that fails without it (see test_hooks.py)."""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from typing import Any

from sglang.srt.managers.io_struct import GetInternalStateReqOutput, PauseGenerationReqInput
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.session.session_controller import Session, SessionReqNode

from engine.memory_scenarios import MEMORY_SCENARIOS
from engine.one_at_a_time import finish, one_at_a_time, same_texts
from engine.random_load import Load, run_random_load
from engine.real_loop import HOOKS
from engine.real_scheduler import NEWEST, Setup
from laps_sglang.compat import UnsupportedEngineError


def random_pauses() -> None:
    """Texts, homes, aborts, reports and memory under random plans."""
    for seed in range(2):
        run_random_load(Setup(seed=seed), Load(seed=seed, aborts=4))


def plan_order_is_served() -> None:
    """Requests finish in the plan's order, whatever the order of arrival."""
    with one_at_a_time() as (loop, planner):
        planner.order(4, 3, 2, 1)
        reqs: list[Any] = []

        def each(iteration: int) -> None:
            if iteration == 1:
                reqs.extend(loop.submit(f"r{i}", range(5), 20) for i in range(4))

        assert finish(loop, reqs, each) == ["r3", "r2", "r1", "r0"]


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

        finish(loop, reqs, each)
        assert retracted
        same_texts(reqs)


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
            assert finish(loop, reqs, each) == ["r0", "r1"]
    finally:
        del os.environ["SGLANG_REQ_RUNNING_TIMEOUT"]


def a_session_ends_the_paused_request_that_it_replaces() -> None:
    """A request that another one of its session replaces needs not wait for its turn to end."""
    with one_at_a_time() as (loop, planner):
        planner.order(2, 1)
        session = Session(0, "a session")
        reqs: list[Any] = []

        def each(iteration: int) -> None:
            if iteration in (1, 4):
                reqs.append(loop.submit(f"r{len(reqs)}", range(5), 100, session))
            elif iteration == 10:
                assert loop.worker.paused.reqs == reqs[:1]
                SessionReqNode(reqs[0]).abort()
                reqs.append(loop.submit("r2", range(6), 20, session))

        assert finish(loop, reqs, each) == ["r0", "r1", "r2"]


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
    retraction_of_the_whole_engine_finds_paused_requests,
    paused_requests_time_out,
    a_session_ends_the_paused_request_that_it_replaces,
    *MEMORY_SCENARIOS,
    random_pauses,
)
"""Cheap ones first: a mutant is tried on all of them until one fails."""
