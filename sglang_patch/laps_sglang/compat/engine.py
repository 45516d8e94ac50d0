"""What the plugin asks of SGLang where versions differ, or where it counts as SGLang does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from laps_sglang.compat.targets import Target

Hooks = Sequence[tuple[str, str, Callable[..., Any]]]
"""(target, "around" or "after", function), as `HookRegistry.register` takes them."""


class Engine(ABC):
    """What differs between the supported versions of SGLang."""

    targets: ClassVar[tuple[Target, ...]]
    """What this version must have; checked at start."""

    @abstractmethod
    def hooks(
        self, paused: Callable[[], Sequence[Any]], expose: Callable[[], Iterable[Any]]
    ) -> Hooks:
        """Return the hooks by which SGLang finds paused requests where it walks its batches.

        `paused` gives the requests; `expose` their batches, to be marked or timed out.
        """

    @abstractmethod
    def release_to_cache(self, req: Any, tree_cache: Any) -> None:
        """Give up a request's KV cache and slot, its tokens kept in the radix cache."""

    @abstractmethod
    def holds_kv(self, req: Any) -> bool:
        """Return whether a request holds KV cache and a slot."""

    def fits_surely(self, batch: Any) -> bool:
        """Return whether the next round of `batch` has room, by a bound and not row by row.

        A row takes at most what SGLang reserves for a round, and a page more
        (`ScheduleBatch.new_tokens_required_next_decode`).
        """
        from sglang.srt.mem_cache.allocation_sizing import get_alloc_reserve_per_decode

        allocator = batch.token_to_kv_pool_allocator
        most = get_alloc_reserve_per_decode() if not batch.spec_algorithm.is_none() else 0
        free: int = allocator.available_size()
        needed: int = (len(batch.reqs) + self.beams(batch.reqs)) * (most + allocator.page_size)
        return free >= needed

    @abstractmethod
    def beams(self, reqs: Sequence[Any]) -> int:
        """Return how many rows groups of beams have besides `reqs`; for each group at least 1."""

    @abstractmethod
    def charge(self, adder: Any, tokens: float) -> None:
        """Take `tokens` off a PrefillAdder's budget."""

    @abstractmethod
    def matched_prefix(self, req: Any) -> int:
        """Return how many tokens of a waiting request the radix cache held at the last look."""

    def admission_shortage(self, adder: Any, req: Any) -> float:
        """Return by how many tokens `req` was too large for what is left in a PrefillAdder.

        As `PrefillAdder.add_one_req` counts: the tokens to compute, those to generate, one page.
        """
        from sglang.srt.managers.schedule_policy import CLIP_MAX_NEW_TOKENS

        done = len(req.output_ids)
        compute = len(req.origin_input_ids) + done - self.matched_prefix(req)
        generate = min(max(req.sampling_params.max_new_tokens - done, 0), CLIP_MAX_NEW_TOKENS)
        return float(compute + generate + adder.page_size + 1 - adder.rem_total_tokens)

    @abstractmethod
    def dp_rank(self, scheduler: Any) -> int:
        """Return which data-parallel replica this scheduler is; 0 where there is only one."""

    @abstractmethod
    def is_entry_rank(self, scheduler: Any) -> bool:
        """Return whether this rank receives requests and broadcasts them to the others."""

    @abstractmethod
    def finishing(self, scheduler: Any, batch: Any) -> Iterable[Any]:
        """Return requests of `batch` that the result in flight finishes by length.

        SGLang leaves them out of the next decode by itself.
        """
