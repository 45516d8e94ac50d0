"""Processes that die and clients that leave, in mid-load: no request is lost, none stays behind."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

from e2e.load import SteadyLoad, long_request, openai_client
from e2e.servers import assert_clean, laps_block, processes, until
from e2e.stock import Stock, jobs_of
from e2e.system import MAX_RUNNING, VARIANT, System
from laps.client import Phase


def steady_load(system: System) -> SteadyLoad:
    return SteadyLoad(system.server.base_url, jobs_of(VARIANT), clients=4 * MAX_RUNNING)


def test_kill_and_restart_of_the_service(system: System, stock: Stock) -> None:
    expected = stock.outputs(VARIANT)

    def serves_on(load: SteadyLoad) -> bool:
        enough = len(load.outputs) + load.clients
        return until(lambda: len(load.outputs) >= enough or bool(load.errors))

    with steady_load(system).running() as load:
        assert until(lambda: laps_block(system.server)["paused"] > 0)
        assert until(lambda: system.decided_by() == "service")
        system.service.kill()
        assert until(lambda: system.decided_by() == "embedded engine")
        assert serves_on(load)
        system.service.start()
        assert until(lambda: system.decided_by() == "service")
        assert until(lambda: system.live() == load.unfinished())
        assert system.worker().attached
        assert serves_on(load)
    assert load.errors == []
    assert [output for _, output in load.outputs] == [expected[job.name] for job, _ in load.outputs]
    assert_clean(system.server)
    assert until(lambda: system.live() == set())


def test_a_client_that_leaves_while_its_request_is_paused(system: System) -> None:
    with openai_client(system.server.base_url) as client, ExitStack() as others:
        rivals = [f"rival{number}" for number in range(MAX_RUNNING)]
        with long_request(client, "victim", {"predicted_tokens": 1400}) as stream:
            next(stream)
            for rid in rivals:
                next(others.enter_context(long_request(client, rid, {"predicted_tokens": 200})))
            assert until(lambda: system.phase("victim") is Phase.PAUSED)
            assert laps_block(system.server)["paused"] == 1
        assert until(lambda: system.phase("victim") is Phase.ABORTED)
        # It left from its pause: those in its way are still under way.
        assert system.live() == set(rivals)
        assert until(lambda: laps_block(system.server)["paused"] == 0)
    assert until(lambda: {system.phase(rid) for rid in rivals} == {Phase.ABORTED})
    assert_clean(system.server)


def test_sigterm_of_the_server_in_mid_load(system: System, stock: Stock) -> None:
    """The last test of the system: it ends the server."""
    expected = stock.outputs(VARIANT)
    group = system.server.pid
    with steady_load(system).running() as load:
        assert until(lambda: laps_block(system.server)["paused"] > 0)
        load.stop()
        # Each has arrived: SGLang may refuse what comes after the signal.
        assert until(lambda: system.live() == load.unfinished())
        os.kill(group, signal.SIGTERM)
    assert until(lambda: not processes(group)), processes(group)
    # SGLang answers what it has before it goes, paused requests too.
    assert load.errors == []
    assert [output for _, output in load.outputs] == [expected[job.name] for job, _ in load.outputs]
    assert until(lambda: not system.worker().attached)
    assert system.live() == set()
