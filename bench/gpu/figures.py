"""From what a run left behind to the figures of its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from scipy.optimize import nnls

from gpu.load import AHEAD_S, Timing
from gpu.workload import Drawn, Pool
from sim.workload import Floats

WINDOW_S = 5.0
"""Of the windows for which `pace` says how fast the worker was."""
LEAST_S = 0.5
"""Of rounds in a window whose pace they can tell: less may be one round that hung."""
Row = dict[str, Any]
STEP_FIGURES = (
    *("accept_length", "running_mean", "step_p50_s", "step_p99_s", "step_drift"),
    *("hooks_s", "loop_s", "loop_s_by_window", "waited_s"),
    *("pace", "round_s_by_running", "prefill_s", "prefill_request_s"),
)
"""What the tap tells of a run; `round_s_by_running` is a list of (running, mean seconds)."""


def latency_figures(pool: Pool, drawn: Drawn, timings: Sequence[Timing]) -> Row:
    """Return the client's side of a run. Failed requests are counted, and left out of all else.

    `timings` are those of the jobs, in the same order.
    """
    kept = [
        (pool.rounds[drawn.jobs[number].prompt], timings[number])
        for number in drawn.counted
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
        "n": len(drawn.jobs),
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
        "prompt_tokens_mean": _rounded(fmean(timing.prompt_tokens for _, timing in kept)),
        "wall_s": _rounded(end_s),
    }


def step_figures(bench: Mapping[str, Any]) -> Row:
    """Return the worker's side of a run, from what the tap saw: `bench` of `/server_info`."""
    running, time_us, _ = _steps(bench)
    if not len(running):
        return dict.fromkeys(STEP_FIGURES)
    prefill = prefill_times(bench)
    figures = (
        _rounded(bench["committed"] / bench["rows"]),
        _rounded(running.mean()),
        _rounded(np.percentile(time_us, 50) / 1e6),
        _rounded(np.percentile(time_us, 99) / 1e6),
        drift(bench),
        _a_round(bench, bench["hooks_s"]),
        *loop_times(bench),
        _a_round(bench, bench["waited_s"]),
        pace(bench),
        [(size, _rounded(seconds)) for size, seconds in round_times(bench).items()],
        *((None, None) if prefill is None else map(_rounded, prefill)),
    )
    return dict(zip(STEP_FIGURES, figures, strict=True))


def _a_round(bench: Mapping[str, Any], seconds: float) -> float | None:
    """Return what of `seconds` goes to a round; None if there are none, as of hooks in stock."""
    rounds = len(bench["steps"]) + sum(len(sizes) for _, sizes, _ in bench["stalls"])
    return _rounded(seconds / rounds) if seconds else None


def loop_times(bench: Mapping[str, Any]) -> tuple[float | None, list[float | None]]:
    """Return the median of the fixed loop's seconds, and that in each `WINDOW_S`.

    None where there was no round.
    """
    time_ns, ended_ms = np.array(bench["loops"], dtype=float).reshape(-1, 2).T
    if not len(time_ns):
        return None, []
    window = (np.maximum(ended_ms / 1e3 - AHEAD_S, 0.0) // WINDOW_S).astype(int)
    windows = [time_ns[window == one] for one in range(window.max() + 1)]
    return _rounded(np.median(time_ns) / 1e9), [
        _rounded(np.median(of) / 1e9) if len(of) else None for of in windows
    ]


def pace(bench: Mapping[str, Any]) -> list[float]:
    """Return the time of rounds as a multiple of what it usually is, in each `WINDOW_S` of a run.

    A host that is slow for a while makes a queue which it does not make when it loses the same time
    evenly over the run. 1.0 where there were too few rounds to tell.
    """
    took_s, usual_s, ended_s = _against_usual(bench)
    window = (ended_s // WINDOW_S).astype(int)
    took, usual = (np.bincount(window, weights=each) for each in (took_s, usual_s))
    factors = np.divide(took, usual, out=np.ones_like(took), where=usual >= LEAST_S)
    return [_rounded(factor) for factor in factors]


def drift(bench: Mapping[str, Any]) -> float | None:
    """Return the pace of the second half of the rounds over that of the first; None of one."""
    took_s, usual_s, _ = _against_usual(bench)
    middle = len(took_s) // 2
    if not middle:
        return None
    halves = (slice(middle), slice(middle, None))
    first, second = (took_s[half].sum() / usual_s[half].sum() for half in halves)
    return _rounded(second / first)


def _against_usual(bench: Mapping[str, Any]) -> tuple[Floats, Floats, Floats]:
    """Return, of every step, its seconds, those that one of its size usually takes, and its end.

    The end is in seconds after the run's time 0.
    """
    running, time_us, ended_ms = _steps(bench)
    usual_s = round_times(bench)
    usual = np.array([usual_s[int(size)] for size in running])
    return time_us / 1e6, usual, np.maximum(ended_ms / 1e3 - AHEAD_S, 0.0)


def round_times(bench: Mapping[str, Any]) -> dict[int, float]:
    """Return the mean seconds of a verify round by the requests in it, ascending.

    Means, not medians: what comes of the time of rounds is their sum.
    """
    running, time_us, _ = _steps(bench)
    return {int(size): float(time_us[running == size].mean()) / 1e6 for size in np.unique(running)}


def prefill_times(bench: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return for how long a prefill keeps all from decoding: seconds, and seconds a request more.

    A stall is one prefill or more on end, and the rounds around them; what is beyond these rounds'
    usual time is fitted by least squares, neither part below zero, and scaled so that all stalls
    together take what they took. None if there were no stalls.
    """
    if not bench["stalls"] or not bench["steps"]:
        return None
    sizes = [(len(prefills), sum(prefills)) for prefills, _, _ in bench["stalls"]]
    beyond_s = beyond_rounds(bench)
    together_s = max(float(beyond_s.sum()), 0.0)
    if len(set(sizes)) == 1:
        return together_s / (sizes[0][0] * len(sizes)), 0.0
    counts = np.array(sizes, dtype=float)
    parts_s, _ = nnls(counts, beyond_s)
    fitted_s = float((counts @ parts_s).sum())
    if fitted_s > 0.0:
        parts_s *= together_s / fitted_s
    return float(parts_s[0]), float(parts_s[1])


def beyond_rounds(bench: Mapping[str, Any]) -> Floats:
    """Return by how many seconds each stall is longer than its rounds usually are."""
    usual_s = round_times(bench)
    sizes, seconds = list(usual_s), list(usual_s.values())
    return np.array(
        [
            time_us / 1e6 - np.interp(rows, sizes, seconds).sum()
            for _, rows, time_us in bench["stalls"]
        ]
    )


def capacity_rps(bench: Mapping[str, Any], running: int, rows: float) -> float:
    """Return the requests a second of a server whose batch is always full.

    A request takes its `rows` (verify rounds that it is in the batch for) of a full round each, and
    its share of the prefills. Raises ValueError if the batch never was full.
    """
    full_s = round_times(bench).get(running)
    if full_s is None:
        raise ValueError(f"no step had {running} requests running: see the server's log")
    prefilled = sum(sum(prefills) for prefills, _, _ in bench["stalls"])
    prefill_s = float(beyond_rounds(bench).sum()) / prefilled if prefilled else 0.0
    return 1.0 / (rows * full_s / running + prefill_s)


def prefill_figures(bench: Mapping[str, Any]) -> Row:
    """Return the prefills that stood between rounds, and how much longer all took for them."""
    return {
        "prefills": sum(len(prefills) for prefills, _, _ in bench["stalls"]),
        "prefills_s": _rounded(beyond_rounds(bench).sum()),
    }


def steps_at(bench: Mapping[str, Any], running: int) -> Row:
    """Return the times of the steps with exactly so many requests running."""
    times = [time_us / 1e6 for rows, time_us, _ in bench["steps"] if rows == running]
    if not times:
        raise ValueError(f"no step had {running} requests running: see the server's log")
    return {
        "steps": len(times),
        "p50_s": _rounded(np.percentile(times, 50)),
        "p99_s": _rounded(np.percentile(times, 99)),
    }


def _steps(bench: Mapping[str, Any]) -> tuple[Floats, Floats, Floats]:
    """Return requests, microseconds and end (ms since the last question) of each step."""
    running, time_us, ended_ms = np.array(bench["steps"], dtype=float).reshape(-1, 3).T
    return running, time_us, ended_ms


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
