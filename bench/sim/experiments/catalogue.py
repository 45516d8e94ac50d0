"""The experiments: which cases, how many requests, how many seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from laps.policies.registry import POLICIES
from sim.acceptance import Autocorrelated, Drifting, Independent, Rates, Replay, Switching
from sim.arrivals import Batch, Gamma, Poisson, Recorded
from sim.case import Case
from sim.cells import Cell
from sim.lengths import Lengths
from sim.models import MODELS
from sim.physics import Physics
from sim.predictions import Classes, Lognormal, NoHint, Useless
from sim.tables import ORACLE, STOCK

SHORT_REQUESTS = 300
SHORT_SEEDS = 2
SHORT_POLICIES = (STOCK, "laps-sd", ORACLE)


@dataclass(frozen=True)
class Experiment:
    """One question, asked along one axis."""

    name: str
    title: str
    axis: str
    cases: Mapping[str, Case]
    """By the label on the axis, in order."""
    seeds: int = 5

    def cells(self, policies: Sequence[str]) -> list[Cell]:
        """Return every simulation of the experiment, a seed after the other.

        So a run that is cut short leaves fewer seeds, and not fewer cases.
        """
        return [
            Cell(case, policy, seed, {self.axis: label})
            for seed in range(self.seeds)
            for label, case in self.cases.items()
            for policy in policies
        ]

    def short(self) -> Experiment:
        """Return the same with few requests: to see that it works, not to learn from."""
        cases = {
            label: replace(case, requests=min(case.requests, SHORT_REQUESTS))
            for label, case in self.cases.items()
        }
        return replace(self, cases=cases, seeds=SHORT_SEEDS)


def contenders() -> list[str]:
    """Return the policies that are compared: those of the registry, and the clairvoyant one.

    Not `priority`: nobody says one here, and then it is `fcfs`.
    """
    known = sorted(set(POLICIES) - {STOCK, "priority"})
    return [STOCK, *known, "laps-sd:order=strict", ORACLE]


BASE = Case(requests=20_000)
LOADS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.2)
ONE_RUNNING = Physics(max_running=1)


def closed(count: int) -> Case:
    return replace(BASE, arrivals=Batch(), requests=count, measured=(0.0, 1.0))


def recorded(drafts: str) -> Case:
    return replace(BASE, acceptance=Replay(f"bench/results/gpu/acceptance-{drafts}.npz"))


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "reference",
            "The reference case",
            "case",
            {
                "16 running, load 0.7": replace(BASE, load=0.7),
                "16 running, load 0.9": BASE,
                "16 running, load 0.95": replace(BASE, load=0.95),
                "16 running, load 0.96": replace(BASE, load=0.96),
                "1 running, load 0.9": replace(BASE, physics=ONE_RUNNING),
            },
            seeds=10,
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
                "Azure trace": replace(BASE, arrivals=Recorded()),
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
                "chat (dolly)": replace(BASE, lengths=Lengths("dolly")),
                "code (MBPP)": replace(BASE, lengths=Lengths("mbpp")),
                "maths (GSM8K)": replace(BASE, lengths=Lengths("gsm8k")),
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
                "recorded, chain": recorded("chain"),
                "recorded, tree": recorded("tree"),
            },
        ),
        Experiment(
            "models",
            "Sizes of models",
            "model",
            {model.name: replace(BASE, physics=model.physics(drafts=3)) for model in MODELS},
        ),
        Experiment(
            "hosts",
            "What a real worker adds",
            "worker",
            {
                "reference": BASE,
                "plan one step late": replace(BASE, physics=Physics(plan_delay=1)),
                "prefill": replace(BASE, physics=Physics(prefill_s=5e-3, prefill_token_s=30e-6)),
                "prefill, 32 slots": replace(
                    BASE,
                    physics=Physics(max_resident=32, prefill_s=5e-3, prefill_token_s=30e-6),
                ),
                "prefill, 30k tokens of KV": replace(
                    BASE,
                    physics=Physics(kv_tokens=30_000, prefill_s=5e-3, prefill_token_s=30e-6),
                ),
                "4 workers": replace(BASE, workers=4),
            },
        ),
    )
}
"""Every experiment by its name."""
