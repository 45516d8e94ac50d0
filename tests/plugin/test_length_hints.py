"""Predicted lengths become hints of requests whose clients gave none, and of no others."""

from __future__ import annotations

import logging
import os
import random
from array import array
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.engine.types import Arrival, Capacity, Handle, Hints, PolicySpec, Snapshot, StepReport
from laps.wire import WorkerIdentity
from laps_sglang.decider import Decider
from laps_sglang.lengths import hints as hints_module
from laps_sglang.lengths.hints import LengthHints
from laps_sglang.lengths.learner import ENOUGH, LengthLearner
from laps_sglang.lengths.prompts import Told
from laps_sglang.lengths.state import load, new_state, save
from laps_sglang.pipe import Bell
from laps_sglang.planner import Setup, SnapshotWanted
from plugin.test_length_learner import STORY, SUM, answers

LONG, SHORT = (*range(100, 119), STORY), (*range(100, 119), SUM)
STEPS = count(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a model that knows what makes answers long."""
    learner = LengthLearner(new_state())
    for lesson in answers(400):
        learner.learn(*lesson)
    path = tmp_path_factory.mktemp("model") / "lengths.npz"
    save(learner.state, path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, model: bytes) -> Path:
    path = tmp_path / "lengths.npz"
    path.write_bytes(model)
    return path


def arrival(handle: Handle, **hints: Any) -> Arrival:
    return Arrival(handle, f"r{handle}", 0.0, 20, 400, Hints(**hints))


def told(
    prompts: dict[Handle, Sequence[int]] | None = None, lengths: dict[Handle, int] | None = None
) -> Told:
    packed = tuple((handle, array("q", p).tobytes()) for handle, p in (prompts or {}).items())
    return Told(packed, tuple((lengths or {}).items()))


def report(*arrived: Arrival, **fields: Any) -> StepReport:
    return StepReport(next(STEPS), 0.0, arrived=arrived, **fields)


def learn_all(hints: LengthHints) -> int:
    """Let it do what can wait; return how many pieces that were."""
    return next(pieces for pieces in count() if not hints.rest())


def test_who_said_nothing_gets_a_prediction(path: Path) -> None:
    hints = LengthHints(path, saves=True)
    hints.take(told({1: LONG, 2: SHORT, 3: LONG}))
    asked = report(arrival(1), arrival(2, tenant="chat"), arrival(3, predicted_tokens=9))
    story, sum_, said = hints.report(asked).arrived
    assert 150 < story.hints.predicted_tokens < 400
    assert 10 < sum_.hints.predicted_tokens < 60
    assert sum_.hints.tenant == "chat"
    assert said == asked.arrived[2]


def test_a_resync_keeps_predictions(path: Path) -> None:
    hints = LengthHints(path, saves=True)
    hints.take(told({1: LONG, 2: SHORT, 3: LONG}))
    arrivals = (arrival(1), arrival(2), arrival(3, predicted_tokens=9))
    predicted = hints.report(report(*arrivals)).arrived
    hints.report(report(finished=(2,)))
    snapshot = Snapshot(9, 1.0, Capacity(2, 4), (*arrivals, arrival(4)))
    requests = hints.snapshot(snapshot).requests
    # The second one has left, and the fourth came before this process.
    assert requests == (predicted[0], arrivals[1], arrivals[2], arrival(4))


def test_who_came_while_there_was_no_planner_process_is_in_the_snapshot(path: Path) -> None:
    hints = LengthHints(path, saves=True)
    hints.take(told({1: LONG, 2: SHORT, 3: LONG}))
    hints.report(report(arrival(3)))
    (first,) = hints.snapshot(Snapshot(9, 1.0, Capacity(2, 4), (arrival(1),))).requests
    assert 150 < first.hints.predicted_tokens < 400
    assert not hints._prompts  # the second one has left


def test_who_arrives_and_leaves_in_one_report_is_forgotten(path: Path) -> None:
    hints = LengthHints(path, saves=True)
    hints.take(told({1: LONG, 2: LONG}, {1: 1}))
    hints.report(report(arrival(1), arrival(2), finished=(1,), aborted=(2,)))
    assert not hints._live
    assert not hints._predicted


def test_nothing_is_predicted_before_enough_is_learnt(tmp_path: Path) -> None:
    hints = LengthHints(tmp_path / "lengths.npz", saves=True)
    draw = random.Random(1)
    predicted = []
    for handle in range(1, 2 * ENOUGH + 1):
        kind = draw.choice((LONG, SHORT))
        hints.take(told({handle: kind}))
        (request,) = hints.report(report(arrival(handle))).arrived
        if request.hints.predicted_tokens:
            predicted.append((handle, kind, request.hints.predicted_tokens))
        hints.take(told(lengths={handle: 300 if kind == LONG else 20}))
        hints.report(report(finished=(handle,)))
        learn_all(hints)
    assert [handle for handle, _, _ in predicted] == list(range(ENOUGH + 1, 2 * ENOUGH + 1))
    assert all((tokens > 100) == (kind == LONG) for _, kind, tokens in predicted)
    assert hints.description["predicts"] is True


def test_only_those_that_finish_teach(path: Path) -> None:
    hints = LengthHints(path, saves=True)
    hints.take(told({1: LONG, 2: LONG, 3: SHORT}))
    hints.report(report(*map(arrival, (1, 2, 3))))
    # 4 came before this process: its prompt is not known.
    hints.take(told(lengths={1: 250, 4: 20}))
    hints.report(report(finished=(1, 4), aborted=(2,)))
    assert learn_all(hints) == 1
    hints.save()
    assert load(path).learnt == 401


def test_it_is_saved_now_and_then_and_at_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints = LengthHints(path, saves=True)
    keeper = LengthHints(path, saves=False)
    before = path.read_bytes()

    def serve(handle: Handle) -> None:
        for one in (hints, keeper):
            one.take(told({handle: LONG}))
            one.report(report(arrival(handle)))
            one.take(told(lengths={handle: 300}))
            one.report(report(finished=(handle,)))
            learn_all(one)

    serve(1)
    assert path.read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr(hints_module, "SAVE_S", 0.0)
        assert learn_all(keeper) == 1
        assert path.read_bytes() == before  # another replica's to write
        assert learn_all(hints) == 1
    assert load(path).learnt == 401
    assert learn_all(hints) == 0
    serve(2)
    hints.save()
    assert load(path).learnt == 402


def test_a_disk_that_is_full_is_told_and_nothing_more(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    hints = LengthHints(path, saves=True)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    hints.take(told({1: LONG}))
    hints.report(report(arrival(1)))
    hints.take(told(lengths={1: 300}))
    assert learn_all(hints) == 1
    hints.save()
    assert "cannot save what was learnt of lengths: [Errno 28]" in caplog.text
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_broke_since_the_start_is_left_alone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text("nonsense")
    hints = LengthHints(path, saves=True)
    assert "learns lengths anew" in caplog.text
    hints.take(told({1: LONG}))
    hints.report(report(arrival(1)))
    hints.take(told(lengths={1: 300}))
    assert learn_all(hints) == 1
    hints.save()
    assert path.read_text() == "nonsense"


def histories() -> st.SearchStrategy[list[tuple[int, str, int]]]:
    """(request, what becomes of it, the client's hint) of some requests, in order of leaving."""
    fates = st.sampled_from(["finished", "aborted"])
    one = st.tuples(st.integers(1, 50), fates, st.sampled_from([0, 0, 7]))
    return st.lists(one, unique_by=lambda request: request[0])


@given(history=histories(), seed=st.integers(0, 99))
def test_reports_are_otherwise_as_they_were_and_nobody_stays(
    history: list[tuple[int, str, int]], seed: int, model: bytes, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("any") / "lengths.npz"
    path.write_bytes(model)
    hints, draw = LengthHints(path, saves=False), random.Random(seed)
    logging.disable(logging.NOTSET)
    for handle, _, hint in sorted(history):
        hints.take(told({handle: draw.choices(range(2000), k=draw.randrange(1, 40))}))
        given_in = report(arrival(handle, predicted_tokens=hint), decoded=(1, 2), drafts=3)
        passed_on = hints.report(given_in)
        (after,) = passed_on.arrived
        assert after.hints.predicted_tokens == hint or hint == 0
        assert after.hints.predicted_tokens > 0
        assert passed_on._replace(arrived=given_in.arrived) == given_in
    finished = 0
    for handle, fate, _ in history:
        if fate == "finished":
            finished += 1
            hints.take(told(lengths={handle: 50}))
        gone: dict[str, Any] = {fate: (handle,)}
        hints.report(report(**gone))
    assert learn_all(hints) == finished
    assert not hints._live
    assert not hints._predicted
    assert not hints._prompts


@pytest.fixture
def bell() -> Iterator[Bell]:
    with open(os.memfd_create("bell"), "r+b", buffering=0) as memory:
        yield Bell(memory.fileno())


def test_the_engine_goes_by_predictions(path: Path, bell: Bell) -> None:
    sent: list[Any] = []
    setup = Setup(
        WorkerIdentity("w", 1), PolicySpec("sjf"), length_model=path, saves_length_model=True
    )
    decider = Decider(setup, bell, sent.append)
    decider.take(Snapshot(0, 0.0, Capacity(1, 4)))
    decider.take(told({1: LONG, 2: SHORT, 3: LONG, 4: SHORT}))
    decider.take(tuple(report(*map(arrival, (1, 2, 3, 4)))))
    orders = [value[2] for value in sent if isinstance(value, tuple)]
    assert orders[-1] in ((2, 4, 1, 3), (4, 2, 1, 3), (2, 4, 3, 1), (4, 2, 3, 1))
    assert any(isinstance(value, SnapshotWanted) for value in sent)
    descriptions = [value for value in sent if isinstance(value, dict)]
    described = descriptions[-1]["length_model"]
    assert described["learnt"] == 400
    assert described["predicts"]
    assert described["error"] < described["error_of_mean"]
    assert not decider.rest()
    decider.close()
