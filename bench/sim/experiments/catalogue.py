"""The experiments: which cases, how many requests, how many seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sim.acceptance import Autocorrelated, Drifting, Independent, Rates, Replay, Switching
from sim.arrivals import Batch, Gamma, Poisson, Recorded
from sim.case import Case
from sim.cells import Cell
from sim.lengths import Lengths
from sim.measured import measured_rounds
from sim.models import MODELS
from sim.physics import Physics, PrefillsAtOnce
from sim.predictions import Classes, Lognormal, NoHint, Useless
from sim.simulate import SHARING, STOCK
from sim.tables import ORACLE
from sim.tenants import Tenant

SHORT_REQUESTS = 300
SHORT_SEEDS = 2
SHORT_POLICIES = (STOCK, "laps-sd", ORACLE)
NO_AGE = "laps-sd+:patience=1e6"
"""The operating point of `laps-sd+` for the mean: age never counts."""
CHOSEN = (STOCK, "srtf", "laps-sd", "laps-sd+", NO_AGE, ORACLE)
WITH_PREFILLS = (STOCK, SHARING, *CHOSEN[1:])
ALL = (
    *(STOCK, "sjf", "srtf", "las", "mlfq"),
    *("laps-sd:order=strict", "laps-sd", "laps-sd+", NO_AGE, ORACLE),
)
"""All policies but `priority`: nobody says one here, and then it is `fcfs`."""
FRONTIER = (
    *(STOCK, "sjf", "srtf", "laps-sd"),
    *(f"laps-sd+:patience={patience:.1f}" for patience in (25, 50)),
    "laps-sd+",
    *(f"laps-sd+:patience={patience:.1f}" for patience in (200, 400)),
    *(NO_AGE, ORACLE),
)


@dataclass(frozen=True)
class Experiment:
    """One question, asked along one axis."""

    name: str
    title: str
    axis: str
    cases: Mapping[str, Case]
    """By the label on the axis, in order."""
    seeds: int = 3
    policies: Sequence[str] = CHOSEN

    def cells(self) -> list[Cell]:
        """Return every simulation of the experiment, a seed after the other.

        So a run that is cut short leaves fewer seeds, and not fewer cases.
        """
        return [
            Cell(case, policy, seed, {self.axis: label})
            for seed in range(self.seeds)
            for label, case in self.cases.items()
            for policy in self.policies
        ]

    def short(self) -> Experiment:
        """Return the same with few requests: to see that it works, not to learn from."""
        cases = {
            label: replace(case, requests=min(case.requests, SHORT_REQUESTS))
            for label, case in self.cases.items()
        }
        return replace(self, cases=cases, seeds=SHORT_SEEDS, policies=SHORT_POLICIES)


LONG = Case(requests=20_000)
ONE_RUNNING = Case(requests=3_000, physics=Physics(max_running=1))
BASE = Case(requests=2_500, load=0.95)
LOADS = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.2)
PREFILL = Physics(prefill_s=5e-3, prefill_token_s=30e-6)


def closed(count: int) -> Case:
    return replace(BASE, arrivals=Batch(), requests=count, measured=(0.0, 1.0))


def replay(drafts: str) -> Replay:
    return Replay(f"bench/results/gpu/acceptance-{drafts}.npz")


def measured(drafts: str, running: int) -> Case:
    """Return SmolLM2 with its EAGLE head on an H200: what was measured of rounds, and accepted."""
    physics = replace(
        MODELS[0].physics(drafts=3, max_running=running), round_time=measured_rounds(drafts)
    )
    return replace(BASE, acceptance=replay(drafts), physics=physics)


CHAT = Tenant("chat", 0.5, Lengths("azure-conv"), Independent(rates=Rates(mean=0.4, sd=0.15)))
CODE = Tenant("code", 0.5, Lengths("mbpp"), Independent(rates=Rates(mean=0.75, sd=0.15)))
TENANTS = replace(BASE, tenants=(CHAT, CODE), predictions=NoHint())


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "reference",
            "The reference case",
            "case",
            {
                "16 running, load 0.9": replace(LONG, load=0.9),
                "16 running, load 0.95": replace(LONG, load=0.95),
                "16 running, load 0.975": replace(LONG, load=0.975),
                "16 running, load 1.0": replace(LONG, load=1.0),
                "1 running, load 0.9": replace(ONE_RUNNING, load=0.9),
                "1 running, load 0.95": replace(ONE_RUNNING, load=0.95),
            },
            seeds=5,
            policies=ALL,
        ),
        Experiment(
            "frontier",
            "Mean against P99",
            "case",
            {"16 running, load 0.975": replace(LONG, load=0.975)},
            seeds=5,
            policies=FRONTIER,
        ),
        Experiment(
            "limits",
            "What can be known",
            "case",
            {
                "16 running, load 0.975": replace(BASE, load=0.975),
                "1 running, load 0.95": replace(ONE_RUNNING, load=0.95),
            },
            policies=(STOCK, "laps-sd+", NO_AGE, "gittins", ORACLE),
        ),
        Experiment(
            "loads", "Load", "load", {f"{load:g}": replace(BASE, load=load) for load in LOADS}
        ),
        Experiment(
            "arrivals",
            "Arrivals",
            "arrivals",
            {
                "Poisson": replace(BASE, arrivals=Poisson()),
                "gamma, cv 3": replace(BASE, arrivals=Gamma(3.0)),
                "Azure trace": replace(LONG, load=0.95, arrivals=Recorded()),
                "batch of 64": closed(64),
                "batch of 512": closed(512),
                "batch of 4096": closed(4096),
            },
        ),
        Experiment(
            "lengths",
            "Output lengths",
            "data set",
            {
                "Azure": BASE,
                "Azure, in order": replace(BASE, lengths=Lengths(in_order=True)),
                "chat (dolly)": replace(BASE, lengths=Lengths("dolly")),
                "code (MBPP)": replace(BASE, lengths=Lengths("mbpp")),
                "maths (GSM8K)": replace(BASE, lengths=Lengths("gsm8k")),
            },
        ),
        Experiment(
            "tenants",
            "Tenants",
            "tenants",
            {
                "named": TENANTS,
                "not named": replace(TENANTS, says_tenant=False),
            },
        ),
        Experiment(
            "predictions",
            "Errors of predicted lengths",
            "prediction",
            {
                "perfect": replace(BASE, predictions=Lognormal(0.0)),
                "lognormal 0.4": replace(BASE, predictions=Lognormal(0.4)),
                "lognormal 0.8": replace(BASE, predictions=Lognormal(0.8)),
                "lognormal 1.2": replace(BASE, predictions=Lognormal(1.2)),
                "BERT classes": replace(BASE, predictions=Classes()),
                "learnt, references": replace(BASE, predictions=Classes("prompts-references")),
                "learnt, SmolLM2": replace(BASE, predictions=Classes("prompts-smollm2")),
                "none": replace(BASE, predictions=NoHint()),
                "useless": replace(BASE, predictions=Useless()),
            },
        ),
        Experiment(
            "dispersion",
            "Acceptance from request to request",
            "standard deviation",
            {
                f"{sd:g}": replace(BASE, acceptance=Independent(rates=Rates(sd=sd)))
                for sd in (0.0, 0.1, 0.25, 0.4)
            },
        ),
        Experiment(
            "dynamics",
            "Acceptance within a request",
            "process",
            {
                "independent": BASE,
                "autocorrelated": replace(BASE, acceptance=Autocorrelated()),
                "drifting": replace(BASE, acceptance=Drifting()),
                "switching": replace(BASE, acceptance=Switching()),
                "recorded, chain": replace(BASE, acceptance=replay("chain")),
                "recorded, tree": replace(BASE, acceptance=replay("tree")),
            },
        ),
        Experiment(
            "models",
            "Sizes of models",
            "model",
            {
                **{m.name: replace(BASE, physics=m.physics(drafts=3)) for m in MODELS},
                "0.1B, measured, 16 running": measured("chain", 16),
                "0.1B, measured, 48 running": replace(measured("tree", 48), requests=10_000),
            },
            policies=WITH_PREFILLS,
        ),
        Experiment(
            "hosts",
            "What a real worker adds",
            "worker",
            {
                "reference": BASE,
                "plan one step late": replace(BASE, physics=Physics(plan_delay=1)),
                "prefill": replace(BASE, physics=PREFILL),
                "prefill, not shared": replace(BASE, physics=PrefillsAtOnce.of(PREFILL)),
                "prefill, 32 slots": replace(BASE, physics=replace(PREFILL, max_resident=32)),
                "prefill, 30k tokens of KV": replace(
                    BASE, physics=replace(PREFILL, kv_tokens=30_000)
                ),
                "4 workers": replace(BASE, workers=4),
            },
            policies=WITH_PREFILLS,
        ),
        Experiment(
            "million",
            "A million requests",
            "case",
            {"16 running, load 0.9": Case(requests=1_000_000)},
            seeds=1,
            policies=("laps-sd+",),
        ),
    )
}
"""Every experiment by its name."""
