"""The planner process: `python -m laps_sglang.decider SOCKET BELL`, started by a scheduler.

Reports come in over the pipe, plans go out: the service's while it answers, else those of an engine
in this process. It ends when the scheduler closes the pipe, or dies.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from laps.engine.engine import Engine
from laps.engine.types import Handle, Plan, Snapshot, StepReport
from laps_sglang.lengths.prompts import Told
from laps_sglang.link import ServiceLink
from laps_sglang.pipe import Bell, Pipe
from laps_sglang.planner import NOBODY, Setup, SnapshotWanted

if TYPE_CHECKING:
    from laps_sglang.lengths.hints import LengthHints

logger = logging.getLogger(__name__)

POLL_S = (0.0003, 0.005)
"""How often to look for a report: after one, and when none came for a while."""


class Decider:
    """Chooses whose plan counts. Called by the pipe's thread and by the link's."""

    def __init__(self, setup: Setup, bell: Bell, send: Callable[[Any], None]) -> None:
        self._setup = setup
        self._bell = bell
        self._send = send
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._sent = Plan()
        self._max_running = 0
        self._running: frozenset[Handle] = frozenset()
        self._description: dict[str, object] = {}
        self._asked = False
        self._served = False
        self._fallbacks = 0
        """Times the service fell silent; the wait for its first plan is none."""
        self._lengths: LengthHints | None = None
        if setup.length_model is not None:
            from laps_sglang.lengths.hints import LengthHints  # takes scikit-learn

            self._lengths = LengthHints(setup.length_model, setup.saves_length_model)
        self._link: ServiceLink | None = None
        if setup.endpoint is not None:
            with self._lock:
                self._link = ServiceLink(setup.endpoint, setup.identity, self.decide)
        self.decide()

    def take(self, value: Snapshot | Told | tuple[Any, ...]) -> None:
        """Take a snapshot, or a report's fields, and answer with a plan."""
        lengths = self._lengths
        if lengths is not None and isinstance(value, Told):
            lengths.take(value)
            return
        with self._lock:
            if isinstance(value, Snapshot):
                self._begin(value if lengths is None else lengths.snapshot(value))
            else:
                report = StepReport(*value)
                if lengths is not None:
                    report = lengths.report(report)
                if report.decoded:
                    self._running = frozenset(report.decoded)
                self._running -= frozenset(report.requeued)
                if self._engine is not None:
                    self._engine.observe(report)
                if self._link is not None:
                    self._link.send(report)
        self.decide()

    def _begin(self, snapshot: Snapshot) -> None:
        self._asked = False
        self._max_running = snapshot.capacity.max_running
        if self._link is not None and self._link.wants_hello:
            self._link.attach(snapshot)
        if self._engine is None and self._service_plan() is None:
            policy = self._link.policy if self._link is not None else None
            self._engine = Engine(snapshot, policy or self._setup.policy)

    def _service_plan(self) -> Plan | None:
        return self._link.plan() if self._link is not None else None

    def decide(self) -> None:
        """Send the plan that counts now, if it is news."""
        with self._lock:
            plan = self._service_plan()
            self._note_who_decides(served=plan is not None)
            if plan is None and self._engine is not None:
                # In reports, number 0 says that the worker decided for itself.
                plan = replace(self._engine.plan(), seq=0)
            wanted = plan is None or (self._link is not None and self._link.wants_hello)
            if wanted and not self._asked:
                self._asked = True
                self._send(SnapshotWanted())
            if plan is not None:
                self._send_plan(plan)
            self._describe()

    def _note_who_decides(self, served: bool) -> None:
        if served and self._engine is not None:
            logger.info("laps: the service decides")
            self._engine = None
        if self._served and not served:
            logger.warning("laps: no plan from the service: the embedded engine decides")
            self._fallbacks += 1
        self._served = served

    def _send_plan(self, plan: Plan) -> None:
        if plan.horizon != self._sent.horizon or not self._as_good(plan.order):
            self._send((plan.seq, plan.step, plan.order, plan.horizon))
            self._sent = plan
        self._bell.seq, self._bell.step = plan.seq, plan.step

    def _as_good(self, order: tuple[Handle, ...]) -> bool:
        """Return whether the worker would do the same under the order that it has.

        It would if only those have changed places that run now and go on running.
        """
        cap, sent = self._max_running, self._sent.order
        if order == sent:
            return True
        best = set(order[:cap])
        return best == set(sent[:cap]) and order[cap:] == sent[cap:] and best <= self._running

    def _describe(self) -> None:
        """Say who decides, for `/server_info`, when it changes."""
        link = self._link
        own = "embedded engine" if self._engine is not None else NOBODY
        policy = (link.policy if link is not None else None) or self._setup.policy
        description: dict[str, object] = {
            "decided_by": "service" if self._served else own,
            "policy": policy.name,
        }
        if link is not None:
            description["fallbacks"] = self._fallbacks
        if self._lengths is not None:
            description["length_model"] = self._lengths.description
        if description != self._description:
            self._description = description
            self._send(description)

    def rest(self) -> bool:
        """Do a piece of what can wait, and return whether there was any: for the pipe's thread."""
        if self._lengths is None or not self._lengths.rest():
            return False
        with self._lock:
            self._describe()
        return True

    def close(self) -> None:
        """Save what was learnt, and close the stream to the service."""
        if self._lengths is not None:
            self._lengths.save()
        if self._link is not None:
            self._link.close()


def serve(pipe: Pipe, bell: Bell) -> None:
    """Decide for the scheduler at the other end of `pipe` until that is gone."""
    sending = threading.Lock()  # the link's thread sends plans, too

    def send(value: Any) -> None:
        with sending, suppress(EOFError):  # `receive` tells of it, too
            pipe.send(value)
            bell.sent += 1

    decider: Decider | None = None
    pauses: Iterator[float] = repeat(POLL_S[0])
    try:
        while True:
            values = pipe.receive()
            with sending:
                pipe.flush()
            if not values:
                if decider is None or not decider.rest():
                    time.sleep(next(pauses))
                continue
            pauses = chain(repeat(POLL_S[0], 1000), repeat(POLL_S[1]))
            for value in values:
                if decider is None:
                    decider = Decider(value, bell, send)
                else:
                    decider.take(value)
    except EOFError:
        pass
    finally:
        if decider is not None:
            decider.close()


def main() -> None:
    """Serve the scheduler that handed down the two file descriptors on the command line."""
    # Ctrl-C goes to the whole group; the scheduler's last reports are still wanted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s")
    end, memory = map(int, sys.argv[1:])
    serve(Pipe(socket.socket(fileno=end)), Bell(memory))


if __name__ == "__main__":
    main()
