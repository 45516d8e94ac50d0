"""The GPU page, its figures and its verdicts, from made-up rows."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from gpu.figures import (
    capacity_rps,
    drift,
    latency_figures,
    pace,
    prefill_figures,
    prefill_times,
    step_figures,
    steps_at,
)
from gpu.load import Job, Timing
from gpu.page import write
from gpu.summary import Contest, read_results, summary
from gpu.targets import contest_targets, other_targets
from gpu.workload import Drawn, Pool
from sim.traces import save_traces

MEANS = {"stock": 2.0, "mlfq": 1.6, "srtf": 1.3, "laps-sd": 1.2, "laps-sd+": 1.1, "oracle": 1.0}


def row(policy: str, load: str = "0.95", turn: int = 1, **changed: Any) -> dict[str, Any]:
    mean_s = MEANS[policy] * turn
    return {
        "round": turn,
        "load": load,
        "policy": policy,
        "n": 100,
        "counted": 80,
        "failed": 0,
        "mean_s": mean_s,
        "p50_s": mean_s / 2,
        "p99_s": 5 * mean_s,
        "ttft_mean_s": 0.1,
        "ttft_p99_s": 0.2,
        "slowdown_mean": 1.5,
        "throughput_tok_s": 4000.0,
        "lateness_p99_s": 0.001,
        "accept_length": 2.4,
        "running_mean": 14.0,
        "step_p50_s": 0.005,
        "step_p99_s": 0.007,
        "hooks_s": 0.0003,
        "loop_s": 9.4e-6,
        "preemptions": 0,
        "demotions": 0,
        "fallbacks": 0,
        "estimate_error": None,
        "running": 16,
        "resident": 256,
        **changed,
    }


def cost(measure: str, mode: str, turn: int, **figures: float) -> dict[str, Any]:
    return {"measure": measure, "running": 16, "mode": mode, "turn": turn, **figures}


def moved(**figures: float) -> dict[str, Any]:
    return {"running": 16, "rounds": 100, "p50_s": 0.004, "p99_s": 0.008, **figures}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with two rounds at 0.95, costs, and an identity run."""
    rows = [row(policy, turn=turn) for turn in (1, 2) for policy in MEANS]
    write_lines(tmp_path / "compare.jsonl", rows)
    write_lines(
        tmp_path / "throughput.jsonl",
        [
            cost("throughput", "stock", 1, tokens_per_s=1000.0),
            cost("throughput", "remote", 1, tokens_per_s=950.0),
            cost("throughput", "stock", 2, tokens_per_s=2000.0),
            cost("throughput", "remote", 2, tokens_per_s=1940.0),
            cost("steps", "stock", 1, p50_s=0.004, p99_s=0.005),
            cost("steps", "remote", 1, p50_s=0.0041, p99_s=0.0051),
        ],
    )
    write_lines(
        tmp_path / "moves.jsonl",
        [
            moved(swaps=0, turn=1, mean_s=0.004, pauses=0),
            moved(swaps=2, turn=1, mean_s=0.005, pauses=200),
        ],
    )
    case = {"sglang_args": [], "pauses": 12_000, "demotions": 3, "requests": 512, "differences": 0}
    case |= {"stock_requests": 256, "stock_differences": 1}
    (tmp_path / "identity-tree.json").write_text(json.dumps(case))
    save_traces(tmp_path / "acceptance-tree.npz", [[0, 3], [2]], 7)
    return tmp_path


def test_the_summary_has_the_medians_by_load_and_policy(raw: Path) -> None:
    figures = summary(read_results(raw))
    assert figures["loads"]["0.95"]["laps-sd+"]["mean_s"] == pytest.approx(1.65)
    assert figures["loads"]["0.95"]["laps-sd+"]["estimate_error"] is None
    assert figures["identity"] == {"pauses": 12_000, "differences": 0, "demotions": 3}
    assert figures["throughput_ratio"] == pytest.approx(0.96)
    assert figures["throughput_ratio_embedded"] is None
    assert figures["step_added_p99_share"] == pytest.approx(0.02)


def verdicts(folder: Path) -> dict[str, str]:
    """What was found and said of each target, by what it is about."""
    results = read_results(folder)
    targets = contest_targets(results.compare) + other_targets(results)
    return {target.what: target.verdict for target in targets}


def test_targets_are_met_missed_or_not_measured(raw: Path) -> None:
    found = verdicts(raw)
    assert found["mean at 0.95, over stock's"] == "0.55, met"
    assert contest_targets(read_results(raw).compare)[0].oracle == pytest.approx(0.5)
    assert found["mean at 0.9, over stock's"] == "not measured"
    # Half of what it is about is missing.
    assert found["mean over the oracle's, at 0.95 and under bursts"] == "not measured"
    assert found["throughput over stock's"] == "0.96, missed"
    assert found["P99 of a step: added"] == "0.02, missed"
    assert found["outputs that differ in the identity runs"] == "0, met"
    rows = [row(policy, "0.95-bursts") for policy in MEANS]
    with (raw / "compare.jsonl").open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)
    found = verdicts(raw)
    assert found["mean over the oracle's, at 0.95 and under bursts"] == "1.1, met"
    # laps-sd+ has 0.55 of stock's P99 at both; a load at which nobody waits says nothing of tails.
    rows = [row(policy, "0.7", p99_s=1.0) for policy in MEANS]
    with (raw / "compare.jsonl").open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)
    assert verdicts(raw)["P99 over stock's, at 0.95 and under bursts, of one form"] == "0.55, met"
    assert found["mean over SRTF's, at 0.95 and under bursts"] == "0.8462, met"


def test_the_oracle_beside_a_target_is_of_the_load_at_which_it_was_found(raw: Path) -> None:
    rows = [row(policy, "0.95-bursts") for policy in MEANS if policy != "oracle"]
    rows.append(row("oracle", "0.95-bursts", mean_s=0.65))
    with (raw / "compare.jsonl").open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)
    targets = {target.what: target for target in contest_targets(read_results(raw).compare)}
    # At 0.95 laps-sd+ has as much of srtf's, and the oracle more.
    found = targets["mean over SRTF's, at 0.95 and under bursts"]
    assert found.found == pytest.approx(1.1 / 1.3)
    assert found.oracle == pytest.approx(0.5)


def test_nothing_is_met_by_turns_that_differ_by_more_than_is_wanted(raw: Path) -> None:
    def steps(mode: str, turn: int, p99_s: float) -> dict[str, Any]:
        return cost("steps", mode, turn, p50_s=0.004, p99_s=p99_s)

    rows = [steps("stock", turn, 0.005) for turn in (1, 2, 3)]
    rows += [steps("remote", turn, p99_s) for turn, p99_s in ((1, 0.004), (2, 0.005), (3, 0.006))]
    write_lines(raw / "throughput.jsonl", rows)
    found = verdicts(raw)["P99 of a step: added"]
    assert found == "0, not decided: turns differ by more, to 0.2"


def test_what_was_compared_besides_is_on_the_page_and_judged(raw: Path, tmp_path: Path) -> None:
    for name, loads in (("compare-bf16", ("0.95", "0.95-bursts")), ("compare-once", ("0.95",))):
        write_lines(raw / f"{name}.jsonl", [row(p, load) for load in loads for p in MEANS])
        (raw / f"{name}-pool.json").write_text("{}")
    text = write(raw, tmp_path / "docs").read_text()
    assert "### `compare-bf16.jsonl`\n\n**Load 0.95**" in text
    assert "### `compare-once.jsonl`" in text
    # A column for each in which there are the loads that the targets are about.
    assert "| figure | target | real texts | 8B shape | `compare-bf16` | real texts, long" in text
    figures = json.loads((raw / "summary.json").read_text())
    assert figures["others"]["compare-bf16"]["0.95-bursts"]["laps-sd+"]["mean_s"] == 1.1


def test_tables_have_policies_in_an_order_of_their_own(raw: Path) -> None:
    results = read_results(raw)
    rows = [*results.compare.rows, row("mlfq") | {"policy": "stock-priority"}]
    random.Random(0).shuffle(rows)
    assert Contest(rows).policies("0.95") == [
        *("stock", "stock-priority", "srtf", "mlfq"),
        *("laps-sd", "laps-sd+", "oracle"),
    ]


def test_a_form_that_was_run_in_few_rounds_is_not_the_best(raw: Path) -> None:
    lucky = row("laps-sd") | {"policy": "laps-sd:order=strict", "mean_s": 0.1}
    with (raw / "compare.jsonl").open("a") as file:
        file.write(json.dumps(lucky) + "\n")
    assert read_results(raw).compare.best("0.95") == "laps-sd+"


def test_the_page_has_what_was_measured_and_names_what_was_not(raw: Path, tmp_path: Path) -> None:
    (raw / "seen.md").write_text("What is seen.\n")
    text = write(raw, tmp_path / "docs").read_text()
    assert "{{" not in text
    assert "\n\nWhat is seen.\n\n" in text
    assert "| `laps-sd+` | 1.65 (1.10–2.20) | 0.550 | 0.846 | 1.100 | 0.550 | 0.846 | 5.0 |" in text
    assert "| 0.846 | 5.0 | 0.30 | 9.4 |" in text
    assert "Not run yet: `python -m gpu.large`." in text
    assert "| tree | the model's | 1 | 12,000 | 3 | 512 | 0 | 1 of 256 |" in text
    assert "| tree | 2 | 3 | 2.67 |" in text
    # A millisecond more a round, in which two are paused.
    assert "| 2 | 2.00 | 5.000 | 4.000 | 8.000 | 0.500 |" in text
    assert (tmp_path / "docs" / "figures" / "gpu-compare.svg").stat().st_size > 10_000
    assert json.loads((raw / "summary.json").read_text())["throughput_ratio"]


def test_a_policy_with_fewer_rounds_than_others_says_so(raw: Path, tmp_path: Path) -> None:
    with (raw / "compare.jsonl").open("a") as file:
        file.write(json.dumps(row("laps-sd") | {"policy": "fcfs"}) + "\n")
    text = write(raw, tmp_path / "docs").read_text()
    assert "| `fcfs` (1 of 2 rounds) | 1.20 |" in text
    assert "| `stock` | 3.00" in text
    assert "(2 rounds of up to 100 requests, of which 80 or more count; 0 failed" in text


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path: Path) -> None:
    text = write(tmp_path, tmp_path / "docs").read_text()
    assert text.count("Not run yet") == 10
    assert "missed" not in text


def test_of_a_run_the_middle_counts_and_failures_do_not() -> None:
    pool = Pool("", [10] * 20, [5] * 20, 0.1, 1.0, 2)
    jobs = [Job(number, number, float(number), 10, 10) for number in range(20)]
    timings = [
        Timing(n, n, n + 0.01, n + 0.25, n + (100.0 if n in (0, 19) else 1.0), 0 if n == 7 else 10)
        for n in range(20)
    ]
    figures = latency_figures(pool, Drawn(jobs), timings)
    assert (figures["n"], figures["counted"], figures["failed"]) == (20, 15, 1)
    assert figures["mean_s"] == figures["p99_s"] == pytest.approx(1.0)
    assert figures["ttft_mean_s"] == pytest.approx(0.25)
    assert figures["slowdown_mean"] == pytest.approx(2.0)
    assert figures["lateness_p99_s"] == pytest.approx(0.01)
    assert figures["throughput_tok_s"] == pytest.approx(190 / 119, rel=1e-3)


def test_the_pace_of_a_run_is_that_of_its_rounds_whatever_ran_in_them() -> None:
    # 100 rounds of each size in the first window (which begins half a second after the question)
    # and in the third; one round in the second, and one that hung.
    first = [[16, 8000, 5400], [4, 4000, 400]] * 100
    third = [[16, 12_000, 10_600], [4, 6000, 15_000]] * 100
    found = pace({"steps": [*first, [16, 10_000, 7000], *third, [9, 900_000, 17_000]]})
    assert found == pytest.approx([0.8, 1.0, 1.2, 1.0])
    assert drift({"steps": first + third}) == pytest.approx(1.5)
    assert drift({"steps": [[16, 8000, 5400]]}) is None


def test_a_run_without_any_answer_is_no_result() -> None:
    pool = Pool("", [10], [5], 0.1, 1.0, 2)
    with pytest.raises(ValueError, match="log"):
        latency_figures(pool, Drawn([Job(0, 0, 1.0, 10, 10)]), [Timing(0, 1.0, 1.0, 1.0, 2.0, 0)])


def test_capacity_is_that_of_a_batch_which_is_always_full() -> None:
    bench: dict[str, Any] = {"steps": [[16, 4000, 4], [16, 6000, 10], [3, 100, 11]]}
    # 40 of the 16 * 200 rows that a second has, and half of a prefill for two.
    bench |= {"stalls": [[[2], [16, 16], 20_000]]}
    assert capacity_rps(bench, 16, 40.0) == pytest.approx(1 / (40 / (16 * 200) + 0.005))
    assert capacity_rps(bench | {"stalls": []}, 16, 40.0) == pytest.approx(80.0)
    with pytest.raises(ValueError, match="48 requests"):
        capacity_rps(bench, 48, 40.0)


def test_a_prefill_costs_what_its_rounds_take_longer() -> None:
    bench = {"steps": [[16, 5000, 5], [8, 3000, 8]]}
    stalls = [[[1], [16], 14_000], [[2], [16, 8], 19_000], [[3], [8], 16_000]]
    assert prefill_times(bench | {"stalls": stalls}) == pytest.approx((0.007, 0.002))
    # More requests do not make a prefill shorter, and none has no cost of its own below zero.
    stalls = [[[1], [16], 9_000], [[2], [16], 16_000]]
    assert prefill_times(bench | {"stalls": stalls}) == pytest.approx((0.0, 0.005))
    # Between two sizes of batch that were seen, a round takes a time between theirs.
    assert prefill_times(bench | {"stalls": [[[2], [12], 10_000]]}) == pytest.approx((0.006, 0.0))
    # Two on end are two.
    stalls = [[[1, 1], [16], 23_000], [[1], [16], 14_000], [[2], [16], 14_500]]
    assert prefill_times(bench | {"stalls": stalls}) == pytest.approx((0.0085, 0.0005))
    assert prefill_times(bench | {"stalls": []}) is None
    # Rounds that took less than they usually do are no prefill below zero.
    stalls = [[[1], [16], 2_000], [[4], [16], 7_500]]
    assert prefill_times(bench | {"stalls": stalls}) == (0.0, 0.0)
    assert prefill_times(bench | {"stalls": stalls[:1]}) == (0.0, 0.0)


def test_prefills_are_counted_with_what_they_took() -> None:
    bench = {"steps": [[16, 5000, 5]], "stalls": [[[1, 1], [16, 16], 30_000], [[3], [16], 9_000]]}
    assert prefill_figures(bench) == {"prefills": 3, "prefills_s": 0.024}


def test_steps_are_told_apart_by_batch_size() -> None:
    bench = {"steps": [[16, 4000, 4], [16, 6000, 10], [3, 100, 11]], "rows": 35, "committed": 70}
    bench |= {"stalls": [[[1], [16], 9000], [[1], [16], 13000]], "hooks_s": 0.0015}
    bench |= {"loops": [[9000, 4], [9000, 10], [12000, 11], [17000, 11_000]], "waited_s": 0.005}
    assert steps_at(bench, 16) == {"steps": 2, "p50_s": 0.005, "p99_s": 0.00598}
    figures = step_figures(bench)
    assert figures["accept_length"] == 2.0
    assert figures["round_s_by_running"] == [(3, 0.0001), (16, 0.005)]
    assert figures["pace"] == [1.0]
    assert figures["hooks_s"] == 0.0003, "over five rounds, of which two were behind a prefill"
    assert figures["waited_s"] == 0.001
    by_window = [9e-6, None, 1.7e-5]
    assert (figures["loop_s"], figures["loop_s_by_window"]) == (1.05e-5, by_window)
    assert figures["step_drift"] == pytest.approx((6100 / 5100) / 0.8, rel=1e-4)
    # A prefill and the round after it, less a round.
    assert (figures["prefill_s"], figures["prefill_request_s"]) == (0.006, 0.0)
    with pytest.raises(ValueError, match="48 requests"):
        steps_at(bench, 48)
    none = {"steps": [], "stalls": [], "loops": [], "hooks_s": 0.0, "waited_s": 0.0}
    nothing = step_figures(bench | none)
    assert set(nothing) == set(figures)
    assert not any(nothing.values())
