"""The requests of a run, drawn before it starts: so every policy meets exactly the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Rounds:
    """For each request the accept lengths of its verify rounds, on end.

    A request of L output tokens gets the first from its prefill, and L - 1 from its rounds: those
    of request i are `accept_lengths[offsets[i] : offsets[i + 1]]` and their sum is L - 1, because
    what its last round brings beyond the length is discarded.
    """

    accept_lengths: Bytes
    offsets: Ints

    @property
    def counts(self) -> Ints:
        """Rounds that each request takes: its service."""
        return np.diff(self.offsets)

    @staticmethod
    def joined(parts: Sequence[Rounds]) -> Rounds:
        """Return the rounds of several lots of requests, on end."""
        counts = np.concatenate([part.counts for part in parts])
        return Rounds(
            np.concatenate([part.accept_lengths for part in parts]),
            np.concatenate((np.zeros(1, np.int64), np.cumsum(counts))),
        )

    def take(self, order: Ints) -> Rounds:
        """Return the rounds of the requests `order`, in that order."""
        counts = self.counts[order]
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        shift = self.offsets[order] - offsets[:-1]
        at = np.arange(offsets[-1]) + np.repeat(shift, counts)
        return Rounds(self.accept_lengths[at], offsets)


@dataclass(frozen=True)
class Workload:
    """Requests in order of arrival, everything that will happen to them included."""

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    predicted_tokens: Ints
    """What the client says about the output length; 0: nothing."""
    rounds: Rounds
    drafts: int
    """Draft tokens offered in each round; 0 is plain decoding."""
    tenants: tuple[str, ...]
    """Names that the tenants go by with the worker; requests of the tenant "" name none."""
    tenant: Ints
    """Which of `tenants` sends each request."""
    max_new_tokens: int = 2048

    def __post_init__(self) -> None:
        if len(self.output_tokens) and int(self.output_tokens.min()) < 2:
            raise ValueError("a request needs 2 output tokens or more: one of them from a round")
        if np.any(np.diff(self.arrival_s) < 0):
            raise ValueError("arrivals must be in order of time")

    def __len__(self) -> int:
        return len(self.arrival_s)


def plain(arrival_s: Floats, rounds: Ints) -> Workload:
    """Return a workload of plain decoding: request i takes `rounds[i]` rounds of one token."""
    return Workload(
        arrival_s=arrival_s,
        prompt_tokens=np.ones(len(rounds), np.int64),
        output_tokens=rounds + 1,
        predicted_tokens=np.zeros(len(rounds), np.int64),
        rounds=Rounds(
            np.ones(int(rounds.sum()), np.uint8), np.concatenate(([0], np.cumsum(rounds)))
        ),
        drafts=0,
        tenants=("",),
        tenant=np.zeros(len(rounds), np.int64),
        max_new_tokens=int(rounds.max()) + 1,
    )
