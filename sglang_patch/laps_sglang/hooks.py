"""Where SGLang is tapped: one function a hook, each a line or two into the worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from laps.engine.types import Plan
from laps_sglang.compat import RECEIVER, SCHEDULER, Engine
from laps_sglang.worker import Worker

AttachWorker = Callable[[Any], Worker]
"""Makes the worker of a scheduler that has just been built."""


class Hooks:
    """The hooks of one scheduler process. SGLang has one scheduler a process; so have we."""

    def __init__(self, engine: Engine, check: Callable[[], None], attach: AttachWorker) -> None:
        self._engine = engine
        self._check = check
        self._attach = attach
        self._worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        """The worker; there is one once the scheduler is built."""
        assert self._worker is not None, "the scheduler is not built yet"
        return self._worker

    def table(self) -> Sequence[tuple[str, str, Callable[..., Any]]]:
        """Return (target, "around" or "after", function) of every hook for this SGLang."""
        adder = "sglang.srt.managers.schedule_policy.PrefillAdder"
        return (
            (f"{SCHEDULER}.__init__", "around", self.build),
            (f"{RECEIVER}._pull_raw_reqs", "after", self.pull),
            (f"{SCHEDULER}.process_input_requests", "around", self.process_input),
            (f"{SCHEDULER}._add_request_to_queue", "around", self.queue),
            (f"{SCHEDULER}.get_new_batch_prefill", "around", self.prefill),
            (f"{adder}.__init__", "after", self.charge_paused),
            (f"{SCHEDULER}.update_running_batch", "around", self.decode),
            (f"{SCHEDULER}.process_batch_result", "after", self.result),
            (f"{SCHEDULER}.pause_generation", "around", self.pause_generation),
            (f"{SCHEDULER}.get_internal_state", "after", self.internal_state),
            *self._engine.hooks(
                lambda: self.worker.paused.reqs, lambda: self.worker.paused.expose()
            ),
        )

    def build(self, original: Callable[..., None], scheduler: Any, *args: Any, **kw: Any) -> None:
        """Refuse what we cannot schedule before the model is loaded; else take it over."""
        self._check()
        original(scheduler, *args, **kw)
        self.adopt(scheduler)

    def adopt(self, scheduler: Any) -> Worker:
        """Take over a scheduler that is built; every hook serves it from now on."""
        self._worker = self._attach(scheduler)
        return self._worker

    def pull(self, reqs: list[Any] | None, receiver: Any) -> list[Any] | None:
        """Let a new plan ride on the requests that the entry rank broadcasts to the others."""
        if reqs is None or (plan := self.worker.next_plan()) is None:
            return reqs
        return [*reqs, plan]

    def process_input(self, original: Callable[..., None], scheduler: Any, recv_reqs: Any) -> None:
        """Put a plan that came with the requests into force, and report new arrivals."""
        requests = []
        for item in recv_reqs:
            if isinstance(item, Plan):
                self.worker.use(item)
            else:
                requests.append(item)
        original(scheduler, requests)
        self.worker.report(time.monotonic())

    def queue(
        self, original: Callable[..., None], scheduler: Any, req: Any, *args: Any, **kw: Any
    ) -> None:
        """Note a request that entered the waiting queue (SGLang may reject it instead)."""
        original(scheduler, req, *args, **kw)
        if req.session is not None:
            self.worker.paused.expose()  # its session may have aborted what it replaces
        if scheduler.waiting_queue and scheduler.waiting_queue[-1] is req:
            self.worker.ledger.queued(req, time.monotonic())
        else:
            self.worker.ledger.rejected(req)

    def prefill(self, original: Callable[..., Any], scheduler: Any, running_batch: Any) -> Any:
        """Offer SGLang the waiting requests that deserve a slot."""
        return self.worker.admit(lambda running: original(scheduler, running), running_batch)

    def charge_paused(self, result: None, adder: Any, *args: Any, **kw: Any) -> None:
        """Count what paused requests will still allocate in the admission budget."""
        self.worker.memory.adder = adder
        paused = self.worker.paused.reqs
        self._engine.charge(adder, sum(map(adder._get_running_request_total_token_offset, paused)))

    def decode(self, original: Callable[..., Any], scheduler: Any, batch: Any) -> Any:
        """Pause and resume, then let SGLang prepare the round."""
        return self.worker.decode(lambda rows: original(scheduler, rows), batch)

    def result(self, result: None, scheduler: Any, batch: Any, outcome: Any) -> None:
        """Note what a batch got."""
        self.worker.took_result(batch, outcome)

    def pause_generation(self, original: Callable[..., Any], scheduler: Any, recv_req: Any) -> Any:
        """SGLang's whole-engine pause by retraction must find every resident request."""
        if recv_req.mode == "retract":
            self.worker.resume_all()
        return original(scheduler, recv_req)

    def internal_state(self, output: Any, scheduler: Any, recv_req: Any) -> Any:
        """Show in `/server_info` that this worker is patched, and what it does."""
        output.internal_state["laps"] = self.worker.describe()
        return output
