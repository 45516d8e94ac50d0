"""One rank of test_tensor_parallel.py: a process of its own.

Rank 0 receives requests and plans; both ranks must do the same at every iteration. Each dawdles at
moments of its own.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from sglang.srt.managers.io_struct import AbortReq

from engine.fake_model import VOCABULARY, reference
from engine.random_load import RandomPlanner
from engine.real_loop import RealLoop
from engine.real_scheduler import Ranks, Setup
from laps import wire
from laps.engine.types import PolicySpec
from laps_sglang.planner import Planner, PlannerProcess
from laps_sglang.planner import Setup as PlannerSetup

REQUESTS = 60


@dataclass(frozen=True)
class Submit:
    """A request on its way to all ranks."""

    rid: str
    prompt: tuple[int, ...]
    tokens: int


class Stop:
    """The end of the run, at the same iteration on all ranks."""


class Rank:
    """One scheduler of the group, and the load that rank 0 feeds to all."""

    def __init__(self, rank: int, service: str, half_sent: Path) -> None:
        setup = Setup(slots=10, kv_tokens=330, max_running=3, seed=1)
        self.loop = RealLoop(setup, Ranks(rank, 2, dist.group.WORLD))
        self.loop.expect_answers(0.05)
        self.loop.scheduler._request_dispatcher = self._dispatch
        self.reqs: dict[str, Any] = {}
        self.aborted: set[str] = set()
        self.deciders: Counter[str] = Counter()
        self._rank = rank
        self._half_sent = half_sent
        self._sent = 0
        self._rng = random.Random(7)
        self._dawdle = random.Random(os.urandom(8))
        if rank == 0:
            self._planner = _planner(self.loop, service)
            self.loop.plan_with(self._planner)

    def run(self) -> None:
        """Serve until rank 0 says stop."""
        self.loop.run(self._feed if self._rank == 0 else self._wait, limit=60_000)
        self.loop.check_no_leak()
        if self._rank == 0:
            self._planner.close()
        for req in self.reqs.values():
            if req.rid not in self.aborted:
                text = reference(list(req.origin_input_ids), req.sampling_params.max_new_tokens)
                assert list(req.output_ids)[: len(text)] == text, f"{req.rid}: another text"

    def _dispatch(self, message: Any) -> None:
        if isinstance(message, Submit):
            self.reqs[message.rid] = self.loop.submit(message.rid, message.prompt, message.tokens)
        elif isinstance(message, AbortReq):
            self.aborted.add(message.rid)
            self.loop.scheduler.abort_request(message)
        else:
            self.loop.end()

    def _wait(self, iteration: int) -> bool:
        if self._dawdle.random() < 0.02:
            time.sleep(self._dawdle.random() * 0.01)
        return False

    def _feed(self, iteration: int) -> bool:
        """Receive requests, aborts and the end."""
        if iteration == 1:
            self._await_decider("service")
        self.deciders[str(self._planner.describe().get("decided_by", "random"))] += 1
        if iteration % 4 == 0 and self._sent < REQUESTS:
            prompt = [self._rng.randrange(VOCABULARY) for _ in range(self._rng.randint(3, 30))]
            self.loop.receive(Submit(f"r{self._sent:03}", tuple(prompt), self._rng.randint(10, 60)))
            self._sent += 1
        if iteration % 37 == 0 and self.reqs:
            self.loop.receive(AbortReq(rid=self._rng.choice(sorted(self.reqs))))
        if self._sent == REQUESTS // 2 and not self._half_sent.exists():
            self._half_sent.touch()
            self._await_decider("embedded engine")
        finished = all(req.finished() or rid in self.aborted for rid, req in self.reqs.items())
        if len(self.reqs) == REQUESTS and finished and self.loop.scheduler.is_fully_idle():
            self.loop.receive(Stop())
        return self._wait(iteration)

    def _await_decider(self, decider: str) -> None:
        """Hold the load up until `decider` decides, who has yet to come or to be found missing."""
        while self._planner.describe().get("decided_by", decider) != decider:
            self._planner.submit(None)
            self._planner.newest()
            time.sleep(0.01)


def _planner(loop: RealLoop, service: str) -> Planner:
    if service == "random":
        return RandomPlanner(loop.worker, random.Random(3), change=0.7, most=None)
    identity = wire.WorkerIdentity("tp/dp0", time.time_ns())
    setup = PlannerSetup(identity, PolicySpec("laps-sd"), service)
    return PlannerProcess(setup, loop.worker.snapshot)


def main(rank: int, meeting_point: str, out: Path, services: Sequence[str]) -> None:
    """Serve a load under each of `services`; write what was launched and answered to `out`."""
    dist.init_process_group("gloo", f"file://{meeting_point}", rank=rank, world_size=2)
    results = []
    for service in services:
        this = Rank(rank, service, out.with_suffix(f".half-of-{service}"))
        this.run()
        results.append(
            {
                "batches": this.loop.scheduler.model_worker.batches,
                "texts": {rid: list(req.output_ids) for rid, req in this.reqs.items()},
                "counters": {
                    **this.loop.worker.counters,
                    "demotions": this.loop.worker.memory.demotions,
                },
                "deciders": this.deciders,
            }
        )
        this.loop.close()
    out.write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
