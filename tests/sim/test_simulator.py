"""The simulated worker: memory, late plans, prefills, several of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from laps.engine.selection import rank_by
from laps.engine.types import PolicySpec
from sim.case import Case
from sim.direct import latencies
from sim.host import run
from sim.measured import measured_rounds
from sim.oracle import Oracle
from sim.physics import Buckets, Linear, Pace, Physics, PrefillsAtOnce
from sim.simulate import simulate
from sim.worker import SimWorker
from sim.workload import Workload, plain

FCFS = PolicySpec("fcfs")
SMALL = Case(requests=400, load=0.9)


def at_once(*rounds: int) -> Workload:
    return plain(np.zeros(len(rounds)), np.array(rounds))


@pytest.mark.parametrize("policy", ["fcfs", "laps-sd:quantum=2", "oracle"])
@pytest.mark.parametrize(
    "physics",
    [
        Physics(),
        Physics(plan_delay=1),
        Physics(max_resident=20),
        Physics(kv_tokens=9_000),
        Physics(kv_tokens=9_000, max_resident=24, plan_delay=1, prefill_s=0.01),
        Physics(max_running=4, prefill_s=0.002, prefill_token_s=1e-5),
    ],
)
def test_every_request_gets_its_tokens_and_no_more(physics: Physics, policy: str) -> None:
    result = simulate(replace(SMALL, physics=physics, measured=(0, 1)), policy, seed=3)
    # All that was taken is given back, and nobody is faster than alone on an idle worker.
    assert (result.slowdown >= 1 - 1e-9).all()
    assert result.run.demotions == 0 or physics.kv_tokens or physics.max_resident
    rounds = int(result.workload.rounds.counts.sum())
    assert rounds / physics.max_running <= result.run.rounds + result.run.demotions
    if physics.kv_tokens:
        assert result.run.kv_peak_tokens <= physics.kv_tokens


def test_the_choice_is_that_of_rank_by(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = SimWorker._ranked
    asked = 0

    def checked(self: SimWorker):  # type: ignore[no-untyped-def]
        nonlocal asked
        asked += 1
        found = list(ranked(self))
        assert [r.handle for r in found] == sorted(self.live, key=rank_by(self._plan))
        return iter(found)

    monkeypatch.setattr(SimWorker, "_ranked", checked)
    simulate(replace(SMALL, load=1.2), "laps-sd:quantum=2", seed=1)
    assert asked > 100


def test_a_shortcut_past_the_choice_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(SMALL, physics=Physics(plan_delay=1, kv_tokens=12_000))
    quick = simulate(case, "laps-sd", seed=2).run.latency_s
    swap = SimWorker._swap

    def unsettled(self: SimWorker, chosen: list[object]) -> None:
        swap(self, chosen)  # type: ignore[arg-type]
        self._settled = False

    monkeypatch.setattr(SimWorker, "_swap", unsettled)
    assert (simulate(case, "laps-sd", seed=2).run.latency_s == quick).all()


def test_a_prefill_blocks_decoding() -> None:
    workload = replace(at_once(2, 1), prompt_tokens=np.array([10, 30]))
    physics = Physics(Linear(1.0), max_running=2, prefill_s=1.0, prefill_token_s=0.1)
    # Both in one prefill of 1 + 4 s, then a round of 1 s each.
    assert run(workload, physics, FCFS).latency_s.tolist() == [7.0, 6.0]
    late = replace(workload, arrival_s=np.array([0.0, 3.5]))
    # 0-2 s first prefill, 2-3 and 3-4 s two rounds, 4-8 s second prefill.
    assert run(late, physics, FCFS).latency_s.tolist() == [4.0, 5.5]


def test_a_worker_may_be_slower_at_times() -> None:
    workload = replace(at_once(2, 2), arrival_s=np.array([0.0, 6.0]))
    physics = Physics(Linear(1.0), max_running=1, prefill_s=1.0)
    # Prefill and two rounds: those that begin in the second 2 s take three times as long.
    pace = Pace((1.0, 3.0), window_s=2.0)
    assert run(workload, physics, FCFS, pace=pace).latency_s.tolist() == [5.0, 3.0]


@pytest.mark.parametrize("policy", ["fcfs-sharing", "laps-sd+"])
def test_newcomers_share_their_prefills(policy: str) -> None:
    shared, apart = (
        simulate(Case(load=0.95, requests=1_500, physics=kind(prefill_s=0.008)), policy)
        for kind in (Physics, PrefillsAtOnce)
    )
    prefills = [result.run.iterations - result.run.rounds for result in (shared, apart)]
    assert prefills[0] < 0.8 * prefills[1]
    assert shared.figures.mean_s < apart.figures.mean_s


def test_paused_requests_are_demoted_for_a_round_and_prefilled_again() -> None:
    # Two at a time and no plan yet: #1 and #2 run. Then #3 and #4, shorter, take their places.
    workload = at_once(9, 9, 4, 4)
    physics = Physics(Linear(1.0), max_running=2, kv_tokens=16)
    oracle = Oracle(workload.rounds.counts)
    outcome = run(workload, physics, oracle)
    free = run(workload, replace(physics, kv_tokens=0), oracle)
    assert free.demotions == 0
    assert outcome.demotions > 0
    assert outcome.kv_peak_tokens <= 16 < free.kv_peak_tokens
    # A second prefill brings a token, so that it costs no round where it takes no time.
    assert outcome.rounds <= free.rounds + outcome.demotions


def test_memory_too_small_for_one_request_is_an_error() -> None:
    with pytest.raises(ValueError, match="too few for one request"):
        run(at_once(20), Physics(Linear(1.0), kv_tokens=10), FCFS)


def test_a_newcomer_gets_the_slot_of_a_paused_request() -> None:
    workload = at_once(9, 9, 3, 3, 1)
    oracle = Oracle(workload.rounds.counts)
    running = Physics(Linear(1.0), max_running=2, max_resident=2)
    # Both slots are taken by requests that run, and nobody who runs gives way to a newcomer.
    outcome = run(workload, running, oracle)
    assert outcome.latency_s[:2].tolist() == [9.0, 9.0]
    assert (outcome.preemptions, outcome.demotions) == (0, 0)
    # From the second round on #5 and #3 would go first, but there is one slot to spare: #5 pauses
    # #2, whose slot #3 then takes. #1 runs until #4 takes its place in the same way.
    outcome = run(workload, replace(running, max_resident=3), oracle)
    assert outcome.latency_s[4] == 2.0
    assert outcome.demotions > 0
    assert outcome.latency_s[[2, 3]].max() < 9.0 < outcome.latency_s[[0, 1]].min()


def test_buckets_pad_the_batch_to_the_next_measured_one() -> None:
    buckets = Buckets(((1, 1.0), (4, 2.0)))
    assert [buckets.seconds(batch) for batch in (1, 2, 4)] == [1.0, 2.0, 2.0]
    with pytest.raises(ValueError, match="no round time for 5"):
        run(at_once(1), Physics(buckets, max_running=5), FCFS)


def test_measured_rounds_take_longer_with_more_requests() -> None:
    for drafts in ("chain", "tree"):
        buckets = measured_rounds(drafts)
        times = [buckets.seconds(batch) for batch in range(1, 49)]
        assert times == sorted(times)
        assert 3e-3 < times[0] < times[-1] < 10e-3


def test_workers_share_the_load() -> None:
    workload = at_once(4, 4, 4, 1)
    physics = Physics(Linear(1.0), max_running=1)
    in_turn = run(workload, physics, FCFS, workers=2, dispatch="round-robin")
    assert in_turn.latency_s.tolist() == [4.0, 4.0, 8.0, 5.0]
    later = replace(workload, arrival_s=np.array([0.0, 0.0, 4.5, 4.75]))
    assert run(later, physics, FCFS, workers=2).latency_s.tolist() == [4.0, 4.0, 4.0, 1.0]


@pytest.mark.parametrize("running", [1, 16])
def test_another_simulator_of_the_same_assumptions_agrees(running: int) -> None:
    case = replace(SMALL, requests=1_000, physics=Physics(max_running=running))
    workload = case.draw(9)
    fcfs = simulate(case, "fcfs", 9).run.latency_s
    assert latencies(workload, case.physics, shortest=False) == pytest.approx(fcfs, abs=1e-6)
    oracle = simulate(case, "oracle", 9).run.latency_s
    direct = latencies(workload, case.physics, shortest=True)
    assert direct.mean() == pytest.approx(oracle.mean(), rel=0.01)


def test_a_seed_gives_the_same_figures_again() -> None:
    first = simulate(SMALL, "laps-sd", seed=7).run.latency_s
    assert (first == simulate(SMALL, "laps-sd", seed=7).run.latency_s).all()
    assert (first != simulate(SMALL, "laps-sd", seed=8).run.latency_s).any()
