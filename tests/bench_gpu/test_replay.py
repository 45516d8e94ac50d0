"""The simulation of what was compared."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gpu.replay import load_found, physics_of, replays, simulated, spread_evenly, workload_of
from gpu.same_host import on_host, pairs
from gpu.workload import Pool, draw

POOL = Pool("", list(range(20, 220)), list(range(10, 210, 1)), 0.01, 20.0, 16)


def measured(policy: str, **changed: Any) -> dict[str, Any]:
    row = {"round": 1, "load": "0.95", "policy": policy, "mean_s": 1.0, "seconds": 4.0}
    row |= {"running": 16, "resident": 64, "rows_per_round": 1.0}
    row |= {"prefill_s": 0.008, "prefill_request_s": 0.001, "prompt_tokens_mean": 50.0}
    return row | {"round_s_by_running": [(3, 0.009), (12, 0.008), (17, 0.012)]} | changed


@pytest.mark.parametrize(("tokens", "rounds"), [(19, 10), (10, 10), (3, 10), (400, 7)])
def test_every_round_brings_a_token_or_more_and_all_bring_what_they_did(
    tokens: int, rounds: int
) -> None:
    lengths = spread_evenly(tokens, rounds)
    assert len(lengths) == rounds
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1
    assert sum(lengths) == max(tokens, rounds)


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
    jobs = draw(POOL, "0.95", 1, 4.0)
    workload = workload_of(jobs, POOL, 50)
    assert workload.rounds.counts.tolist() == [POOL.rounds[job.prompt] for job in jobs]
    assert workload.arrival_s.tolist() == [job.due_s for job in jobs]
    assert workload.predicted_tokens.tolist() == [job.predicted_tokens for job in jobs]


def test_runs_are_simulated_where_the_prefill_was_measured(tmp_path: Path) -> None:
    (tmp_path / "compare-pool.json").write_text(json.dumps(asdict(POOL)))
    rows = [measured(policy) for policy in ("stock", "fcfs", "laps-sd+", "oracle")]
    rows += [measured("stock-priority"), measured("srtf", prefill_s=None)]
    (tmp_path / "compare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {row["policy"]: row for row in replays(tmp_path)}
    assert list(found) == ["stock", "fcfs", "laps-sd+", "oracle"]
    assert found["stock"]["mean_s"] >= found["fcfs"]["mean_s"] > 0.0
    assert found["oracle"]["mean_s"] <= found["fcfs"]["mean_s"]
    assert found["oracle"]["preemptions"] > 0


def test_a_run_on_a_host_that_was_slow_for_a_while_is_simulated_so(tmp_path: Path) -> None:
    (tmp_path / "compare-pool.json").write_text(json.dumps(asdict(POOL)))
    rows = [measured("laps-sd+"), measured("laps-sd+", pace=[1.5])]
    (tmp_path / "compare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steady, slow = replays(tmp_path)
    assert slow["mean_s"] > 1.2 * steady["mean_s"]


def test_the_load_is_found_by_the_times_that_the_run_had() -> None:
    jobs = draw(POOL, "0.95", 1, 100.0)
    # A request takes a 16th of 109.5 * 0.0064 s (109.5 are the mean), and 0.0062 s: 1 / 20 s.
    meant = measured("stock", round_s_by_running=[(16, 0.0064)])
    meant |= {"prefill_s": 0.0052, "prefill_request_s": 0.001}
    assert load_found(jobs, POOL, meant) == pytest.approx(0.95, rel=0.05)
    slow = measured("stock", round_s_by_running=[(16, 0.0128)]) | {"prefill_s": 0.0114}
    assert load_found(jobs, POOL, slow) == pytest.approx(2 * 0.95, rel=0.05)


def test_all_policies_of_a_round_get_the_host_that_one_of_them_had() -> None:
    rows = [measured("stock"), measured("laps-sd+", pace=[1.5]), measured("srtf")]
    rows += [measured("stock-priority"), measured("mlfq") | {"round": 2}]
    found = [(host["policy"], policy) for host, policy in pairs(rows)]
    beside = ["stock", "laps-sd+", "srtf"]
    assert found == [
        *(("laps-sd+", policy) for policy in beside),
        *(("srtf", policy) for policy in beside),
        ("mlfq", "mlfq"),
    ]
    slow, steady = (on_host(POOL, host, "srtf") for host in rows[1:3])
    assert slow["mean_s"] > 1.2 * steady["mean_s"]
    assert (slow["round"], slow["policy"]) == ("1 as laps-sd+ had it", "srtf")


def test_an_engine_has_learnt_before_the_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is there from the first is not judged by an engine that knows nothing yet.

    Told of no other requests, it took those that waited for longer than they were, and what counts
    went before them.
    """
    jobs = draw(POOL, "0.95-bursts", 1, 20.0)
    assert jobs[30].due_s == 0.0
    row = measured("laps-sd+", round_s_by_running=[(16, 0.0064)])
    learnt, more = (simulated(jobs, POOL, row, "laps-sd+")["mean_s"] for _ in range(2))
    assert learnt == more
    monkeypatch.setattr("gpu.replay.EARLIER", 2000)
    assert simulated(jobs, POOL, row, "laps-sd+")["mean_s"] == pytest.approx(learnt, rel=0.05)
    monkeypatch.setattr("gpu.replay.EARLIER", 1)
    assert simulated(jobs, POOL, row, "laps-sd+")["mean_s"] < 0.9 * learnt
