"""SGLang's real loop under the real service over a real socket, and under services gone wrong.

In every case serving goes on: all requests finish, with the same text, and nothing leaks.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.fake_model import VOCABULARY, reference
from engine.real_loop import RealLoop
from engine.real_scheduler import Setup
from laps import wire
from laps.engine.types import PolicySpec
from laps.v1 import common_pb2, worker_pb2, worker_pb2_grpc
from laps_sglang.planner import NOBODY, PlannerProcess
from laps_sglang.planner import Setup as PlannerSetup
from testbed.service import LapsService

pytestmark = pytest.mark.engine

REQUESTS = 24
PATIENCE_S = 120.0
"""Longest wait for something that must come; a busy machine may be very slow."""
TTL_S = 0.2
"""How long a service that says so may be silent."""
Each = Callable[[int, PlannerProcess], None]


def serve_all(endpoint: str, each: Each, seen: Callable[[], bool] = lambda: True) -> PlannerProcess:
    """Serve a load under the service at `endpoint`; `each` acts at every iteration.

    The load goes on until `seen`: what comes of time comes late on a busy machine.
    """
    loop = RealLoop(Setup(slots=16, max_running=4))
    identity = wire.WorkerIdentity("test/dp0", time.time_ns())
    setup = PlannerSetup(identity, PolicySpec("laps-sd"), endpoint)
    planner = PlannerProcess(setup, loop.worker.snapshot)
    try:
        loop.plan_with(planner)
        rng = random.Random(0)
        reqs: list[Any] = []

        assert settled(planner, "service", "embedded engine")

        def script(iteration: int) -> bool:
            time.sleep(0.004)  # about the pace of a small model
            each(iteration, planner)
            if iteration % 8 == 0 and (len(reqs) < REQUESTS or not seen()):
                prompt = [rng.randrange(VOCABULARY) for _ in range(10)]
                reqs.append(loop.submit(f"r{len(reqs)}", prompt, rng.randint(20, 120)))
            done = len(reqs) >= REQUESTS and all(req.finished() for req in reqs)
            return done and seen() and loop.scheduler.is_fully_idle()

        loop.run(script, limit=20_000)
        for req in reqs:
            tokens = req.sampling_params.max_new_tokens
            assert list(req.output_ids)[:tokens] == reference(list(req.origin_input_ids), tokens)
        loop.check_no_leak()
        return planner
    finally:
        planner.close()
        loop.close()


def decided_by(planner: PlannerProcess) -> object:
    """Who decides, from the planner process's last word on it."""
    planner.newest()
    return planner.describe()["decided_by"]


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def settled(planner: PlannerProcess, *deciders: object) -> bool:
    """Let the planner process say who decides until it is one of `deciders`."""

    def asked() -> bool:
        planner.submit(None)
        return decided_by(planner) in deciders

    return until(asked)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LapsService]:
    """One that may be as slow as the machine is: it counts as away when its stream breaks off."""
    with LapsService("--plan-ttl-s", "600", log_path=tmp_path / "laps.log") as running:
        yield running


def test_the_service_decides(service: LapsService) -> None:
    deciders: list[object] = []

    def each(iteration: int, planner: PlannerProcess) -> None:
        assert iteration > 1 or settled(planner, "service")
        deciders.append(decided_by(planner))

    serve_all(service.address, each)
    assert set(deciders) == {"service"}


def test_kill_and_restart_of_the_service(service: LapsService) -> None:
    deciders: list[object] = []

    def each(iteration: int, planner: PlannerProcess) -> None:
        if iteration == 1:
            assert settled(planner, "service")
        if iteration == 51:
            service.kill()
            assert settled(planner, "embedded engine")
        if iteration == 101:
            service.start()
            assert settled(planner, "service")
        deciders.append(decided_by(planner))

    serve_all(service.address, each)
    assert set(deciders[:50]) == {"service"}
    assert set(deciders[50:100]) == {"embedded engine"}
    assert set(deciders[100:]) == {"service"}


def test_a_service_that_stalls_is_given_up_and_taken_back(tmp_path: Path) -> None:
    given_up = False
    with LapsService("--plan-ttl-s", str(TTL_S), log_path=tmp_path / "laps.log") as service:

        def each(iteration: int, planner: PlannerProcess) -> None:
            nonlocal given_up
            if iteration == 1:
                assert settled(planner, "service")
            if iteration == 51:
                os.kill(service.pid, signal.SIGSTOP)
            if iteration > 51 and not given_up and decided_by(planner) == "embedded engine":
                given_up = True
                os.kill(service.pid, signal.SIGCONT)
                assert settled(planner, "service")

        serve_all(service.address, each, seen=lambda: given_up)


def test_a_planner_process_that_dies_is_replaced(service: LapsService) -> None:
    deciders: list[object] = []

    def each(iteration: int, planner: PlannerProcess) -> None:
        if iteration == 1:
            assert settled(planner, "service")
        if iteration == 51:
            os.kill(planner.pid, signal.SIGKILL)
            os.waitid(os.P_PID, planner.pid, os.WEXITED | os.WNOWAIT)
        if iteration == 151:
            assert settled(planner, "service")
        deciders.append(decided_by(planner))

    planner = serve_all(service.address, each)
    assert NOBODY in deciders[50:150]
    assert planner.describe()["planner_restarts"] == 1


Answer = Callable[[int, worker_pb2.WorkerMessage], worker_pb2.ServiceMessage | None]


class FakeService(worker_pb2_grpc.WorkerLinkServicer):
    """Answers every message with what `answer` makes of it; None is no answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.streams = 0

    def Attach(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.streams += 1
        for index, message in enumerate(request_iterator):
            answer = self._answer(index, message)
            if answer is not None:
                yield answer


@contextmanager
def fake_service(answer: Answer) -> Iterator[tuple[str, FakeService]]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    fake = FakeService(answer)
    worker_pb2_grpc.add_WorkerLinkServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", fake
    finally:
        server.stop(None)


WELCOME = worker_pb2.ServiceMessage(welcome=worker_pb2.Welcome(plan_ttl_s=TTL_S, protocol=1))


def plan(**fields: Any) -> worker_pb2.ServiceMessage:
    return worker_pb2.ServiceMessage(plan=worker_pb2.Plan(**fields))


def _step(message: worker_pb2.WorkerMessage) -> int:
    return message.report.step


NONSENSE: dict[str, Answer] = {
    "unknown and repeated handles": lambda i, m: (
        plan(seq=i, step=_step(m), order=[7, 7, 4_000_000_000, 0, 7], horizon=4_000_000_000)
        if i
        else WELCOME
    ),
    "a plan from the future": lambda i, _: plan(seq=i, step=10**9) if i else WELCOME,
    "unchanged against nothing": lambda i, _: plan(seq=77, unchanged=True) if i else WELCOME,
    "plans before any welcome": lambda i, m: plan(seq=i + 1, step=_step(m), order=[1]),
    "an empty message": lambda *_: worker_pb2.ServiceMessage(),
    "a policy that is no JSON": lambda *_: worker_pb2.ServiceMessage(
        welcome=worker_pb2.Welcome(
            policy=common_pb2.PolicySpec(name="laps-sd", parameters_json="[1"), protocol=1
        )
    ),
    "another contract": lambda *_: worker_pb2.ServiceMessage(
        welcome=worker_pb2.Welcome(protocol=77)
    ),
    "silence after the welcome": lambda i, _: WELCOME if i == 0 else None,
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_service_that_talks_nonsense(kind: str) -> None:
    with fake_service(NONSENSE[kind]) as (address, fake):

        def each(iteration: int, planner: PlannerProcess) -> None:
            assert iteration > 1 or until(lambda: fake.streams >= 1)

        serve_all(address, each)


def test_a_policy_that_only_the_service_knows() -> None:
    """It plans for a while and dies: the engine that stands in goes by the policy it has."""
    policy = common_pb2.PolicySpec(name="of-a-newer-service")
    welcome = worker_pb2.Welcome(policy=policy, plan_ttl_s=TTL_S, protocol=1)

    def answer(index: int, message: worker_pb2.WorkerMessage) -> worker_pb2.ServiceMessage | None:
        if index == 0:
            return worker_pb2.ServiceMessage(welcome=welcome)
        return plan(seq=index, step=_step(message)) if index < 60 else None

    deciders: list[object] = []

    def each(_: int, planner: PlannerProcess) -> None:
        deciders.append(decided_by(planner))

    def taken_over() -> bool:
        return "service" in deciders and deciders[-1] == "embedded engine"

    with fake_service(answer) as (address, _):
        serve_all(address, each, seen=taken_over)


def test_no_service_at_all() -> None:
    planner = serve_all("127.0.0.1:9", lambda *_: None)
    assert decided_by(planner) == "embedded engine"
