"""One case, one policy, one seed: from the request for it to its figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from laps.engine.types import PolicySpec
from laps.policies.base import Policy
from sim.case import Case
from sim.gittins import Gittins
from sim.host import Run, run
from sim.oracle import Oracle
from sim.physics import PrefillsAtOnce
from sim.workload import Floats, Workload

STOCK, SHARING = "fcfs", "fcfs-sharing"
"""FCFS as SGLang has it, and with newcomers that share prefills."""


@dataclass(frozen=True)
class Figures:
    """What a run is judged by. Of the measured requests only, up to `tenants`."""

    mean_s: float
    p50_s: float
    p99_s: float
    slowdown_mean: float
    slowdown_p99: float
    jain: float
    """Jain's index of fairness over slowdowns, (sum s)^2 / (n sum s^2): 1 is equal for all."""
    tenants: dict[str, float]
    """Mean slowdown of each tenant's requests, where there are several."""
    preemptions: float
    """Per request."""
    demotions: float
    """Per request."""
    kv_peak_tokens: int
    utilisation: float
    """Time in prefills and rounds, per worker, over the time to the last finish."""
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Result:
    """A run with its workload."""

    case: Case
    workload: Workload
    run: Run

    @property
    def latency_s(self) -> Floats:
        """Latencies of the measured requests, in order of arrival."""
        return self.run.latency_s[self._measured]

    @property
    def slowdown(self) -> Floats:
        """Latency over the latency alone on an idle worker, of the measured requests."""
        return self.latency_s / self._alone_s[self._measured]

    @property
    def figures(self) -> Figures:
        latency_s, slowdown, count = self.latency_s, self.slowdown, len(self.workload)
        p50_s, p99_s = np.percentile(latency_s, (50, 99))
        return Figures(
            mean_s=float(latency_s.mean()),
            p50_s=float(p50_s),
            p99_s=float(p99_s),
            slowdown_mean=float(slowdown.mean()),
            slowdown_p99=float(np.percentile(slowdown, 99)),
            jain=float(slowdown.sum() ** 2 / (len(slowdown) * (slowdown**2).sum())),
            tenants={
                tenant.name: float(slowdown[self.workload.tenant[self._measured] == index].mean())
                for index, tenant in enumerate(self.case.tenants)
            },
            preemptions=self.run.preemptions / count,
            demotions=self.run.demotions / count,
            kv_peak_tokens=self.run.kv_peak_tokens,
            utilisation=self.run.busy_s / (self.case.workers * self.run.end_s),
            wall_s=self.run.wall_s,
            cpu_s=self.run.cpu_s,
        )

    @property
    def _measured(self) -> slice:
        first, last = self.case.measured
        count = len(self.workload)
        return slice(int(first * count), int(last * count))

    @property
    def _alone_s(self) -> Floats:
        physics = self.case.physics
        prefill_s = physics.prefill_s + physics.prefill_token_s * self.workload.prompt_tokens
        alone_s: Floats = self.workload.rounds.counts * physics.round_time.seconds(1) + prefill_s
        return alone_s


def simulate(
    case: Case,
    policy: str | PolicySpec | Policy,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Run `case` under `policy`: a name as `parse_policy` takes it, a specification or an object.

    The same seed gives every policy the same requests, drafts included.
    """
    workload, physics = case.draw(seed), case.physics
    if isinstance(policy, str):
        policy = parse_policy(policy)
    if isinstance(policy, PolicySpec) and policy.name == STOCK:
        physics = PrefillsAtOnce.of(physics)
    elif isinstance(policy, PolicySpec) and policy.name == SHARING:
        policy = PolicySpec(STOCK)
    if isinstance(policy, PolicySpec) and policy.name == Oracle.name:
        policy = Oracle(workload.rounds.counts)
    elif isinstance(policy, PolicySpec) and policy.name == Gittins.name:
        policy = Gittins.of(case, workload)
    outcome = run(workload, physics, policy, case.workers, case.dispatch, progress)
    return Result(case, workload, outcome)


def parse_policy(text: str) -> PolicySpec:
    """Return the policy that `NAME` or `NAME:PARAMETER=VALUE:PARAMETER=VALUE` names.

    Values are JSON where they can be read as it, else strings. `oracle` is the clairvoyant one,
    `gittins` the one that knows all odds. `fcfs` is stock SGLang, which admits each newcomer by
    itself; `fcfs-sharing` is FCFS under this project's worker.
    """
    name, *settings = text.split(":")
    parameters: dict[str, float | int | str | bool] = {}
    for setting in settings:
        parameter, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} in policy {text!r} is no PARAMETER=VALUE")
        try:
            parameters[parameter] = json.loads(value)
        except ValueError:
            parameters[parameter] = value
    return PolicySpec(name, parameters)
