"""What is run when, and what is kept of it, without servers."""

from __future__ import annotations

import argparse
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpu.contest import contest, warm_up
from gpu.drawn import read_drawn, requests_path
from gpu.runs import Run
from gpu.servers import MeasurementError
from gpu.workload import Drawn, Pool, digest

TEXTS = ["a", "b"]
POOL = Pool(digest(TEXTS), [4, 4], [2, 2], 0.1, 1.0, 2)
Measure = Callable[[Run], dict[str, Any]]


class Bench:
    """Servers that are fake, and a measurement that a test gives."""

    def __init__(self, out: Path, patch: pytest.MonkeyPatch) -> None:
        self.out = out
        self.started: list[set[str]] = []
        """Systems of each lane."""
        self.measure: Measure = lambda run: {"mean_s": 1.0}
        self.measured: list[Run] = []
        self.sent: list[Drawn] = []
        every = os.sched_getaffinity(0)
        patch.setattr("gpu.lanes.cores_of", lambda *_: every)
        patch.setattr("gpu.lanes.start_systems", self._start)
        patch.setattr("gpu.contest.note_machine", lambda *_: None)
        patch.setattr("gpu.contest.refuse_others", lambda *_: None)
        patch.setattr("gpu.contest.warm_up", lambda *_: None)
        patch.setattr("gpu.contest.measure", self._measure)

    def _start(self, options: Any, name: str, wanted: set[str], *_: Any) -> dict[str, Any]:
        self.started.append(wanted)
        server = SimpleNamespace(wait_until_ready=lambda: None)
        lane = len(self.started)
        system = SimpleNamespace(server=server, prepare=lambda *_: None, lane=lane)
        return dict.fromkeys(wanted, system)

    def _measure(
        self, system: Any, clients: Any, run: Run, drawn: Drawn, *_: Any
    ) -> dict[str, Any]:
        self.measured.append(run)
        self.sent.append(drawn)
        return {"round": run.turn, "load": run.load, "policy": run.policy, **self.measure(run)}

    def contest(self, policies: str, gpus: int, rounds: int = 1, **loads: float) -> None:
        options = argparse.Namespace(
            out=self.out,
            policies=policies.split(),
            gpus=gpus,
            rounds=rounds,
            loads=loads or {"0.95": 4.0},
            running=2,
        )

        def make_pool(stock: Any, clients: Any) -> Pool:
            return replace(POOL, capacity_rps=float(stock.lane))

        contest(options, "x", TEXTS, {}, make_pool)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "x.jsonl").read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_policies_of_a_batch_are_measured_at_the_same_time(bench: Bench) -> None:
    together = threading.Barrier(2, timeout=30.0)

    def measure(run: Run) -> dict[str, Any]:
        together.wait()
        return {"mean_s": 1.0}

    bench.measure = measure
    bench.contest("stock fcfs", gpus=2, rounds=2)
    assert [row["round"] for row in bench.rows()] == [1, 1, 2, 2]
    assert {row["gpus"] for row in bench.rows()} == {2}


def test_what_others_found_is_kept_when_one_fails(bench: Bench) -> None:
    def measure(run: Run) -> dict[str, Any]:
        if run.policy == "stock":
            raise MeasurementError("its server died")
        return {"mean_s": 1.0}

    bench.measure = measure
    with pytest.raises(MeasurementError, match="its server died"):
        bench.contest("stock fcfs srtf", gpus=3)
    assert {row["policy"] for row in bench.rows()} == {"fcfs", "srtf"}
    bench.measured, bench.started, bench.measure = [], [], lambda run: {"mean_s": 2.0}
    bench.contest("stock fcfs srtf", gpus=3)
    assert [run.policy for run in bench.measured] == ["stock"]
    assert bench.started == [{"stock"}, set(), set()], "what is not needed is not started"
    assert len(bench.rows()) == 3
    with pytest.raises(MeasurementError, match="give --gpus 3"):
        bench.contest("stock fcfs srtf", gpus=1)


def test_there_are_no_more_lanes_than_policies(bench: Bench) -> None:
    bench.contest("fcfs srtf", gpus=8)
    assert len(bench.started) == 2
    assert {row["gpus"] for row in bench.rows()} == {2}


def test_the_pool_is_measured_on_all_lanes_at_once_and_the_first_is_kept(bench: Bench) -> None:
    bench.contest("fcfs srtf", gpus=2)
    assert bench.started == [{"stock", "laps"}] * 2
    pool = json.loads((bench.out / "x-pool.json").read_text())
    assert pool["capacity_rps"] == 1.0
    bench.started = []
    bench.contest("fcfs srtf mlfq", gpus=2)
    assert bench.started == [{"laps"}, set()], "the pool is there, and two of three are done"


def test_nothing_is_started_when_all_is_there(bench: Bench) -> None:
    bench.contest("fcfs", gpus=1)
    bench.started = []
    bench.contest("fcfs", gpus=1)
    assert bench.started == []


def test_a_round_goes_on_with_the_requests_that_it_began_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.contest("stock", gpus=1)
    first = read_drawn(requests_path(bench.out, "x"), POOL)[1, "0.95"]
    other = Drawn([replace(job, due_s=job.due_s + 1.0) for job in first.jobs], first.backlog)
    monkeypatch.setattr("gpu.drawn.draw", lambda *_: other)
    bench.contest("stock fcfs", gpus=1)
    assert bench.sent[-1] == first
    (bench.out / "x.jsonl").unlink()
    bench.contest("stock", gpus=1)
    assert bench.sent[-1] == other, "nobody was sent what is kept"
    assert read_drawn(requests_path(bench.out, "x"), POOL)[1, "0.95"] == other


@pytest.mark.parametrize(
    ("service", "hooks_s", "refused"),
    [(object(), 0.5, False), (object(), 0.0, True), (None, 0.0, False), (None, 0.5, True)],
)
def test_a_server_is_refused_whose_hooks_are_not_metered_as_they_should_be(
    service: object, hooks_s: float, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpu.contest.draw", lambda *_: Drawn([]))
    monkeypatch.setattr("gpu.contest.internal_state", lambda _: {"bench": {"hooks_s": hooks_s}})
    system: Any = SimpleNamespace(server=SimpleNamespace(base_url=""), service=service)
    lane: Any = SimpleNamespace(
        systems={"laps": system}, clients=SimpleNamespace(run=lambda *_: [])
    )
    if refused:
        with pytest.raises(MeasurementError, match="laps: hooks"):
            warm_up(lane, POOL, TEXTS, 1.0)
    else:
        warm_up(lane, POOL, TEXTS, 1.0)
