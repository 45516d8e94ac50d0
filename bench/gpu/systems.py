"""The systems that are compared: servers on each GPU, of which one at a time has load."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from gpu.names import ORACLE, STOCK, STOCK_PRIORITY
from gpu.servers import GPU, PATIENCE_S, MeasurementError, flush_cache, internal_state, server
from laps.client import PolicySpec, SyncLapsClient
from sim.simulate import parse_policy
from testbed.launch import SglangServer
from testbed.service import LapsService

LAPS = "laps"
"""The patched server under the service, whatever the policy."""
SLOTS = 16
"""Slots of the patched server for each request that may run: the others hold paused ones. With few,
a policy that pauses many has to demote: what is compared would be the want of slots."""
WARM_UP_POLICY = "mlfq"
"""Pauses more than the others."""
SERVICE = (sys.executable, "-m", "gpu.service")
PLAN_TTL = () if GPU else ("--plan-ttl-s", "5")
"""On a CPU a verify round takes longer than a plan may be old elsewhere."""


@dataclass(frozen=True)
class System:
    """A server, and the service that it is under."""

    server: SglangServer
    service: LapsService | None = None

    def prepare(self, policy: str, pool: Path) -> None:
        """Have the service order by `policy`, and empty the cache."""
        if self.service is not None:
            spec = parse_policy(policy)
            if spec.name == ORACLE:
                spec = PolicySpec(ORACLE, {"rounds": str(pool.resolve())})
            with self.operator() as operator:
                operator.set_policy(spec)
            wait_for_service(self.server)
        flush_cache(self.server)

    def operator(self) -> SyncLapsClient:
        """Return a connection to the service."""
        assert self.service is not None, "stock SGLang is under no service"
        return SyncLapsClient(self.service.address, timeout_s=PATIENCE_S)


def wait_for_service(process: SglangServer) -> None:
    """Wait until a patched server is under its service: it decides for itself until then."""
    deadline = time.monotonic() + PATIENCE_S
    while (state := internal_state(process)["laps"]).get("decided_by") != "service":
        if time.monotonic() > deadline:
            raise MeasurementError(f"the service does not decide: {state}")
        time.sleep(0.1)


def system_of(policy: str) -> str:
    """Return which of the systems runs `policy`."""
    return policy if policy in (STOCK, STOCK_PRIORITY) else LAPS


def start_systems(
    options: argparse.Namespace,
    name: str,
    wanted: Collection[str],
    environment: Mapping[str, str],
    stack: ExitStack,
) -> dict[str, System]:
    """Start the systems `wanted`, all at once; they are stopped with `stack`."""
    running = str(options.running)
    cap = ("--max-running-requests", running)
    flags: dict[str, tuple[str, ...]] = {
        STOCK: cap,
        STOCK_PRIORITY: (*cap, "--enable-priority-scheduling"),
    }
    service = None
    if LAPS in wanted:
        service = stack.enter_context(
            LapsService(
                *("--policy", WARM_UP_POLICY, *PLAN_TTL),
                log_path=options.out / "logs" / f"{name}-service.log",
                command=SERVICE,
            )
        )
        flags[LAPS] = (
            *("--laps-endpoint", service.address, "--laps-max-running", running),
            *("--max-running-requests", str(SLOTS * options.running)),
        )
    systems = {
        label: System(
            server(options, options.shape, f"{name}-{label}", *own, environment=environment),
            service if label == LAPS else None,
        )
        for label, own in flags.items()
        if label in wanted
    }
    for system in systems.values():
        stack.callback(system.server.stop)
        system.server.start()
    return systems
