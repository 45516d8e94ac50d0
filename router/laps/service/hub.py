"""The workers that the service knows: for each its engine, and its stream while it is attached.

Everything here runs on the event loop and is soft state: a worker's Hello rebuilds all of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from laps.engine.engine import Engine
from laps.engine.predictor import ConditionalMean, LengthPredictor
from laps.engine.prior import AcceptancePredictor, AcceptancePrior
from laps.engine.types import Plan, PolicySpec, Snapshot, StepReport, UnknownRequestError
from laps.policies.registry import build_policy
from laps.service.logs import Nuisance
from laps.wire import WorkerIdentity

MAX_DETACHED = 64
"""Workers that are remembered after they left: enough to look into, and a bound on memory."""

log = structlog.get_logger(__name__)


class ElderProcessError(Exception):
    """A younger process is attached under the same worker id."""


class Freshness:
    """Share of verify rounds that ran on the newest plan that they could have known.

    A batch is made before the result of the step before it is known (overlap), so the newest plan
    for a step is the one that had been sent when the report before the last came in.
    """

    def __init__(self) -> None:
        self.sent_seq = 0
        """Newest plan sent."""
        self._due_seq = 0
        self._rounds = 0
        self._fresh = 0

    def count(self, report: StepReport) -> None:
        """Take a report in."""
        if report.decoded and self._due_seq:
            self._rounds += 1
            self._fresh += report.plan_seq >= self._due_seq
        self._due_seq = self.sent_seq

    @property
    def share(self) -> float:
        """From 0 to 1; 0 before the first round."""
        return self._fresh / self._rounds if self._rounds else 0.0


class Link:
    """One stream of a worker: takes reports, and knows what is to be said next."""

    def __init__(self, worker_id: str, engine: Engine) -> None:
        self.engine = engine
        self.freshness = Freshness()
        self.closed_because: str | None = None
        """Why the service ended the stream; None while it is open or if the worker ended it."""
        self._open = True
        self._wake = asyncio.Event()
        self._wake.set()
        self._welcome_due = True
        self._faults = Nuisance()
        self._log = log.bind(worker=worker_id)

    def observe(self, report: StepReport) -> None:
        """Take in a report; a plan is due."""
        self.freshness.count(report)
        self.engine.observe(report)
        self._wake.set()

    def fault(self, what: str, error: Exception | None = None) -> None:
        """Note something that went wrong with this worker; its stream goes on."""
        if self._faults.worth_a_line():
            self._log.warning(what, times=self._faults.count, exc_info=error)

    def announce_policy(self) -> None:
        """Make a welcome due, and a plan after it."""
        self._welcome_due = True
        self._wake.set()

    def take_welcome(self) -> bool:
        """Return whether a welcome is due, once."""
        due, self._welcome_due = self._welcome_due, False
        return due

    def close(self, because: str | None = None) -> None:
        """End the stream."""
        if self._open:
            self._open = False
            self.closed_because = because
        self._wake.set()

    async def something_to_say(self) -> bool:
        """Wait until a welcome or a plan is due; False once the stream is to end."""
        await self._wake.wait()
        self._wake.clear()
        return self._open

    def plan(self) -> Plan | None:
        """Return the plan to send; None if the engine failed, for the worker has its own engine."""
        try:
            return self.engine.plan()
        except Exception as error:  # One worker's trouble must not reach the others.
            self.fault("the engine could not make a plan", error)
            return None


class Learnt(NamedTuple):
    """What requests that left have taught: the workers of a model learn together."""

    lengths: LengthPredictor
    acceptance: AcceptancePredictor


@dataclass(slots=True)
class Worker:
    """A worker, attached or remembered."""

    identity: WorkerIdentity
    engine: Engine
    learnt: Learnt
    link: Link
    attached: bool = True

    def holds(self, rid: str) -> bool:
        """Whether the engine knows the request, live or lately departed."""
        try:
            self.engine.handle_of(rid)
        except UnknownRequestError:
            return False
        return True

    @property
    def load(self) -> int:
        """Unfinished requests."""
        stats = self.engine.stats()
        return stats.running + stats.paused + stats.waiting


class Hub:
    """All workers, and the policy that they share."""

    def __init__(self, policy: PolicySpec) -> None:
        self.policy = policy
        self._workers: dict[str, Worker] = {}

    def attach(self, identity: WorkerIdentity, snapshot: Snapshot) -> Worker:
        """Take a worker in as its snapshot describes it. A stream that it had before is ended.

        Raises ElderProcessError: of two processes with one id, the younger is the worker.
        """
        worker_id = identity.worker_id
        known = self._workers.get(worker_id)
        if known is not None and known.attached:
            if identity.incarnation < known.identity.incarnation:
                raise ElderProcessError(
                    f"a younger process is attached as worker {worker_id!r}: "
                    "give each worker an id of its own"
                )
            known.link.close("another stream of the same worker has taken over")
        learnt = self._learnt(identity.model)
        engine = Engine(snapshot, self.policy, learnt.lengths, learnt.acceptance)
        worker = Worker(identity, engine, learnt, Link(worker_id, engine))
        self._workers.pop(worker_id, None)
        self._workers[worker_id] = worker  # Last: the oldest detached ones are forgotten first.
        log.info(
            "worker attached",
            worker=worker_id,
            incarnation=identity.incarnation,
            model=identity.model,
            algorithm=identity.algorithm,
            requests=len(snapshot.requests),
        )
        return worker

    def detach(self, worker: Worker) -> None:
        """Remember the worker as one that left; nothing happens if it is back on another stream."""
        worker.link.close()
        worker.attached = False
        if self._workers.get(worker.identity.worker_id) is not worker:
            return
        log.info("worker detached", worker=worker.identity.worker_id)
        gone = [known for known in self._workers.values() if not known.attached]
        for known in gone[:-MAX_DETACHED]:
            del self._workers[known.identity.worker_id]

    def set_policy(self, spec: PolicySpec) -> None:
        """Order all workers by `spec` from the next plan on; PolicyError changes nothing."""
        build_policy(spec)
        self.policy = spec
        for worker in self._workers.values():
            worker.engine.set_policy(spec)
            worker.link.announce_policy()
        log.info("policy set", policy=spec.name, parameters=dict(spec.parameters))

    def close(self, because: str) -> None:
        """End all streams."""
        for worker in self._workers.values():
            worker.link.close(because)

    def workers(self) -> list[Worker]:
        """Return all workers by id, attached or remembered."""
        return [self._workers[worker_id] for worker_id in sorted(self._workers)]

    def attached(self) -> list[Worker]:
        """Return the attached workers by id."""
        return [worker for worker in self.workers() if worker.attached]

    def get(self, worker_id: str) -> Worker | None:
        """Return the worker of that id, attached or remembered."""
        return self._workers.get(worker_id)

    def find(self, rid: str) -> Worker | None:
        """Return the worker that holds the request; the attached are asked first."""
        by_presence = sorted(self._workers.values(), key=lambda worker: not worker.attached)
        return next((worker for worker in by_presence if worker.holds(rid)), None)

    def _learnt(self, model: str) -> Learnt:
        """Return what the workers of `model` have learnt, nothing if there is none."""
        workers = self._workers.values()
        shared = (worker.learnt for worker in workers if worker.identity.model == model)
        return next(shared, None) or Learnt(ConditionalMean(), AcceptancePrior())
