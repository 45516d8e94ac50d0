"""What runs in servers and service of the GPU benchmarks: tap, forced acceptance, oracle."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from gpu.forced import TOKEN, ForcedAcceptance
from gpu.moves import FakeRotatingService
from gpu.servers import TAP_SITE, MeasurementError, note_machine, refuse_others, server
from gpu.service import ReplayedOracle, _of_unknown_length
from gpu.tap import NATIVE, Tap, metered
from gpu.workload import MAX_TOKENS
from gpu.yardstick import TURNS, loop_s, waited_s
from laps import wire
from laps.engine.engine import Engine
from laps.engine.types import Arrival, Capacity, Hints, PolicySpec, Snapshot, StepReport
from laps.policies.base import PolicyError
from laps.v1 import worker_pb2
from laps_sglang.hooks import Hooks
from sim.traces import Traces
from step.meter import Meter

NODES, WIDTH = 8, 4
"""Tokens of a draft tree, and its depth with the root."""


def batch_of(*rids: str) -> Any:
    return SimpleNamespace(reqs=[SimpleNamespace(rid=rid) for rid in rids])


def verdict(verify_input: Any, batch: Any, *_: Any) -> Any:
    """What the target says of a batch: nothing is accepted."""
    rows = len(batch.reqs)
    accept_index = torch.full((rows, WIDTH), -1, dtype=torch.int32)
    accept_index[:, 0] = torch.arange(rows) * NODES
    predict = torch.zeros(rows * NODES, dtype=torch.int32)
    return predict, torch.ones(rows, dtype=torch.int32), accept_index


def test_acceptance_is_forced_request_by_request_and_round_by_round() -> None:
    forced = ForcedAcceptance(
        Traces(np.array([1, 0, 3, 2], np.uint8), np.array([0, 2, 4]), drafts=7)
    )
    batch = batch_of("large-0-1", "f00d", "large-1-0")
    rounds = [forced.sample(verdict, None, batch) for _ in range(3)]
    assert [lens.tolist() for _, lens, _ in rounds] == [[4, 1, 2], [3, 1, 1], [3, 1, 1]]
    predict, lens, index = rounds[0]
    assert index.tolist() == [[0, 1, 2, 3], [8, -1, -1, -1], [16, 17, -1, -1]]
    assert lens.dtype == index.dtype == torch.int32
    assert set(predict.tolist()) == {TOKEN}
    assert forced.rows == 6


def test_no_more_is_forced_than_the_draft_is_deep() -> None:
    forced = ForcedAcceptance(Traces(np.array([7], np.uint8), np.array([0, 1]), drafts=7))
    _, lens, _ = forced.sample(verdict, None, batch_of("large-0-0"))
    assert lens.tolist() == [WIDTH]


def decoded(rows: int, finished: bool = False) -> Any:
    mode = SimpleNamespace(is_decode=lambda: True)
    ended = SimpleNamespace(finished=lambda: True)
    return SimpleNamespace(
        forward_mode=mode, reqs=[ended] * (rows - 1) + [SimpleNamespace(finished=lambda: finished)]
    )


def test_the_tap_times_rounds_that_follow_each_other_and_forgets_what_it_told() -> None:
    tap = Tap(None, Meter())
    prefill = SimpleNamespace(
        forward_mode=SimpleNamespace(is_decode=lambda: False), reqs=[None, None]
    )
    outcome = SimpleNamespace(num_correct_drafts=5)
    rounds = (decoded(2), decoded(3), decoded(3), prefill, prefill, decoded(4, finished=True))
    for batch in (prefill, *rounds, prefill, decoded(1), decoded(1)):
        tap.took_result(None, None, batch, outcome)
    output = SimpleNamespace(internal_state={})
    bench = tap.tell(output, None, None).internal_state["bench"]
    # Of six rounds two came right after another, the second of them while the host prepared two
    # prefills of two requests; one came after these, and the last but one after a pause, maybe: all
    # had finished.
    assert [rows for rows, _, _ in bench["steps"]] == [3, 1]
    assert [(prefills, rows) for prefills, rows, _ in bench["stalls"]] == [([2, 2], [3, 4])]
    assert (bench["rows"], bench["committed"]) == (14, 14 + 30)
    again = tap.tell(SimpleNamespace(internal_state={}), None, None).internal_state["bench"]
    assert (again["steps"], again["stalls"], again["rows"]) == ([], [], 0)


def test_the_tap_says_when_a_round_ended_since_it_was_last_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = iter([10.0, 10.5, 10.505, 10.512, 10.6])
    monkeypatch.setattr("gpu.tap.time", SimpleNamespace(perf_counter=lambda: next(now_s)))
    waited = iter([2.0, 2.25, 2.25])
    monkeypatch.setattr("gpu.tap.waited_s", lambda: next(waited))
    tap = Tap(None, Meter())
    for batch in (decoded(2), decoded(2), decoded(3)):
        tap.took_result(None, None, batch, SimpleNamespace(num_correct_drafts=0))
    assert [*tap._steps, tap._newest] == [(2, 5000, 505), (3, 7000, 512)]
    bench = tap.tell(SimpleNamespace(internal_state={}), None, None).internal_state["bench"]
    assert [ended_ms for _, ended_ms in bench["loops"]] == [500, 505, 512]
    assert all(time_ns > 0 for time_ns, _ in bench["loops"])
    assert bench["waited_s"] == 0.25


def test_the_tap_counts_what_hooks_take_without_what_they_are_around(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0
    monkeypatch.setattr("step.meter.time", SimpleNamespace(perf_counter=lambda: now_s))

    def engine(batch: int) -> int:
        nonlocal now_s
        now_s += 4.0
        return batch

    def around(original: Any, batch: int) -> int:
        nonlocal now_s
        now_s += 1.0
        return int(original(batch)) + 1

    meter = Meter()
    table = metered(lambda _: [("engine.decode", "around", around)], meter)
    [(target, kind, hook)] = table(cast(Hooks, None))
    assert (target, kind) == ("engine.decode", "around")
    tap = Tap(None, meter)
    assert hook(engine, 3) == 4
    told = [tap.tell(SimpleNamespace(internal_state={}), None, None) for _ in range(2)]
    assert [output.internal_state["bench"]["hooks_s"] for output in told] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        (("--dtype", "float32"), True),
        (("--dtype=float",), True),
        (("--dtype", "float32", "--dtype", "bfloat16"), False),
        (("--mamba-ssm-dtype", "float32"), False),
        ((), False),
    ],
)
def test_kernels_that_take_no_float32_are_not_asked_to(
    flags: tuple[str, ...], native: bool, tmp_path: Path
) -> None:
    options = Namespace(model=tmp_path, draft=tmp_path, out=tmp_path, sglang_args=list(flags))
    process = server(options, "tree", "stock", environment={"STAGE": "1"})
    assert process._environment["STAGE"] == "1"
    assert process._environment.get(NATIVE) == ("1" if native else None)
    # Nobody but the tap reads it.
    assert (str(TAP_SITE) in process._environment.get("PYTHONPATH", "")) == native


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"sglang_args": ["--dtype", "float32"]}, "sglang_args"),
        ({"model": Path("other")}, "model"),
        ({"shape": "chain"}, "shape"),
        ({}, ""),
    ],
)
def test_results_of_one_thing_do_not_go_on_with_another(
    changed: dict[str, Any], named: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"model": Path("m"), "draft": Path("d"), "shape": "tree"}
    options |= {"out": tmp_path, "sglang_args": [], "short": False}
    note_machine(Namespace(**options), "compare")
    other = Namespace(**options | changed)
    if named:
        with pytest.raises(MeasurementError, match=f"with {named} .* another --out"):
            refuse_others(other, "compare")
    else:
        refuse_others(other, "compare")
    refuse_others(other, "large")  # nothing is there of it


def test_the_loop_goes_round_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []

    def counted(count: int) -> Iterator[int]:
        for turn in range(count):
            turns.append(turn)
            yield turn

    monkeypatch.setattr("gpu.yardstick.range", counted, raising=False)
    assert loop_s() > 0.0
    assert turns == list(range(TURNS))


def test_the_wait_for_a_core_is_what_the_system_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    schedstat = tmp_path / "schedstat"
    monkeypatch.setattr("gpu.yardstick._SCHEDSTAT", schedstat)
    assert waited_s() == 0.0
    schedstat.write_text("9000000000 5000000 7\n")
    assert waited_s() == 0.005


def test_a_ring_of_requests_turns_with_each_round() -> None:
    service = FakeRotatingService()
    request = worker_pb2.Request
    hello = worker_pb2.Hello(step=0, requests=[request(handle=handle) for handle in (1, 2, 3)])
    reports = (
        worker_pb2.StepReport(step=1, arrived=[request(handle=4)]),
        worker_pb2.StepReport(step=2, decoded=[1, 2], committed=[1, 1]),
        worker_pb2.StepReport(step=3, finished=[3]),
    )
    messages = [worker_pb2.WorkerMessage(hello=hello)]
    messages += [worker_pb2.WorkerMessage(report=report) for report in reports]
    service.swaps = 1
    answers = service.Attach(iter(messages), None)
    plans = [list(answer.plan.order) for answer in answers if answer.HasField("plan")]
    assert plans == [[1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 1], [2, 4, 1]]


def test_the_oracle_knows_the_rounds_of_the_pool(tmp_path: Path) -> None:
    path = tmp_path / "pool.json"
    path.write_text(json.dumps({"rounds": [30, 10, 20]}))
    policy = ReplayedOracle(str(path))
    empty = Snapshot(step=0, time_s=0.0, capacity=Capacity(max_running=1, max_resident=4))
    engine = Engine(empty, policy)
    arrivals = [
        Arrival(handle, rid, float(handle), 5, 400)
        for handle, rid in enumerate(("run-0-0", "run-1-1", "run-2-2", "probe"), start=1)
    ]
    engine.observe(StepReport(step=1, time_s=4.0, arrived=tuple(arrivals)))
    assert engine.plan().order == (2, 3, 1, 4)
    # With 15 of its 20 rounds had, the third goes before the one of 10.
    engine.observe(StepReport(step=2, time_s=5.0, prefilled=(3,)))
    for step in range(3, 18):
        engine.observe(StepReport(step=step, time_s=5.0, decoded=(3,), committed=(1,)))
    assert engine.plan().order == (3, 2, 1, 4)


def test_an_oracle_without_a_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="path of a pool"):
        ReplayedOracle(str(tmp_path / "none.json"))


def test_the_service_is_not_told_the_length_that_the_load_fixes() -> None:
    sent = Arrival(1, "run-0-0", 0.0, 5, max_new_tokens=37, hints=Hints(predicted_tokens=80))
    arrival = _of_unknown_length(wire.arrival_to_proto(sent))
    assert arrival.max_new_tokens == MAX_TOKENS
    assert arrival.hints == sent.hints
    engine = Engine(Snapshot(0, 0.0, Capacity(1, 1), (arrival,)), PolicySpec("srtf"))
    assert engine.status(1).predicted_tokens == 80
