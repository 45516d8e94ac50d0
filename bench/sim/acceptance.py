"""How many drafts verification accepts, round by round: processes, and recorded traces.

In every process a round's accepted drafts are the leading successes among `drafts` independent
trials of probability p; the processes differ in how p moves within a request. A request's
long-run p comes from `Rates`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from sim.traces import Traces, load_traces
from sim.workload import Floats, Ints, Rounds

Rng = np.random.Generator
ROOT = Path(__file__).parents[2]
BLOCK = 8192
"""Requests drawn together: bounds the memory."""

Accepted = Callable[[Ints, int], Ints]
"""Gives the accepted drafts of round number `int` (0 is the first) for requests `Ints`."""


@dataclass(frozen=True)
class Rates:
    """Per-draft acceptance of a request: normal, clipped to [low, high]."""

    mean: float = 0.5
    sd: float = 0.25
    low: float = 0.02
    high: float = 0.97

    def draw(self, rng: Rng, count: int) -> Floats:
        return np.clip(rng.normal(self.mean, self.sd, count), self.low, self.high)


class AcceptanceProcess(Protocol):
    """Draws the accepted drafts of requests."""

    @property
    def drafts(self) -> int:
        """Draft tokens offered in each round."""

    def start(self, rng: Rng, count: int) -> Accepted:
        """Begin the rounds of `count` requests; rounds are then asked for in order."""


@dataclass(frozen=True)
class Independent:
    """p is the request's own and stands still."""

    drafts: int = 3
    rates: Rates = Rates()

    def start(self, rng: Rng, count: int) -> Accepted:
        p = self.rates.draw(rng, count)
        return lambda who, _: leading_successes(rng, p[who], self.drafts)


@dataclass(frozen=True)
class Autocorrelated:
    """p is the request's own plus x, an AR(1) of stationary standard deviation `spread`.

    x(r + 1) = correlation * x(r) + noise; p is clipped to the bounds of the rates.
    """

    drafts: int = 3
    rates: Rates = Rates()
    correlation: float = 0.9
    spread: float = 0.15

    def start(self, rng: Rng, count: int) -> Accepted:
        rates = self.rates
        p = rates.draw(rng, count)
        x = rng.normal(0.0, self.spread, count)
        noise = self.spread * (1.0 - self.correlation**2) ** 0.5

        def accepted(who: Ints, _: int) -> Ints:
            now = np.clip(p[who] + x[who], rates.low, rates.high)
            x[who] = self.correlation * x[who] + rng.normal(0.0, noise, len(who))
            return leading_successes(rng, now, self.drafts)

        return accepted


@dataclass(frozen=True)
class Drifting:
    """p moves in a straight line from the request's own, by normal(0, `change`) in 100 rounds."""

    drafts: int = 3
    rates: Rates = Rates()
    change: float = 0.3

    def start(self, rng: Rng, count: int) -> Accepted:
        rates = self.rates
        p = rates.draw(rng, count)
        slope = rng.normal(0.0, self.change / 100, count)

        def accepted(who: Ints, number: int) -> Ints:
            now = np.clip(p[who] + slope[who] * number, rates.low, rates.high)
            return leading_successes(rng, now, self.drafts)

        return accepted


@dataclass(frozen=True)
class Switching:
    """p is drawn anew from the rates, at each round with probability 1 / `mean_rounds`."""

    drafts: int = 3
    rates: Rates = Rates()
    mean_rounds: float = 40.0

    def start(self, rng: Rng, count: int) -> Accepted:
        p = self.rates.draw(rng, count)

        def accepted(who: Ints, _: int) -> Ints:
            switching = who[rng.random(len(who)) * self.mean_rounds < 1.0]
            p[switching] = self.rates.draw(rng, len(switching))
            return leading_successes(rng, p[who], self.drafts)

        return accepted


@dataclass(frozen=True)
class Replay:
    """Each request replays a recorded one chosen by chance, from a round chosen by chance on.

    After the recording's last round comes its first.
    """

    path: str
    """Absolute, or from the root of the repository."""
    traces: Traces = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "traces", load_traces(ROOT / self.path))

    @property
    def drafts(self) -> int:
        return self.traces.drafts

    def start(self, rng: Rng, count: int) -> Accepted:
        traces = self.traces
        chosen = rng.integers(0, len(traces), count)
        first, length = traces.offsets[chosen], np.diff(traces.offsets)[chosen]
        shift = (rng.random(count) * length).astype(np.int64)

        def accepted(who: Ints, number: int) -> Ints:
            at = first[who] + (shift[who] + number) % length[who]
            drafts: Ints = traces.accepted[at].astype(np.int64)
            return drafts

        return accepted


def leading_successes(rng: Rng, p: Floats, drafts: int) -> Ints:
    """Return how many of `drafts` trials succeed before the first that fails: P(>= k) = p^k."""
    chance = rng.random(len(p))
    power = np.ones(len(p))
    count = np.zeros(len(p), np.int64)
    for _ in range(drafts):
        power *= p
        count += chance < power
    return count


def draw_rounds(process: AcceptanceProcess, rng: Rng, output_tokens: Ints) -> Rounds:
    """Draw rounds until every request has its tokens, the first of which its prefill brings."""
    blocks = np.array_split(output_tokens, range(BLOCK, len(output_tokens), BLOCK))
    drawn = [_draw_block(process, rng, block - 1) for block in blocks]
    counts = np.concatenate([count for _, count in drawn])
    return Rounds(
        accept_lengths=np.concatenate([lengths for lengths, _ in drawn]),
        offsets=np.concatenate((np.zeros(1, np.int64), np.cumsum(counts))),
    )


def _draw_block(
    process: AcceptanceProcess, rng: Rng, tokens: Ints
) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint8]], Ints]:
    """Return the accept lengths of all requests on end, and the rounds of each."""
    accepted = process.start(rng, len(tokens))
    table = np.zeros((int(tokens.max()), len(tokens)), np.uint8)
    counts = np.zeros(len(tokens), np.int64)
    left = tokens.copy()
    who = np.arange(len(tokens))
    number = 0
    while len(who):
        lengths = np.minimum(accepted(who, number) + 1, left[who])
        table[number, who] = lengths
        left[who] -= lengths
        counts[who] += 1
        who = who[left[who] > 0]
        number += 1
    had = np.arange(number)[None, :] < counts[:, None]
    return table[:number].T[had], counts
