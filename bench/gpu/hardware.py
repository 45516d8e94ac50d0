"""A GPU and cores of the host for each of those that are measured at the same time."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu.servers import GPU, MeasurementError

VISIBLE = "CUDA_VISIBLE_DEVICES"
TOPOLOGY = Path("/sys/devices/system/cpu")


def visible_gpu(number: int) -> dict[str, str]:
    """Return the environment of a process that sees one GPU, of those that this one sees."""
    if not GPU:
        return {}
    seen = os.environ.get(VISIBLE)
    return {VISIBLE: seen.split(",")[number] if seen else str(number)}


def cores_of(share: int, shares: int) -> set[int]:
    """Return one of so many equal shares of the cores that this process may use.

    Threads of one physical core are of one share. Raises MeasurementError if there are too few.
    """
    cores = sorted(os.sched_getaffinity(0), key=lambda core: (_physical(core), core))
    if len(cores) < shares:
        raise MeasurementError(f"{shares} at the same time on {len(cores)} cores: use fewer GPUs")
    each = len(cores) // shares
    return set(cores[share * each : (share + 1) * each])


def _physical(core: int) -> int:
    """Return a number that threads of the same physical core have in common."""
    try:
        siblings = (TOPOLOGY / f"cpu{core}/topology/thread_siblings_list").read_text()
        return int(re.split("[,-]", siblings)[0])
    except (OSError, ValueError):
        return core


def pin(cores: Collection[int]) -> None:
    """Keep this thread, and the processes that it starts from now on, on `cores`."""
    os.sched_setaffinity(0, cores)


@contextmanager
def pinned(cores: Collection[int]) -> Iterator[None]:
    """Keep this thread on `cores` for a while, and the processes that it starts meanwhile."""
    before = os.sched_getaffinity(0)
    pin(cores)
    try:
        yield
    finally:
        pin(before)
