"""Who shares a prefill with whom: the rule of `laps.engine.company` on one scheduler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from laps.engine.company import SHORT, Company
from laps.engine.types import Plan
from laps_sglang.ledger import Ledger, handle_of
from laps_sglang.paused import PausedBatch, Req
from laps_sglang.ranking import best_of
from laps_sglang.surgery import Batch


class Sharing:
    """Asked in every step, before SGLang admits. Depends on what all ranks share only."""

    def __init__(self, scheduler: Any, paused: PausedBatch, ledger: Ledger) -> None:
        self._scheduler = scheduler
        self._paused = paused
        self._ledger = ledger
        self._company = Company()

    def waits(
        self, newcomers: Sequence[Req], running: Batch, max_running: int, iteration: int
    ) -> bool:
        """Return whether `newcomers`, none of them urgent, wait for others.

        Only while residents fill the batch, and no prefill is under way.
        """
        filled = len(running.reqs) + len(self._paused) >= max_running
        count = len(newcomers) if filled and self._scheduler.chunked_req is None else 0
        return self._company.waits(count, max_running, iteration)

    def next_in_line(
        self,
        plan: Plan,
        best: Sequence[Req],
        newcomers: Sequence[Req],
        max_running: int,
        iteration: int,
    ) -> list[Req]:
        """Return the waiting requests that come along with `newcomers`, out of `best`.

        As many as one prefill holds whole: the rest of one that is cut would take another.
        """
        slots: int = self._scheduler.req_to_token_pool.available_size()
        count = min(self._company.size(max_running, iteration), slots) - len(newcomers)
        if count <= 0:
            return []
        live = self._ledger.live
        known = {*map(handle_of, best), *self._ledger.resident}
        waiting = [live[handle].req for handle in best_of(plan, count, live, known)]
        short = [req for req in waiting if _tokens(req) <= SHORT]
        # As if nothing were cached: SGLang looks that up when it admits them.
        room = (self._scheduler.chunked_prefill_size or math.inf) - sum(map(self._paged, newcomers))
        held = accumulate(map(self._paged, short))
        return [req for req, tokens in zip(short, held, strict=True) if tokens <= room]

    def _paged(self, req: Req) -> int:
        """Return what SGLang takes off a prefill's tokens for `req`: whole pages."""
        page: int = self._scheduler.page_size
        return -(-_tokens(req) // page) * page

    def admitted(self, newcomers: int, iteration: int, some_left: bool = False) -> None:
        """Take note of admissions; `some_left` if newcomers were offered and not taken."""
        self._company.admitted(newcomers, iteration, some_left)


def _tokens(req: Req) -> int:
    return len(req.origin_input_ids) + len(req.output_ids)
