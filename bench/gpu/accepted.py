"""What each round of a pool's requests brings, for the simulator.

A first pass tells tokens and rounds of a request. Which rounds bring many comes from the recording:
acceptance wanders in the course of a request, and who takes it for steady thinks that an engine
knows how long a request will still take better than it does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpu.large import recording
from gpu.workload import Pool
from sim.traces import Traces, load_traces
from sim.workload import Bytes

UNKNOWN = np.zeros(1, np.uint8)
"""Accepted drafts of a request of which no recording tells: all rounds bring as many."""


def recorded(folder: Path, stage: str) -> Traces | None:
    """Return the recording of a stage's prompts; None if there is none.

    `gpu.large` replays one, whatever the model; `gpu.record` has the prompts of all others, in the
    same order, with the draft that it calls a tree.
    """
    path = recording("tree") if stage == "large" else folder / "acceptance-tree.npz"
    return load_traces(path) if path.exists() else None


def accept_lengths(pool: Pool, traces: Traces | None) -> list[Bytes]:
    """Return the accept lengths of the rounds of each request of `pool`, by prompt."""

    def drafts(prompt: int) -> Bytes:
        if traces is None or prompt >= len(traces):
            return UNKNOWN
        begin, end = traces.offsets[prompt : prompt + 2]
        return traces.accepted[begin:end]

    return [
        as_recorded(tokens - 1, rounds, drafts(prompt))
        for prompt, (tokens, rounds) in enumerate(zip(pool.output_tokens, pool.rounds, strict=True))
    ]


def as_recorded(tokens: int, rounds: int, accepted: Bytes) -> Bytes:
    """Return accept lengths of `rounds` rounds that bring `tokens`, or one each if that is more.

    Where the recorded request, with `accepted` drafts by round, got on fast, so does this one: its
    rounds are equal shares of those of the recording, up to `tokens`. A shorter one is stretched.
    """
    total = max(tokens, rounds)
    had = np.concatenate(([0.0], np.cumsum(accepted.astype(float) + 1.0)))
    had *= max(1.0, total / had[-1])
    places = np.arange(len(had))
    last = np.ceil(np.interp(total, had, places))
    ends = np.rint(np.interp(np.linspace(0.0, last, rounds + 1), places, had)).astype(np.int64)
    # A token a round at least, and no more than there are.
    done = np.arange(rounds + 1)
    ends = np.maximum.accumulate(ends - done) + done
    ends = np.minimum(ends, total - rounds + done)
    return np.diff(ends).astype(np.uint8)
