"""A case: everything about a simulation but the policy and the seed."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from sim.acceptance import AcceptanceProcess, Independent
from sim.arrivals import Arrivals, Poisson
from sim.host import Dispatch
from sim.lengths import Lengths
from sim.physics import Physics
from sim.predictions import Lognormal, Predictions
from sim.tenants import Tenant, draw_requests
from sim.workload import Ints, Rounds, Workload


@dataclass(frozen=True)
class Case:
    """What is simulated. The defaults are the reference case."""

    load: float = 0.9
    """Arrival rate times the mean work of a request, per worker; see `work_s`. Ignored by Batch."""
    requests: int = 50_000
    arrivals: Arrivals = Poisson()  # noqa: RUF009 - frozen
    lengths: Lengths = Lengths()  # noqa: RUF009 - frozen
    acceptance: AcceptanceProcess = Independent()  # noqa: RUF009 - frozen
    tenants: tuple[Tenant, ...] = ()
    """Who sends the requests, in place of one kind by `lengths` and `acceptance`."""
    says_tenant: bool = True
    """Whether requests carry the name of their tenant."""
    predictions: Predictions = Lognormal()  # noqa: RUF009 - frozen
    physics: Physics = Physics()  # noqa: RUF009 - frozen
    workers: int = 1
    dispatch: Dispatch = "fewest"
    measured: tuple[float, float] = (0.1, 0.9)
    """Which requests count, as shares in order of arrival: not those that meet an empty system at
    the beginning, nor those that nobody follows at the end."""

    def draw(self, seed: int) -> Workload:
        """Draw the requests. Streams are apart: one change of the case changes one of them."""
        streams = np.random.SeedSequence(seed).spawn(6)
        arrivals, outputs, prompts, drafts, hints, kinds = map(np.random.default_rng, streams)
        tenants = self.tenants or (Tenant("", 1.0, self.lengths, self.acceptance),)
        drawn = draw_requests(tenants, self.requests, kinds, outputs, prompts, drafts)
        gap_s = self.work_s(drawn.rounds, drawn.prompt_tokens) / (self.load * self.workers)
        return Workload(
            arrival_s=self.arrivals.times(arrivals, self.requests) * gap_s,
            prompt_tokens=drawn.prompt_tokens,
            output_tokens=drawn.output_tokens,
            predicted_tokens=self.predictions.draw(hints, drawn.output_tokens),
            rounds=drawn.rounds,
            drafts=tenants[0].acceptance.drafts,
            tenants=tuple(tenant.name if self.says_tenant else "" for tenant in tenants),
            tenant=drawn.tenant,
        )

    def work_s(self, rounds: Rounds, prompt_tokens: Ints) -> float:
        """Return the mean time that a request takes of a worker that is full, in seconds.

        Its rounds, each a share 1 / max_running of a round of the full batch, and its prefill.
        """
        physics = self.physics
        share_s = physics.round_time.seconds(physics.max_running) / physics.max_running
        prefill_s = physics.prefill_s + physics.prefill_token_s * float(prompt_tokens.mean())
        return float(rounds.counts.mean()) * share_s + prefill_s


def describe(value: Any) -> Any:
    """Return a case, or a part of one, as plain JSON with the names of its parts."""
    if is_dataclass(value):
        parts = {
            part.name: describe(getattr(value, part.name)) for part in fields(value) if part.compare
        }
        return {"kind": type(value).__name__, **parts}
    return list(map(describe, value)) if isinstance(value, tuple) else value
