"""Experiments: run once, resumed, and put on a page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from estimators import stages
from laps.engine.types import PolicySpec
from laps.policies.registry import POLICIES, build_policy
from sim import __main__ as command
from sim.acceptance import Independent, Rates
from sim.case import Case
from sim.cells import Cell, Row, simulate_all
from sim.experiments.catalogue import ALL, EXPERIMENTS, Experiment
from sim.experiments.page import Page
from sim.experiments.store import Store
from sim.physics import Physics
from sim.simulate import SHARING, parse_policy
from sim.statistics import estimate, ratio

SMALL = Case(requests=400, load=0.9)
POLICIES_HERE = ("fcfs", "oracle")
SOME = ("reference", "frontier", "limits", "loads", "million", "tenants")
OTHERS = sorted(set(EXPERIMENTS) - {"reference"})
QUIET = Console(quiet=True)


def tiny(name: str = "reference") -> Experiment:
    cases = {label: replace(case, requests=40) for label, case in EXPERIMENTS[name].cases.items()}
    return replace(EXPERIMENTS[name], cases=cases, seeds=2, policies=POLICIES_HERE)


def run_missing(store: Store, experiment: Experiment, jobs: int = 1) -> int:
    cells = store.missing(experiment)
    simulate_all(cells, jobs, QUIET, lambda row: store.append(experiment, row))
    return len(cells)


def test_a_finished_cell_is_not_run_again(tmp_path: Path) -> None:
    store, experiment = Store(tmp_path), tiny()
    assert run_missing(store, experiment) == len(experiment.cases) * 2 * 2
    assert run_missing(store, experiment) == 0
    path = tmp_path / "sim-reference.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:40])  # as if cut short while writing
    assert run_missing(store, experiment) == 1
    other = replace(experiment, seeds=3)
    assert run_missing(store, other) == len(experiment.cases) * 2


def test_processes_give_the_same_rows(tmp_path: Path) -> None:
    cells = [Cell(Case(requests=40), policy, 1, {"axis": 1}) for policy in POLICIES_HERE]

    def rows(jobs: int) -> list[Row]:
        found: list[Row] = []
        simulate_all(cells, jobs, QUIET, found.append)
        found.sort(key=lambda row: str(row["policy"]))
        return [{**row, "wall_s": 0, "cpu_s": 0} for row in found]

    assert rows(1) == rows(2)


def test_the_page_has_a_table_and_a_figure_for_every_experiment(tmp_path: Path) -> None:
    store = Store(tmp_path / "raw")
    experiments = [tiny(name) for name in EXPERIMENTS]
    run_here = [e for e in experiments if e.name in SOME]
    for experiment in run_here:
        run_missing(store, experiment)
    page = Page(store, tmp_path / "docs" / "results.md")
    page.write(experiments)
    text = page.path.read_text()
    assert "{{" not in text
    for figure in re.findall(r"\((figures/.*?)\)", text):
        assert (page.path.parent / figure).exists()
    assert text.count("| fcfs |") >= len(experiments[0].cases)
    assert "| named: chat |" in text
    assert text.count("Not run yet") == len(experiments) - len(run_here)
    summary = json.loads((store.folder / "sim.json").read_text())
    figures = summary["16 running, load 0.9"]["policies"]["fcfs"]
    assert figures["p99_over_fcfs"] == {"mean": 1.0, "half": 0.0}
    assert figures["mean_s"]["half"] > 0
    before = text, {p: p.read_bytes() for p in page.figures.iterdir()}
    page.write(experiments)
    assert before == (page.path.read_text(), {p: p.read_bytes() for p in page.figures.iterdir()})


def test_a_summary_of_one_seed_is_json(tmp_path: Path) -> None:
    store, experiment = Store(tmp_path), replace(tiny(), seeds=1)
    run_missing(store, experiment)
    Page(store, tmp_path / "results.md").write([experiment, *map(tiny, OTHERS)])
    text = (tmp_path / "sim.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert summary["16 running, load 0.9"]["policies"]["fcfs"]["mean_s"]["half"] is None


def test_every_policy_exists_and_is_compared() -> None:
    for experiment in EXPERIMENTS.values():
        for name in set(experiment.policies) - {"oracle", "gittins", SHARING}:
            build_policy(parse_policy(name))
    assert set(POLICIES) - set(ALL) == {"priority"}


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda e: e.name)
def test_cells_are_apart(experiment: Experiment) -> None:
    cells = experiment.cells()
    assert len({cell.digest for cell in cells}) == len(cells)


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


def test_intervals() -> None:
    # Student's t for 4 degrees of freedom is 2.776 at 97.5 %.
    value = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert value.mean == 3.0
    assert value.half == pytest.approx(2.776 * (2.5 / 5) ** 0.5, rel=1e-3)
    assert str(estimate([2.0])) == "2.000"
    paired = ratio([2.0, 4.0], [1.0, 2.0])
    assert (paired.mean, paired.half) == (2.0, 0.0)


def test_estimates_get_better_with_what_is_known_and_with_what_has_been_seen() -> None:
    errors = {
        name: [mean for mean, _ in by_stage.values()]
        for name, by_stage in stages.errors(requests=500, learning=250).items()
    }
    known, at_its_word, weighed, none = errors.values()
    assert known == sorted(known, reverse=True)
    assert known[0] < weighed[0] < min(at_its_word[0], none[0])
    assert known[-1] < 0.05


def test_compare_from_the_command_line() -> None:
    policies = "fcfs,laps-sd:order=strict,oracle"
    options = ["--policies", policies, "--requests", "60", "--seeds", "2", "--jobs", "1"]
    result = CliRunner().invoke(command.app, ["compare", *options], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "laps-sd:order=strict" in result.output
    unknown = CliRunner().invoke(command.app, ["run", "nothing"])
    assert unknown.exit_code == 2
    assert "no experiment nothing" in unknown.output
