"""What is sent: prompts of known length, at times drawn from a seed, with predictions that err."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gpu.load import Job
from sim.arrivals import Arrivals, Gamma, Poisson

SEED = 20260
"""Of arrivals, prompts and predictions; with the round and the load it gives a run's requests."""
MAX_TOKENS = 1024
"""Longest output, and all that the service is told about the length of one."""
DRAWS = 63
"""Draws of which a run gets a typical one."""
SIGMA = 0.8
"""Predicted lengths are L * exp(SIGMA * normal(0, 1)), as in the simulator's reference case."""


@dataclass(frozen=True)
class Load:
    """How much arrives, and how."""

    of_capacity: float
    """Work that arrives, as a share of what stock SGLang does when it has all it can do."""
    arrivals: Arrivals


LOADS = {
    "0.95": Load(0.95, Poisson()),
    "0.95-bursts": Load(0.95, Gamma(3.0)),
    "0.9": Load(0.9, Poisson()),
    "1.1": Load(1.1, Poisson()),
    "0.7": Load(0.7, Poisson()),
}
"""The most important first, for a comparison that is cut short."""


class PoolError(ValueError):
    """A pool that does not fit what it is used for; the message says what to do."""


@dataclass(frozen=True)
class Pool:
    """The prompts as requests of fixed length, and what stock SGLang can do with them."""

    prompts: str
    """Digest of the prompts' texts, in order."""
    output_tokens: list[int]
    """By prompt."""
    rounds: list[int]
    """Verify rounds that these take, by prompt."""
    alone_s: float
    """Seconds a round when a request is alone on the server, its prefill shared out."""
    capacity_rps: float
    """Requests a second of a server that has all it can do, with `running` at once."""
    running: int

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self)) + "\n")


def load_pool(path: Path, texts: Sequence[str], running: int) -> Pool:
    """Read a pool; raise PoolError if it is of other prompts or another cap."""
    pool = Pool(**json.loads(path.read_text()))
    if pool.prompts != digest(texts) or pool.running != running:
        raise PoolError(
            f"{path} is of other prompts or of another cap than --running: remove it, and the rows "
            "that rest on it, or use another --out"
        )
    return pool


def digest(texts: Sequence[str]) -> str:
    """Name a list of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def draw(pool: Pool, load: str, turn: int, seconds: float) -> list[Job]:
    """Draw the requests of one run: the same for every policy.

    As many as arrive in `seconds`. The gaps are stretched so that the work of these very requests,
    in verify rounds, is what the load says.

    Few requests near capacity are a matter of luck: from one draw to the next the queue of a server
    that serves first come, first served, doubles. So of `DRAWS` draws the one is taken with the
    median of that server's mean latency. That server is no policy that is compared but
    `fcfs_latency_s`, and the draw is typical of runs of this length, not of longer ones.
    """
    rng = np.random.default_rng([SEED, turn, list(LOADS).index(load)])
    draws = [draw_by_chance(pool, load, rng, seconds) for _ in range(DRAWS)]
    return sorted(draws, key=lambda jobs: fcfs_latency_s(pool, jobs))[DRAWS // 2]


def fcfs_latency_s(pool: Pool, jobs: Sequence[Job]) -> float:
    """Return the mean latency of `jobs`, first come, first served, by `pool.running` servers.

    Each of these has its share of the capacity for every request.
    """
    round_s = pool.running / (pool.capacity_rps * float(np.mean(pool.rounds)))
    free_s = [0.0] * pool.running
    total_s = 0.0
    for job in jobs:
        done_s = max(free_s[0], job.due_s) + pool.rounds[job.prompt] * round_s
        heapq.heapreplace(free_s, done_s)
        total_s += done_s - job.due_s
    return total_s / len(jobs)


def draw_by_chance(pool: Pool, load: str, rng: np.random.Generator, seconds: float) -> list[Job]:
    """Draw as many requests as arrive in `seconds`, whatever chance makes of them."""
    wanted = LOADS[load]
    rate = wanted.of_capacity * pool.capacity_rps
    count = max(1, round(seconds * rate))
    size = len(pool.output_tokens)
    passes = [rng.permutation(size) for _ in range(-(-count // size))]
    prompts = np.concatenate(passes)[:count]
    rounds = np.asarray(pool.rounds)
    rate *= float(rounds.mean() / rounds[prompts].mean())
    due_s = wanted.arrivals.times(rng, count) / rate
    errors = np.exp(SIGMA * rng.standard_normal(count))
    return [
        Job(
            number=number,
            prompt=int(prompt),
            due_s=float(due_s[number]),
            max_tokens=pool.output_tokens[prompt],
            predicted_tokens=max(1, round(pool.output_tokens[prompt] * errors[number])),
        )
        for number, prompt in enumerate(prompts)
    ]


def all_at_once(prompts: Sequence[int], max_tokens: Sequence[int]) -> list[Job]:
    """Return a job for each of `prompts`, all due at time 0 and predicted as they are."""
    return [
        Job(number, prompt, 0.0, tokens, tokens)
        for number, (prompt, tokens) in enumerate(zip(prompts, max_tokens, strict=True))
    ]
