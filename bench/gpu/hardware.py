"""Which GPU and which cores of the host those have that are measured at the same time."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpu(number: int) -> dict[str, str]:
    """Return the environment of a process that sees one GPU, of those that this one sees."""
    seen = os.environ.get(VISIBLE)
    return {VISIBLE: seen.split(",")[number] if seen else str(number)}


def cores_of(share: int, shares: int) -> set[int]:
    """Return one of so many equal shares of the cores that this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    each = max(len(cores) // shares, 1)
    first = share * each % len(cores)
    return set(cores[first : first + each])


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
