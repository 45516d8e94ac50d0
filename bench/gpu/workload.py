"""What is sent: prompts of known length, at times drawn from a seed, with predictions that err."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from gpu.load import Job
from sim.arrivals import Arrivals, Gamma, Poisson
from sim.workload import Floats

SEED = 20260
"""Of arrivals, prompts and predictions; with the round and the load it gives a run's requests."""
MAX_TOKENS = 1024
"""Longest output, and all that the service is told about the length of one."""
PIECES = 63
"""Runs that one is picked from, one after the other in one stream of arrivals."""
MEASURED = (0.1, 0.9)
"""Share of the arrivals of a run, in their order, that count: others fill and empty the server."""
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


@dataclass(frozen=True)
class Drawn:
    """The requests of one run, the same for every policy."""

    jobs: list[Job]
    backlog: int = 0
    """How many of them, the first, are there when the run begins: due at 0, and not counted."""

    @property
    def counted(self) -> range:
        """Which jobs count: those in the middle of what arrives in the course of the run."""
        arriving = len(self.jobs) - self.backlog
        first, last = (self.backlog + int(share * arriving) for share in MEASURED)
        return range(first, max(last, first + 1))

    def offered(self, pool: Pool) -> float:
        """Return the work that arrives in the course of the run as a share of the capacity."""
        arriving = self.jobs[self.backlog :]
        rounds = sum(pool.rounds[job.prompt] for job in arriving)
        return rounds / float(np.mean(pool.rounds)) / pool.capacity_rps / arriving[-1].due_s


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


def pool_path(folder: Path, stage: str) -> Path:
    """Return where the first pass of a contest is kept."""
    return folder / f"{stage}-pool.json"


def contests(folder: Path) -> list[str]:
    """Return the names of the contests in a folder: each rests on a first pass of its own."""
    pools = pool_path(folder, "*")
    return [path.name.removesuffix("-pool.json") for path in sorted(folder.glob(pools.name))]


def read_pool(path: Path) -> Pool:
    """Read a pool."""
    return Pool(**json.loads(path.read_text()))


def load_pool(path: Path, texts: Sequence[str], running: int) -> Pool:
    """Read a pool; raise PoolError if it is of other prompts or another cap."""
    pool = read_pool(path)
    if pool.prompts != digest(texts) or pool.running != running:
        raise PoolError(
            f"{path} is of other prompts or of another cap than --running: remove it, and the rows "
            "that rest on it, or use another --out"
        )
    return pool


def digest(texts: Sequence[str]) -> str:
    """Name a list of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def draw(pool: Pool, load: str, turn: int, seconds: float) -> Drawn:
    """Draw the requests of one run: those that arrive in `seconds`, and those that are there first.

    From an empty server, a queue near capacity takes hundreds of services to become what it will
    be. So a run is a piece of a stream that is `PIECES` times as long, and begins with what would
    be in a server then that serves first come, first served (`fcfs_s`). Of those that run by then,
    the rest is left, so each is a request that takes about as many rounds as that. Of all pieces it
    is the one whose mean latency in that server is nearest to that of the stream: few requests near
    capacity are a matter of luck, and this is what they come to in the long run.

    Overload has no long run: there it is what arrives in the first `seconds`, from an empty server.
    """
    rng = np.random.default_rng([SEED, turn, list(LOADS).index(load)])
    if LOADS[load].of_capacity >= 1.0:
        return Drawn(draw_by_chance(pool, load, rng, seconds))
    stream = draw_by_chance(pool, load, rng, PIECES * seconds)
    started_s, done_s = fcfs_s(pool, stream)
    due_s = np.array([job.due_s for job in stream])
    latency_s = done_s - due_s
    bounds = np.linspace(0, len(stream), min(PIECES, len(stream)) + 1).astype(int)
    off_s = [abs(latency_s[begin:end].mean() - latency_s.mean()) for begin, end in pairwise(bounds)]
    typical = int(np.argmin(off_s))
    begin, end = bounds[typical : typical + 2]
    begins_s = float(due_s[begin - 1]) if begin else 0.0
    running = np.flatnonzero((started_s[:begin] <= begins_s) & (begins_s < done_s[:begin]))
    waiting = np.flatnonzero(started_s[:begin] > begins_s)
    round_s = round_seconds(pool)
    jobs = [
        *(with_rounds(pool, stream[i], (done_s[i] - begins_s) / round_s) for i in running),
        *(replace(stream[i], due_s=0.0) for i in waiting),
        *(replace(stream[i], due_s=stream[i].due_s - begins_s) for i in range(begin, end)),
    ]
    jobs = [replace(job, number=number) for number, job in enumerate(jobs)]
    return Drawn(jobs, len(running) + len(waiting))


def with_rounds(pool: Pool, job: Job, rounds: float) -> Job:
    """Return a request that takes about so many `rounds`, due at 0, with a hint that errs alike."""
    prompt = int(np.argmin(np.abs(np.asarray(pool.rounds) - rounds)))
    tokens = pool.output_tokens[prompt]
    predicted = max(1, round(tokens * job.predicted_tokens / job.max_tokens))
    return Job(job.number, prompt, 0.0, tokens, predicted)


def fcfs_s(pool: Pool, jobs: Sequence[Job]) -> tuple[Floats, Floats]:
    """Return when each of `jobs` starts and is done, first come, first served.

    By `pool.running` servers: each has its share of the capacity for every request.
    """
    round_s = round_seconds(pool)
    free_s = [0.0] * pool.running
    started_s, done_s = np.empty(len(jobs)), np.empty(len(jobs))
    for index, job in enumerate(jobs):
        started_s[index] = max(free_s[0], job.due_s)
        done_s[index] = started_s[index] + pool.rounds[job.prompt] * round_s
        heapq.heapreplace(free_s, done_s[index])
    return started_s, done_s


def round_seconds(pool: Pool) -> float:
    """Return the time of a full round at the pool's capacity, with its share of the prefills."""
    return pool.running / (pool.capacity_rps * float(np.mean(pool.rounds)))


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
