"""Accept lengths: drawn from a process, replayed from a recording, put in another order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.acceptance import (
    AcceptanceProcess,
    Autocorrelated,
    Drifting,
    Independent,
    Rates,
    Replay,
    Switching,
    draw_rounds,
)
from sim.case import Case
from sim.simulate import simulate
from sim.traces import TraceError, load_traces, save_traces
from sim.workload import Rounds

SMALL = Case(requests=400, load=0.9)
PROCESSES = [
    Independent(),
    Autocorrelated(),
    Drifting(),
    Switching(),
    Independent(drafts=0),
    Independent(rates=Rates(sd=0.0)),
]


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_rounds_bring_all_tokens_but_the_first(process: AcceptanceProcess) -> None:
    outputs = np.random.default_rng(0).integers(2, 300, 9_000)
    rounds = draw_rounds(process, np.random.default_rng(1), outputs)
    sums = np.add.reduceat(rounds.accept_lengths.astype(np.int64), rounds.offsets[:-1])
    assert (sums == outputs - 1).all()
    assert rounds.accept_lengths.max() <= process.drafts + 1
    assert rounds.accept_lengths.min() >= 1


def test_independent_acceptance_has_the_leading_successes_of_its_rate() -> None:
    outputs = np.full(2_000, 400)
    rounds = draw_rounds(Independent(rates=Rates(0.5, 0.0)), np.random.default_rng(1), outputs)
    # 1 + 1/2 + 1/4 + 1/8 tokens a round, less what the last round has beyond the length.
    assert 399 / rounds.counts.mean() == pytest.approx(1.875, rel=0.005)


@pytest.mark.parametrize(
    "process", [Autocorrelated(rates=Rates(0.5, 0.0)), Switching(rates=Rates(0.5, 0.3))]
)
def test_dependent_processes_remember(process: AcceptanceProcess) -> None:
    rounds = draw_rounds(process, np.random.default_rng(1), np.full(300, 600))
    own = [
        np.corrcoef(lengths[:-1], lengths[1:])[0, 1]
        for lengths in np.split(rounds.accept_lengths, rounds.offsets[1:-1])
    ]
    assert np.nanmean(own) > 0.1


def test_recorded_acceptance_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "traces.npz"
    save_traces(path, [[3, 3, 3], [], [0, 1]], drafts=3)
    traces = load_traces(path)
    assert (len(traces), traces.drafts, traces.accepted.tolist()) == (2, 3, [3, 3, 3, 0, 1])
    process = Replay(str(path))
    rounds = draw_rounds(process, np.random.default_rng(0), np.full(40, 13))
    replayed = {
        tuple(lengths.tolist()) for lengths in np.split(rounds.accept_lengths, rounds.offsets[1:-1])
    }
    assert replayed == {(4, 4, 4), (1, 2) * 4, (2, 1) * 4}
    assert simulate(replace(SMALL, acceptance=process), "fcfs").run.rounds > 0


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"accepted": np.array([1], np.uint8)}, "no recording"),
        ({"accepted": np.array([1]), "offsets": np.array([0, 1]), "drafts": 3}, "uint8"),
        (
            {"accepted": np.array([9], np.uint8), "offsets": np.array([0, 1]), "drafts": 3},
            "0 to 3 drafts",
        ),
        (
            {"accepted": np.array([1], np.uint8), "offsets": np.array([0, 0, 1]), "drafts": 3},
            "a round or more",
        ),
    ],
)
def test_a_bad_recording_is_refused(tmp_path: Path, content: dict[str, object], fault: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez_compressed(path, **content)  # type: ignore[arg-type]
    with pytest.raises(TraceError, match=fault):
        load_traces(path)


def test_rounds_can_be_put_in_another_order() -> None:
    rounds = Rounds(np.array([1, 2, 3, 4, 5, 6], np.uint8), np.array([0, 1, 3, 6]))
    assert Rounds.joined([rounds, rounds]).take(np.array([2, 0])).counts.tolist() == [3, 1]
    taken = rounds.take(np.array([2, 0, 1]))
    assert taken.accept_lengths.tolist() == [4, 5, 6, 1, 2, 3]
    assert taken.offsets.tolist() == [0, 3, 4, 6]
