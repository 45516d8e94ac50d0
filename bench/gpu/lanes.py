"""What is measured at the same time: on each GPU, and on cores of its own, one policy."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from gpu.hardware import cores_of, pin, pinned, visible_gpu
from gpu.load import Clients
from gpu.systems import System, start_systems, system_of

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Lane:
    """One GPU, the systems on it, and the clients that load them."""

    systems: dict[str, System]
    clients: Clients
    thread: ThreadPoolExecutor
    """One, so that it does one thing at a time; on the lane's cores, as all that it starts."""

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have the lane do something, when it has done what it was given before."""
        return self.thread.submit(function, *args, **kwargs)


@contextmanager
def started_lanes(
    options: argparse.Namespace,
    name: str,
    policies: Sequence[Collection[str]],
    environment: Mapping[str, str],
) -> Iterator[list[Lane]]:
    """Start what the `policies` of each lane need, all at once; stop all."""
    count = len(policies)
    cores = [cores_of(number, count) for number in range(count)]
    with ExitStack() as stack:
        # Ended in the other order: clients see their servers go, and threads their clients.
        threads = [
            stack.enter_context(ThreadPoolExecutor(1, initializer=pin, initargs=(mine,)))
            for mine in cores
        ]
        clients = [stack.enter_context(Clients()) for _ in range(count)]
        lanes = []
        for number, wanted in enumerate(policies):
            own, label = environment, name
            if count > 1:
                own, label = {**environment, **visible_gpu(number)}, f"{name}-{number}"
            with pinned(cores[number]):
                systems = start_systems(options, label, {*map(system_of, wanted)}, own, stack)
            lanes.append(Lane(systems, clients[number], threads[number]))
        for lane in lanes:
            for system in lane.systems.values():
                system.server.wait_until_ready()
        yield lanes


def all_of(futures: Sequence[Future[R]]) -> list[R]:
    """Return what all return, when the last one has; raise what the first that failed raises."""
    wait(futures)
    return [future.result() for future in futures]
