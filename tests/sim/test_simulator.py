"""The simulator's own rules: memory, late plans, prefills, several workers, what is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from laps.engine.selection import rank_by
from laps.engine.table import Request
from laps.engine.types import PolicySpec
from sim import arrivals, predictions
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
from sim.cells import Cell
from sim.direct import latencies
from sim.gittins import Gittins
from sim.host import request_at, run
from sim.lengths import Lengths
from sim.measured import measured_rounds
from sim.oracle import Oracle
from sim.physics import Buckets, Linear, Physics
from sim.simulate import parse_policy, simulate
from sim.tenants import Tenant
from sim.traces import TraceError, load_traces, save_traces
from sim.worker import SimWorker
from sim.workload import Rounds, Workload, plain

FCFS = PolicySpec("fcfs")
SMALL = Case(requests=400, load=0.9)


def at_once(*rounds: int) -> Workload:
    return plain(np.zeros(len(rounds)), np.array(rounds))


# --- the worker -----------------------------------------------------------------------------------


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


# --- what is drawn --------------------------------------------------------------------------------

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


@pytest.mark.parametrize(("process", "least"), [(Autocorrelated(), 0.1), (Switching(), 0.1)])
def test_dependent_processes_remember(process: AcceptanceProcess, least: float) -> None:
    process = replace(process, rates=Rates(0.5, 0.0 if least else 0.25))  # type: ignore[type-var]
    if isinstance(process, Switching):
        process = replace(process, rates=Rates(0.5, 0.3))
    rounds = draw_rounds(process, np.random.default_rng(1), np.full(300, 600))
    own = [
        np.corrcoef(lengths[:-1], lengths[1:])[0, 1]
        for lengths in np.split(rounds.accept_lengths, rounds.offsets[1:-1])
    ]
    assert np.nanmean(own) > least


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


@pytest.mark.parametrize("process", [arrivals.Poisson(), arrivals.Gamma(), arrivals.Recorded()])
def test_arrivals_have_the_mean_rate(process: arrivals.Arrivals) -> None:
    times = process.times(np.random.default_rng(2), 40_000)
    assert len(times) == 40_000
    assert (np.diff(times) >= 0).all()
    assert times[-1] == pytest.approx(40_000, rel=0.05)


def test_recorded_arrivals_keep_their_bursts() -> None:
    def dispersion(process: arrivals.Arrivals) -> float:
        counts = np.bincount((process.times(np.random.default_rng(3), 19_000) // 300).astype(int))
        return float(counts[:-1].var() / counts[:-1].mean())

    assert dispersion(arrivals.Poisson()) < 2 < dispersion(arrivals.Recorded())


def test_predictions_are_as_good_as_they_say() -> None:
    outputs = Case().lengths.draw_outputs(np.random.default_rng(0), 20_000)

    def correlation(kind: predictions.Predictions) -> float:
        predicted = kind.draw(np.random.default_rng(1), outputs)
        return float(np.corrcoef(np.log(predicted), np.log(outputs))[0, 1])

    assert (predictions.Lognormal(0.0).draw(np.random.default_rng(1), outputs) == outputs).all()
    assert abs(correlation(predictions.Useless())) < 0.05
    assert 0.5 < correlation(predictions.Classes()) < correlation(predictions.Lognormal(0.3))


def test_tenants_send_their_own_kind_of_requests() -> None:
    def kind(name: str, share: float, p: float, low: int) -> Tenant:
        return Tenant(name, share, Lengths(low=low, high=low), Independent(rates=Rates(p, 0.0)))

    tenants = (kind("slow", 0.25, 0.02, 50), kind("quick", 0.75, 0.97, 20))
    case = replace(SMALL, requests=4_000, tenants=tenants, measured=(0, 1))
    workload = case.draw(1)
    quick = workload.tenant == 1
    assert quick.mean() == pytest.approx(0.75, abs=0.03)
    assert set(workload.output_tokens[quick]) == {20}
    assert set(workload.output_tokens[~quick]) == {50}
    assert workload.rounds.counts[quick].max() < 20 < workload.rounds.counts[~quick].min()
    hints = [request_at(workload, index).arrival.hints.tenant for index in (0, 1, 2, 3)]
    assert hints == [("slow", "quick")[sender] for sender in workload.tenant[:4]]
    unnamed = replace(case, says_tenant=False).draw(1)
    assert (unnamed.rounds.accept_lengths == workload.rounds.accept_lengths).all()
    assert request_at(unnamed, 0).arrival.hints.tenant == ""
    figures = simulate(replace(case, requests=400), "fcfs", seed=1).figures
    assert figures.tenants.keys() == {"slow", "quick"}
    assert 1.0 <= figures.tenants["slow"] < figures.tenants["quick"]


def test_rounds_can_be_put_in_another_order() -> None:
    rounds = Rounds(np.array([1, 2, 3, 4, 5, 6], np.uint8), np.array([0, 1, 3, 6]))
    assert Rounds.joined([rounds, rounds]).take(np.array([2, 0])).counts.tolist() == [3, 1]
    taken = rounds.take(np.array([2, 0, 1]))
    assert taken.accept_lengths.tolist() == [4, 5, 6, 1, 2, 3]
    assert taken.offsets.tolist() == [0, 3, 4, 6]


def test_lengths_in_order_depend_on_time() -> None:
    def spread(lengths: Lengths) -> float:
        """Return the variance of the means of 100 neighbours, in units of what chance gives it."""
        outputs = lengths.draw_outputs(np.random.default_rng(4), 20_000)
        return float(outputs.reshape(-1, 100).mean(axis=1).var() / (outputs.var() / 100))

    assert spread(Lengths()) == pytest.approx(1.0, abs=0.3)
    assert spread(Lengths(in_order=True)) > 5
    drawn = (Lengths(in_order=order) for order in (False, True))
    means = [each.draw_outputs(np.random.default_rng(5), 40_000).mean() for each in drawn]
    assert means[1] == pytest.approx(means[0], rel=0.03)


def test_measured_rounds_take_longer_with_more_requests() -> None:
    for drafts in ("chain", "tree"):
        buckets = measured_rounds(drafts)
        times = [buckets.seconds(batch) for batch in range(1, 49)]
        assert times == sorted(times)
        assert 3e-3 < times[0] < times[-1] < 10e-3


def test_the_load_is_what_the_case_says() -> None:
    case = Case(requests=40_000, load=0.5, workers=3)
    workload = case.draw(0)
    slot_s = workload.rounds.counts.mean() * (8e-3 + 0.15e-3 * 16) / 16
    rate = len(workload) / workload.arrival_s[-1]
    assert rate * slot_s / 3 == pytest.approx(0.5, rel=0.02)


def test_a_request_arrives_as_it_was_drawn() -> None:
    workload = SMALL.draw(0)
    request = request_at(workload, 5)
    assert request.arrival.handle == 6
    assert request.arrival.hints.predicted_tokens == workload.predicted_tokens[5]
    assert sum(request.accept_lengths) == workload.output_tokens[5] - 1


def test_the_gittins_index_is_what_is_left_where_nothing_is_uncertain() -> None:
    # Two drafts of three are accepted in the mean of p = 0.8, and 40 tokens are to come.
    certain = Independent(rates=Rates(0.8, 0.0))
    case = replace(SMALL, lengths=Lengths(low=41, high=41), acceptance=certain)
    request = Request(request_at(case.draw(0), 0).arrival)
    accept_length = 1 + 0.8 + 0.8**2 + 0.8**3
    assert Gittins.of(case, case.draw(0)).key(request)[0] == np.ceil(40 / accept_length)


def test_the_gittins_index_is_between_knowing_all_and_knowing_nothing() -> None:
    short = Lengths(high=150)
    case = replace(SMALL, requests=150, lengths=short, physics=Physics(max_running=1))
    means = [simulate(case, name, 5).figures.mean_s for name in ("oracle", "gittins", "fcfs")]
    assert means == sorted(means)
    with pytest.raises(ValueError, match="independent acceptance"):
        simulate(replace(case, acceptance=Drifting()), "gittins")
    with pytest.raises(ValueError, match="hints that err"):
        simulate(replace(case, predictions=predictions.Lognormal(0.0)), "gittins")


# --- names ----------------------------------------------------------------------------------------


def test_policies_by_name() -> None:
    assert parse_policy("laps-sd:order=strict:quantum=8") == PolicySpec(
        "laps-sd", {"order": "strict", "quantum": 8}
    )
    with pytest.raises(ValueError, match="PARAMETER=VALUE"):
        parse_policy("laps-sd:quantum")


def test_a_cell_is_named_by_all_that_its_figures_depend_on() -> None:
    cell = Cell(SMALL, "fcfs", 0)
    assert cell.digest == Cell(Case(requests=400), "fcfs", 0).digest
    others = {
        replace(cell, seed=1).digest,
        replace(cell, policy="oracle").digest,
        replace(cell, case=replace(SMALL, acceptance=Independent(rates=Rates(sd=0.1)))).digest,
        replace(cell, case=replace(SMALL, physics=Physics(plan_delay=1))).digest,
        cell.digest,
    }
    assert len(others) == 5
