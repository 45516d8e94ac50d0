"""Who decides: the service while it answers, else the engine in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from laps.engine.engine import Engine
from laps.engine.types import Plan, PolicySpec, Snapshot, StepReport
from laps_sglang.link import ServiceLink

logger = logging.getLogger(__name__)

SnapshotSource = Callable[[], Snapshot]
"""Gives what the scheduler holds now; called in the scheduler's thread only."""


class Planner(Protocol):
    """Takes reports, gives plans, never blocks; in the scheduler's thread of the entry rank."""

    def submit(self, report: StepReport | None) -> None:
        """Take the newest report; called at every iteration, with None if nothing happened."""

    def newest(self) -> Plan:
        """Return the plan to use now."""

    def describe(self) -> dict[str, object]:
        """Return the planner's state for `/server_info`."""

    def close(self) -> None:
        """Let go of threads and connections."""


class EmbeddedPlanner:
    """The engine in this very process."""

    def __init__(self, policy: PolicySpec, snapshot: SnapshotSource) -> None:
        self._engine = Engine(snapshot(), policy)

    def submit(self, report: StepReport | None) -> None:
        if report is not None:
            self._engine.observe(report)

    def newest(self) -> Plan:
        # In reports, number 0 says that the worker decided for itself.
        return replace(self._engine.plan(), seq=0)

    def describe(self) -> dict[str, object]:
        return {"mode": "embedded", "policy": self._engine.policy_spec.name}

    def close(self) -> None:
        pass


class RemotePlanner:
    """The service, with an embedded engine that takes over within one step while it is away.

    The worker is the truth: the fallback engine and the service's are both built from a snapshot,
    so neither side has to remember anything for the other.
    """

    def __init__(self, link: ServiceLink, policy: PolicySpec, snapshot: SnapshotSource) -> None:
        self._link = link
        self._policy = policy
        self._snapshot = snapshot
        self._fallback: EmbeddedPlanner | None = None
        self._served = False
        self._fallbacks = 0
        """Times the service fell silent; the wait for its first plan is none."""

    def submit(self, report: StepReport | None) -> None:
        if self._link.wants_hello:
            # The snapshot holds what `report` tells: it takes its place.
            self._link.attach(self._snapshot())
        elif report is not None:
            self._link.send(report)
        if self._fallback is not None:
            self._fallback.submit(report)

    def newest(self) -> Plan:
        plan = self._link.plan()
        if plan is not None:
            self._served = True
            if self._fallback is not None:
                logger.info("laps: the service decides")
                self._fallback = None
            return plan
        if self._fallback is None:
            if self._served:
                self._fallbacks += 1
                logger.warning("laps: no plan from the service: the embedded engine decides")
            self._fallback = EmbeddedPlanner(self._link.policy or self._policy, self._snapshot)
        return self._fallback.newest()

    def describe(self) -> dict[str, object]:
        return {
            "mode": "service",
            "endpoint": self._link.endpoint,
            "policy": (self._link.policy or self._policy).name,
            "decided_by": "embedded engine" if self._fallback is not None else "service",
            "fallbacks": self._fallbacks,
        }

    def close(self) -> None:
        self._link.close()
