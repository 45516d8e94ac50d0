"""A service and a server under it, as a user has them, and what an operator sees of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.servers import OVERLAP, PATIENCE_S, TREE, laps_block, sglang, until
from laps.client import Phase, RequestStatus, SyncLapsClient, WorkerStatus
from testbed.launch import SglangServer
from testbed.service import LapsService

VARIANT = TREE
MAX_RUNNING = 2


@dataclass(frozen=True, slots=True)
class System:
    """One service, one server."""

    service: LapsService
    server: SglangServer

    @contextmanager
    def operator(self) -> Iterator[SyncLapsClient]:
        """A client on a connection of its own: the service may have been restarted."""
        with SyncLapsClient(self.service.address, timeout_s=PATIENCE_S) as client:
            yield client

    def worker(self) -> WorkerStatus:
        """The server's worker, as the service knows it."""
        with self.operator() as client:
            [worker] = client.list_workers()
            return worker

    def live(self) -> set[str]:
        """Ids of the requests that the service knows to be on the worker."""
        with self.operator() as client:
            return {request.rid for request in client.list_requests()}

    def status(self, rid: str) -> RequestStatus | None:
        """A request, live or lately departed; None if the service does not know it."""
        with self.operator() as client:
            known = client.list_requests(include_departed=True)
        return next((request for request in known if request.rid == rid), None)

    def known(self, rid: str) -> RequestStatus:
        """Wait until the service knows a request: its answer may be there before the report."""
        assert until(lambda: self.status(rid) is not None), rid
        found = self.status(rid)
        assert found is not None
        return found

    def phase(self, rid: str) -> Phase | None:
        """Where a request is, as the service knows it."""
        found = self.status(rid)
        return found.phase if found else None

    def decided_by(self) -> str:
        """Who decides at present, as the worker says."""
        return str(laps_block(self.server)["decided_by"])

    def laps(self, *arguments: str, code: int = 0) -> str:
        """Run the `laps` command, which must end with `code`; what it says."""
        done = subprocess.run(
            [Path(sys.executable).with_name("laps"), *arguments],
            env={**os.environ, "LAPS_ENDPOINT": self.service.address},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stderr if code else done.stdout

    def laps_json(self, *arguments: str) -> Any:
        """Run a listing of the `laps` command as a program would."""
        return json.loads(self.laps(*arguments, "--output", "json"))


@contextmanager
def running_system(logs: Path) -> Iterator[System]:
    """Start both, wait until the service decides, and stop both."""
    with LapsService(log_path=logs / "laps.log") as service:
        flags = ("--laps-endpoint", service.address, "--laps-max-running", str(MAX_RUNNING))
        with sglang(VARIANT, logs / "sglang.log", *flags, loop=OVERLAP) as server:
            system = System(service, server)
            assert until(lambda: system.decided_by() == "service"), service.log_path.read_text()
            yield system
