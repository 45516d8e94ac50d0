"""Another simulator of the same assumptions, for two policies: no engine, no reports, no plans.

It goes from event to event (an arrival or an end, at the boundary after it), not from round to
round, so that a million requests take half a minute. Whoever arrives is known at the next boundary,
where the simulator proper knows it one boundary later if it has to displace another.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush, heappushpop

import numpy as np

from sim.physics import Physics
from sim.workload import Floats, Workload


def latencies(workload: Workload, physics: Physics, shortest: bool) -> Floats:
    """Return the latency of each request on one worker, without prefills and memory limits.

    Fewest rounds left first if `shortest`, else first come first served.
    """
    arrival_s, rounds = workload.arrival_s.tolist(), workload.rounds.counts.tolist()
    latency_s = np.empty(len(workload))
    # Places in the order of service, with the rounds left.
    waiting: list[tuple[int, int, int]] = []
    running: list[tuple[int, int, int]] = []
    now_s, came = 0.0, 0
    while came < len(workload) or waiting or running:
        if not waiting and not running:
            now_s = max(now_s, arrival_s[came])
        while came < len(workload) and arrival_s[came] <= now_s:
            place = rounds[came] if shortest else 0
            heappush(waiting, (place, came, rounds[came]))
            came += 1
        while waiting and len(running) < physics.max_running:
            running.append(heappop(waiting))
        running.sort()
        while waiting and waiting[0] < running[-1]:
            running[-1] = heappushpop(waiting, running[-1])
            running.sort()
        round_s = physics.round_time.seconds(len(running))
        count = min(left for _, _, left in running)
        if came < len(workload):
            count = min(count, max(math.ceil((arrival_s[came] - now_s) / round_s), 1))
        now_s += count * round_s
        still = []
        for place, index, left in running:
            if left == count:
                latency_s[index] = now_s - arrival_s[index]
            else:
                still.append((place - count if shortest else 0, index, left - count))
        running = still
    return latency_s
