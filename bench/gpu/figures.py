"""From what a run left behind to the figures of its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpu.load import Job, Timing
from gpu.workload import Pool

MEASURED = (0.1, 0.9)
"""Share of the requests, in order of arrival, that count: the others fill and empty the server."""
Row = dict[str, Any]
STEP_FIGURES = (
    *("accept_length", "running_mean", "step_p50_s", "step_p99_s"),
    *("round_s_by_running", "prefill_s"),
)
"""What the tap tells of a run; `round_s_by_running` is a list of (running, median seconds)."""


def latency_figures(pool: Pool, jobs: Sequence[Job], timings: Sequence[Timing]) -> Row:
    """Return the client's side of a run. Failed requests are counted, and left out of all else.

    `timings` are those of `jobs`, in the same order.
    """
    count = len(jobs)
    middle = range(int(MEASURED[0] * count), max(int(MEASURED[1] * count), 1))
    kept = [
        (pool.rounds[jobs[number].prompt], timings[number])
        for number in middle
        if timings[number].tokens
    ]
    latency_s = np.array([timing.done_s - timing.due_s for _, timing in kept])
    first_s = np.array([timing.first_s - timing.due_s for _, timing in kept])
    alone_s = np.array([rounds * pool.alone_s for rounds, _ in kept])
    lateness_s = [timing.sent_s - timing.due_s for timing in timings]
    end_s = max(timing.done_s for timing in timings)
    if not kept:
        raise ValueError("no request of the run was answered: see the server's log")
    return {
        "n": count,
        "counted": len(kept),
        "failed": sum(not timing.tokens for timing in timings),
        "mean_s": _rounded(latency_s.mean()),
        "p50_s": _rounded(np.percentile(latency_s, 50)),
        "p99_s": _rounded(np.percentile(latency_s, 99)),
        "ttft_mean_s": _rounded(first_s.mean()),
        "ttft_p99_s": _rounded(np.percentile(first_s, 99)),
        "slowdown_mean": _rounded((latency_s / alone_s).mean()),
        "throughput_tok_s": _rounded(sum(timing.tokens for timing in timings) / end_s),
        "lateness_p99_s": _rounded(np.percentile(lateness_s, 99)),
        "wall_s": _rounded(end_s),
    }


def step_figures(bench: Mapping[str, Any]) -> Row:
    """Return the worker's side of a run, from what the tap saw: `bench` of `/server_info`."""
    running, time_us = np.array(bench["steps"], dtype=float).reshape(-1, 2).T
    if not len(running):
        return dict.fromkeys(STEP_FIGURES)
    figures = (
        _rounded(bench["committed"] / bench["rows"]),
        _rounded(running.mean()),
        _rounded(np.percentile(time_us, 50) / 1e6),
        _rounded(np.percentile(time_us, 99) / 1e6),
        [
            (int(size), _rounded(np.median(time_us[running == size]) / 1e6))
            for size in np.unique(running)
        ],
        _prefill_s(bench, float(np.median(time_us))),
    )
    return dict(zip(STEP_FIGURES, figures, strict=True))


def _prefill_s(bench: Mapping[str, Any], round_us: float) -> float | None:
    """Return for how long a prefill of one request keeps all from decoding; None if unknown."""
    stalls = [time_us - round_us for requests, time_us in bench["stalls"] if requests == 1]
    return _rounded(np.median(stalls) / 1e6) if stalls else None


def steps_at(bench: Mapping[str, Any], running: int) -> Row:
    """Return the times of the steps with exactly so many requests running."""
    times = [time_us / 1e6 for rows, time_us in bench["steps"] if rows == running]
    if not times:
        raise ValueError(f"no step had {running} requests running: see the server's log")
    return {
        "steps": len(times),
        "p50_s": _rounded(np.percentile(times, 50)),
        "p99_s": _rounded(np.percentile(times, 99)),
    }


def saturated_rps(timings: Sequence[Timing]) -> float:
    """Return the requests a second that finished while the server was full.

    Of the times of finishing, from 10 % to 90 %: it fills before and empties after.
    """
    done_s = sorted(timing.done_s for timing in timings if timing.tokens)
    first, last = (int(share * (len(done_s) - 1)) for share in MEASURED)
    return (last - first) / (done_s[last] - done_s[first])


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
