"""The core that a thread is on: how fast it is, and how long the thread waited for one.

Virtual machines get threads of cores whose other thread is somebody else's, and clocks that go up
and down. A round that takes what Python takes goes with them, and nothing else tells.
"""

from __future__ import annotations

import time
from pathlib import Path

TURNS = 200
"""Of the loop: some 10 us."""
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


def loop_s() -> float:
    """Return what a small loop takes now, the same one everywhere, in seconds."""
    total, begin = 0, time.perf_counter()
    for turn in range(TURNS):
        total += turn * turn
    return time.perf_counter() - begin


def waited_s() -> float:
    """Return for how long this thread has been ready to run without a core, in seconds.

    0.0 where the system does not say (Documentation/scheduler/sched-stats.rst of Linux).
    """
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except OSError:
        return 0.0
