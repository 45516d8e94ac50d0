"""Simulate what was compared, request by request, and hold the two against each other.

    python -m gpu.replay --out DIR

For each run of a contest, DIR/STAGE.jsonl beside DIR/STAGE-pool.json: the simulator (bench/sim)
gets the run's own requests (arrivals, lengths, rounds, hints), the mean times of its verify rounds
by batch size, those of a prefill, and how rounds changed in the course of the run (prefills are
taken to have changed as rounds did). What is left to explain is the order of things, not the speed
of the host. Needs no GPU. Writes DIR/replay.jsonl.

Rounds are longer in it by the share of rows that a request did not need: in SGLang's overlap loop
one that has finished is in the batch for a round more.

A request's accepted drafts by round are those of the recording that `gpu.large` replays; elsewhere
as many as the request had, coming as the recording has them for its prompt (`gpu.accepted`).

What the simulator does not have: how long each prompt is (all are as long as the mean), what the
service learnt from the very runs before (it has learnt from others of the pool), the client, and
the network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np

from gpu.accepted import accept_lengths, recorded
from gpu.contest import read_rows
from gpu.drawn import read_drawn, requests_path
from gpu.figures import WINDOW_S, Row
from gpu.load import Job
from gpu.names import BLIND, ORACLE, STOCK, STOCK_PRIORITY
from gpu.workload import (
    LOADS,
    MAX_TOKENS,
    Drawn,
    Pool,
    contests,
    draw_by_chance,
    pool_path,
    read_pool,
)
from laps.engine.types import PolicySpec
from laps.policies.base import Policy
from sim.blind import Blind
from sim.host import run
from sim.oracle import Oracle
from sim.physics import STEADY, Buckets, Pace, Physics, PrefillsAtOnce
from sim.simulate import parse_policy
from sim.workload import Bytes, Rounds, Workload

EARLIER = 500
"""Requests from which an engine has learnt when a run begins."""
TO_FINISH_S = 30.0
"""Time for the last of them."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="gpu.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    folder: Path = parser.parse_args().out
    rows = list(replays(folder))
    (folder / "replay.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{len(rows)} runs simulated")


def replays(folder: Path) -> Iterator[Row]:
    """Simulate the runs of a folder, those that say how long a prefill took."""
    for stage in contests(folder):
        pool = read_pool(pool_path(folder, stage))
        sent = read_drawn(requests_path(folder, stage), pool)
        accepted = accept_lengths(pool, recorded(folder, stage))
        for row in timed_rows(folder / f"{stage}.jsonl"):
            # SGLang's own preemption is not the engine's: nothing here knows how it goes.
            if row["policy"] != STOCK_PRIORITY:
                drawn = sent[row["round"], row["load"]]
                yield {"stage": stage, **replay(row, pool, accepted, drawn)}


def timed_rows(path: Path) -> list[Row]:
    """Return the runs of a contest that say how long a prefill took."""
    return [row for row in read_rows(path) if row.get("prefill_s") is not None]


def replay(row: Row, pool: Pool, accepted: Sequence[Bytes], drawn: Drawn) -> Row:
    """Simulate one run; return its figures beside the measured mean, and what it was up against."""
    pace = Pace(tuple(row.get("pace") or ()), WINDOW_S)
    return {
        **{name: row[name] for name in ("round", "load", "policy")},
        "offered": drawn.offered(pool),
        "full_round_s": full_round_s(row),
        "measured_mean_s": row["mean_s"],
        **simulated(drawn, pool, accepted, row, row["policy"], pace),
    }


def full_round_s(row: Row) -> float:
    """Return how long a round of a full batch took in a run, in the mean."""
    physics = physics_of(row)
    return physics.round_time.seconds(physics.max_running)


def service_s(row: Row, rounds: float) -> float:
    """Return what a request takes of a worker whose batch is full, at the times of a run.

    It is prefilled by itself, as in stock SGLang; compare `gpu.figures.capacity_rps`.
    """
    physics = physics_of(row)
    share_s = full_round_s(row) / physics.max_running
    return rounds * share_s + physics.prefill_seconds(round(row["prompt_tokens_mean"]))


def simulated(
    drawn: Drawn,
    pool: Pool,
    accepted: Sequence[Bytes],
    row: Row,
    name: str,
    pace: Pace = STEADY,
) -> Row:
    """Simulate a run under the policy `name`, on the worker that was measured in the run `row`.

    `accepted` are the accept lengths by prompt (`gpu.accepted.accept_lengths`).
    It has the mean times of that run, at `pace`. Its engine has seen requests before, as that of
    the service had. One that knows nothing yet takes a backlog for longer than it is, and lets all
    that comes later go first.
    """
    others, begins_s = earlier(pool)
    sent = [*others, *(replace(job, due_s=job.due_s + begins_s) for job in drawn.jobs)]
    workload = workload_of(sent, pool, accepted, round(row["prompt_tokens_mean"]))
    policy: PolicySpec | Policy
    if name == ORACLE:
        policy = Oracle(workload.rounds.counts)
    elif name == BLIND:
        policy = Blind()
    else:
        policy = parse_policy("fcfs" if name == STOCK else name)
    physics = physics_of(row)
    if name == STOCK:
        physics = PrefillsAtOnce.of(replace(physics, max_resident=physics.max_running))
    before = (1.0,) * round(begins_s / pace.window_s)
    outcome = run(workload, physics, policy, pace=replace(pace, factors=before + pace.factors))
    if max(workload.arrival_s[: len(others)] + outcome.latency_s[: len(others)]) > begins_s:
        raise RuntimeError(f"{name}: requests from before a run are not done: raise TO_FINISH_S")
    latency_s = outcome.latency_s[len(others) :][drawn.counted]
    return {
        "mean_s": float(latency_s.mean()),
        "p50_s": float(np.percentile(latency_s, 50)),
        "p99_s": float(np.percentile(latency_s, 99)),
        "preemptions": outcome.preemptions,
        "demotions": outcome.demotions,
    }


def earlier(pool: Pool) -> tuple[list[Job], float]:
    """Return requests that are done before a run begins, and when that is.

    Half as many a second as at 0.7, so that hardly any is preempted.
    """
    seconds = EARLIER / (LOADS["0.7"].of_capacity * pool.capacity_rps)
    drawn = draw_by_chance(pool, "0.7", np.random.default_rng(EARLIER), seconds)
    jobs = [replace(job, due_s=2.0 * job.due_s) for job in drawn]
    return jobs, WINDOW_S * ceil((jobs[-1].due_s + TO_FINISH_S) / WINDOW_S)


def physics_of(row: Row) -> Physics:
    """Return the worker as it was measured in a run."""
    running = row["running"]
    sizes, seconds = zip(*row["round_s_by_running"], strict=True)
    # Small batches are rare: what chance made slower counts as no slower than a larger one.
    rising = row["rows_per_round"] * np.minimum.accumulate(seconds[::-1])[::-1]
    points = [*zip(sizes, rising.tolist(), strict=True), (running, float(rising[-1]))]
    return Physics(
        round_time=Buckets(tuple(point for point in points if point[0] <= running)),
        max_running=running,
        max_resident=row["resident"],
        prefill_s=row["prefill_s"],
        prefill_token_s=row["prefill_request_s"] / row["prompt_tokens_mean"],
        plan_delay=1,
    )


def workload_of(
    jobs: Sequence[Job], pool: Pool, accepted: Sequence[Bytes], prompt_tokens: int
) -> Workload:
    """Return the requests of a run as the simulator takes them."""
    lengths = [accepted[job.prompt] for job in jobs]
    return Workload(
        arrival_s=np.array([job.due_s for job in jobs]),
        prompt_tokens=np.full(len(jobs), prompt_tokens, np.int64),
        output_tokens=np.array([pool.output_tokens[job.prompt] for job in jobs]),
        predicted_tokens=np.array([job.predicted_tokens for job in jobs]),
        rounds=Rounds(
            np.concatenate(lengths),
            np.concatenate(([0], np.cumsum([len(rounds) for rounds in lengths]))),
        ),
        drafts=int(max(rounds.max() for rounds in lengths)),
        tenants=("",),
        tenant=np.zeros(len(jobs), np.int64),
        max_new_tokens=MAX_TOKENS,
    )


if __name__ == "__main__":
    main()
