"""Who gives up its memory when others need it: paused requests, the least loss first.

A demoted request goes back to the waiting queue, its tokens to the radix cache, from where SGLang
takes what it needs, oldest first. To resume is to be admitted again: what is still cached is a hit,
the rest is computed anew.

The loss of a demotion is therefore what may have to be computed anew: the request's tokens, less
the prefix that its first prefill found in the cache, which belongs to others as well. Among equal
losses the worst rank goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from laps.engine.types import Plan
from laps_sglang.compat import Engine as SglangEngine
from laps_sglang.ledger import Ledger, handle_of
from laps_sglang.paused import PausedBatch, Req
from laps_sglang.ranking import best_of
from laps_sglang.surgery import Batch


class Memory:
    """Demotions of one scheduler: for the rows that decode, and for newcomers."""

    def __init__(
        self, scheduler: Any, engine: SglangEngine, paused: PausedBatch, ledger: Ledger
    ) -> None:
        self.demotions = 0
        self.adder: Any = None
        """SGLang's PrefillAdder of this iteration; None if it did not get that far."""
        self._scheduler = scheduler
        self._engine = engine
        self._paused = paused
        self._ledger = ledger
        self._demoted: list[Req] = []

    def loss(self, req: Req) -> int:
        """Return the tokens that a demotion of `req` may cost."""
        tokens = len(req.origin_input_ids) + len(req.output_ids)
        return tokens - self._ledger.shared_prefix(req)

    def victims(self, plan: Plan, iteration: int, keep: Container[int] = ()) -> list[Req]:
        """Return who may be demoted now, least loss first; `keep` are ids of those that may not.

        Not before the last result of a request is in, not while SGLang's queue is full, and nobody
        whom SGLang would answer otherwise after it was admitted again.
        """
        limit = self._scheduler.max_queued_requests
        room = None if limit is None else limit - self._ledger.waiting - len(self._demoted)
        if not self._paused or (room is not None and room <= 0):
            return []
        settled = {
            handle_of(req): req
            for req in self._paused.settled(iteration)
            if id(req) not in keep and self._can_start_anew(req)
        }
        resident = self._ledger.resident
        best_first = best_of(plan, len(resident), resident)
        worst_first = [settled[handle] for handle in reversed(best_first) if handle in settled]
        return sorted(worst_first, key=self.loss)[:room]

    def _can_start_anew(self, req: Req) -> bool:
        """Return whether `req` is answered all the same after it was admitted again.

        docs/modes.md, "What is never demoted", says what SGLang would do otherwise.
        """
        params = req.sampling_params
        counted = (
            params.frequency_penalty
            or params.presence_penalty
            or params.repetition_penalty != 1.0
            or params.min_new_tokens
        )
        told_otherwise = req.input_embeds is not None or req.return_hidden_states
        sampled_otherwise = req.custom_logit_processor or (
            req.grammar is not None and params.ignore_eos
        )
        # The prefill brings one token, and the ends of all later rounds move with it.
        speculative = not self._scheduler.spec_algorithm.is_none()
        round_matters = speculative and (
            params.stop_strs
            or params.stop_regex_strs
            or (params.top_k != 1 and (params.min_p or params.sampling_seed is not None))
        )
        return not (
            req.to_finish is not None
            or counted
            or told_otherwise
            or sampled_otherwise
            or round_matters
            or self._engine.beams([req])
        )

    def demote(self, req: Req, running: Batch) -> None:
        """Give up the KV cache and slot of the paused `req`; `requeue` follows."""
        (req,) = self._paused.give_back([req]).reqs
        self._engine.release_to_cache(req, self._scheduler.tree_cache)
        req.reset_for_retract()
        running.batch_is_full = False
        self._demoted.append(req)
        self.demotions += 1

    def requeue(self) -> None:
        """Put demoted requests back into SGLang's waiting queue.

        Only after the iteration's admission: were a request admitted again while a result of its
        is in flight, that result would be taken for the new one's.
        """
        for req in self._demoted:
            self._scheduler._add_request_to_queue(req, is_retracted=True)
        self._demoted.clear()

    def free_slots(self, wanted: int, victims: Callable[[], list[Req]], running: Batch) -> None:
        """Demote until `wanted` newcomers find a slot each, or nobody is left to demote."""
        missing = wanted - self._scheduler.req_to_token_pool.available_size()
        if missing > 0:
            for req in victims()[:missing]:
                self.demote(req, running)

    def free_tokens(self, newcomer: Req, victims: Callable[[], list[Req]], running: Batch) -> None:
        """Demote so that SGLang can admit `newcomer` next time, if that is enough; else nobody.

        Counts as SGLang's PrefillAdder does, of which `newcomer` was refused in this iteration.
        """
        if self.adder is None:
            return
        short = self._engine.admission_shortage(self.adder, newcomer)
        chosen: list[Req] = []
        if short > 0:
            for req in victims():
                short -= self.loss(req) + self.adder._get_running_request_total_token_offset(req)
                chosen.append(req)
                if short <= 0:
                    break
        if short <= 0:
            for req in chosen:
                self.demote(req, running)
