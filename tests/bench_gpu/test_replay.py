"""The simulation of what was compared."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu.accepted import UNKNOWN, accept_lengths, as_recorded, recorded
from gpu.drawn import keep_drawn, requests_path
from gpu.longrun import median_worker
from gpu.replay import (
    full_round_s,
    physics_of,
    replays,
    service_s,
    simulated,
    workload_of,
)
from gpu.workload import Pool, draw
from sim.traces import Traces, save_traces

POOL = Pool("", list(range(20, 220)), list(range(10, 210, 1)), 0.01, 20.0, 16)
ACCEPTED = accept_lengths(POOL, None)


def measured(policy: str, **changed: Any) -> dict[str, Any]:
    row = {"round": 1, "load": "0.95", "policy": policy, "mean_s": 1.0, "seconds": 4.0}
    row |= {"running": 16, "resident": 64, "rows_per_round": 1.0}
    row |= {"prefill_s": 0.008, "prefill_request_s": 0.001, "prompt_tokens_mean": 50.0}
    return row | {"round_s_by_running": [(3, 0.009), (12, 0.008), (17, 0.012)]} | changed


def prepare(folder: Path) -> None:
    """Put down a pool, and the requests of a first round of 4 s."""
    (folder / "compare-pool.json").write_text(json.dumps(asdict(POOL)))
    keep_drawn(requests_path(folder, "compare"), (1, "0.95"), draw(POOL, "0.95", 1, 4.0))


@given(
    tokens=st.integers(1, 300),
    rounds=st.integers(1, 120),
    accepted=st.lists(st.integers(0, 7), min_size=1, max_size=80),
)
def test_every_round_brings_a_token_or_more_and_all_bring_what_they_did(
    tokens: int, rounds: int, accepted: list[int]
) -> None:
    tokens = min(tokens, 20 * rounds)
    lengths = as_recorded(tokens, rounds, np.array(accepted, np.uint8))
    assert len(lengths) == rounds
    assert lengths.min() >= 1
    assert lengths.sum() == max(tokens, rounds)


@pytest.mark.parametrize(("tokens", "rounds"), [(19, 10), (10, 10), (3, 10), (400, 7)])
def test_rounds_are_alike_where_nothing_is_known_of_them(tokens: int, rounds: int) -> None:
    lengths = as_recorded(tokens, rounds, UNKNOWN).astype(int)
    assert lengths.max() - lengths.min() <= 1


def test_rounds_bring_what_they_brought_in_the_recording() -> None:
    recorded = np.array([3, 0, 2, 1, 0, 3], np.uint8)
    assert as_recorded(15, 6, recorded).tolist() == [4, 1, 3, 2, 1, 4]
    assert as_recorded(9, 4, recorded).tolist() == [4, 1, 3, 1], "cut where it has enough"
    assert as_recorded(15, 3, recorded).tolist() == [5, 5, 5], "two at a time"
    # With more rounds than it had, and with more tokens, it is fast where that was.
    slow_then_fast = np.array([0] * 10 + [3] * 10, np.uint8)
    for tokens, rounds in ((50, 40), (100, 20)):
        lengths = as_recorded(tokens, rounds, slow_then_fast).astype(int)
        assert lengths[rounds // 2 :].sum() >= 1.5 * lengths[: rounds // 2].sum()


def test_prompts_have_the_recording_of_their_number(tmp_path: Path) -> None:
    pool = Pool("", [6, 6], [2, 2], 0.01, 20.0, 16)
    traces = Traces(np.array([3, 0], np.uint8), np.array([0, 2]), 7)
    assert [of.tolist() for of in accept_lengths(pool, traces)] == [[4, 1], [2, 3]]
    assert recorded(tmp_path, "compare") is None
    save_traces(tmp_path / "acceptance-tree.npz", [[3, 0]], 7)
    kept = recorded(tmp_path, "compare")
    assert kept is not None
    assert kept.accepted.tolist() == [3, 0]
    large = recorded(tmp_path, "large")
    assert large is not None
    assert len(large) > 1000, "that of gpu.large, whatever lies in the folder"


def test_rounds_take_what_they_took_in_the_run() -> None:
    physics = physics_of(measured("laps-sd+"))
    seconds = [physics.round_time.seconds(running) for running in (1, 3, 4, 12, 13, 16)]
    # What chance made slower counts as no slower than a larger batch; 17 is more than may run.
    assert seconds == [0.008, 0.008, 0.008, 0.008, 0.012, 0.012]
    assert physics.prefill_seconds(100) == pytest.approx(0.010)
    assert (physics.plan_delay, physics.max_resident) == (1, 64)
    longer = physics_of(measured("laps-sd+", rows_per_round=1.5))
    assert longer.round_time.seconds(16) == pytest.approx(0.018)


def test_the_requests_are_those_of_the_run() -> None:
    jobs = draw(POOL, "0.95", 1, 4.0).jobs
    workload = workload_of(jobs, POOL, ACCEPTED, 50)
    assert workload.rounds.counts.tolist() == [POOL.rounds[job.prompt] for job in jobs]
    assert workload.arrival_s.tolist() == [job.due_s for job in jobs]
    assert workload.predicted_tokens.tolist() == [job.predicted_tokens for job in jobs]


def test_runs_are_simulated_where_the_prefill_was_measured(tmp_path: Path) -> None:
    prepare(tmp_path)
    rows = [measured(policy) for policy in ("stock", "fcfs", "laps-sd+", "oracle")]
    rows += [measured("stock-priority"), measured("srtf", prefill_s=None)]
    (tmp_path / "compare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {row["policy"]: row for row in replays(tmp_path)}
    assert list(found) == ["stock", "fcfs", "laps-sd+", "oracle"]
    assert found["stock"]["mean_s"] >= found["fcfs"]["mean_s"] > 0.0
    assert found["oracle"]["mean_s"] <= found["fcfs"]["mean_s"]
    assert found["oracle"]["preemptions"] > 0


def test_a_run_on_a_host_that_was_slow_for_a_while_is_simulated_so(tmp_path: Path) -> None:
    prepare(tmp_path)
    rows = [measured("laps-sd+"), measured("laps-sd+", pace=[1.5])]
    (tmp_path / "compare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steady, slow = replays(tmp_path)
    assert slow["mean_s"] > 1.2 * steady["mean_s"]


def test_a_full_server_does_what_the_times_of_a_run_say() -> None:
    # A request takes a 16th of 109.5 * 0.0064 s (109.5 are the mean), and 0.0062 s: 1 / 20 s.
    row = measured("laps-sd+", round_s_by_running=[(16, 0.0064)])
    row |= {"prefill_s": 0.0052, "prefill_request_s": 0.001}
    assert 1.0 / service_s(row, 109.5) == pytest.approx(POOL.capacity_rps)


def test_long_runs_are_on_the_worker_of_a_median_run(tmp_path: Path) -> None:
    (tmp_path / "large-pool.json").write_text(json.dumps(asdict(POOL)))
    rows = [measured("stock", round_s_by_running=[(16, 0.01)]) | {"prefill_s": 0.006}]
    rows += [
        measured("laps-sd+", round_s_by_running=[(16, round_s)]) | {"prefill_s": prefill_s}
        for round_s, prefill_s in ((0.03, 0.012), (0.01, 0.005), (0.02, 0.009))
    ]
    (tmp_path / "large.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = median_worker(tmp_path, "large")
    assert found is not None
    assert full_round_s(found.row) == full_round_s(found.stock) == pytest.approx(0.02)
    # Each at the pace of the median: 8, 10 and 9 ms; stock's host was twice as fast.
    assert found.row["prefill_s"] == pytest.approx(0.009)
    assert found.stock["prefill_s"] == pytest.approx(0.012)
    assert 1.0 / found.pool.capacity_rps == pytest.approx(service_s(found.stock, 109.5))
    assert median_worker(tmp_path, "compare") is None


def test_an_engine_has_learnt_before_the_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is there from the first is not judged by an engine that knows nothing yet.

    Told of no other requests, it took those that waited for longer than they were, and what counts
    went before them.
    """
    drawn = draw(POOL, "0.95-bursts", 1, 20.0)
    assert drawn.backlog > 30
    row = measured("laps-sd+", round_s_by_running=[(16, 0.0064)])
    learnt, more = (simulated(drawn, POOL, ACCEPTED, row, "laps-sd+")["mean_s"] for _ in range(2))
    assert learnt == more
    monkeypatch.setattr("gpu.replay.EARLIER", 2000)
    assert simulated(drawn, POOL, ACCEPTED, row, "laps-sd+")["mean_s"] == pytest.approx(
        learnt, rel=0.05
    )
    monkeypatch.setattr("gpu.replay.EARLIER", 1)
    assert simulated(drawn, POOL, ACCEPTED, row, "laps-sd+")["mean_s"] < 0.9 * learnt
