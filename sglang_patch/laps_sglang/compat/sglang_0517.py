"""SGLang 0.5.17 and 0.5.18, which walk their batches in several places: a hook for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from laps_sglang.compat.engine import Engine, Hooks
from laps_sglang.compat.targets import CHECKER, COMMON_TARGETS, SCHEDULER, Target


class Sglang0517(Engine):
    """SGLang 0.5.17 and 0.5.18."""

    targets = (
        *COMMON_TARGETS,
        Target(f"{SCHEDULER}.abort_request", ("recv_req",)),
        Target(f"{SCHEDULER}._abort_on_running_timeout", ("running_batch",)),
        Target(f"{CHECKER}._get_total_uncached_sizes"),
        Target("sglang.srt.mem_cache.common.release_kv_cache", ("is_insert",)),
    )

    def hooks(
        self, paused: Callable[[], Sequence[Any]], expose: Callable[[], Iterable[Any]]
    ) -> Hooks:
        def abort_request(original: Callable[..., Any], scheduler: Any, recv_req: Any) -> Any:
            from sglang.srt.managers.schedule_batch import FINISH_ABORT

            out = original(scheduler, recv_req)
            expose()
            for req in paused():
                if not req.finished() and (recv_req.abort_all or req.rid.startswith(recv_req.rid)):
                    req.to_finish = FINISH_ABORT()
            return out

        from sglang.srt.environ import envs

        def running_timeout(original: Callable[..., Any], scheduler: Any, running: Any) -> None:
            original(scheduler, running)
            # Off by default, and called in every step.
            if envs.SGLANG_REQ_RUNNING_TIMEOUT.get() > 0:
                for batch in expose():
                    original(scheduler, batch)

        def uncached_sizes(sizes: tuple[int, int], checker: Any) -> tuple[int, int]:
            full, swa = sizes
            for req in paused():
                if req.kv is not None:
                    pages = -(-req.kv.kv_allocated_len // checker.page_size)
                    full += pages * checker.page_size - req.cache_protected_len
            return full, swa

        return (
            (f"{SCHEDULER}.abort_request", "around", abort_request),
            (f"{SCHEDULER}._abort_on_running_timeout", "around", running_timeout),
            (f"{CHECKER}._get_total_uncached_sizes", "after", uncached_sizes),
        )

    def release_to_cache(self, req: Any, tree_cache: Any) -> None:
        from sglang.srt.mem_cache.common import release_kv_cache

        release_kv_cache(req, tree_cache, is_insert=True)

    def holds_kv(self, req: Any) -> bool:
        return req.kv is not None

    def beams(self, reqs: Sequence[Any]) -> int:
        return 0

    def charge(self, adder: Any, tokens: float) -> None:
        adder.rem_total_token_offset += tokens

    def matched_prefix(self, req: Any) -> int:
        return len(req.prefix_indices)

    def dp_rank(self, scheduler: Any) -> int:
        return scheduler.ps.dp_rank or 0

    def is_entry_rank(self, scheduler: Any) -> bool:
        ranks = scheduler.ps
        return not (ranks.pp_rank or ranks.attn_tp_rank or ranks.attn_cp_rank)

    def finishing(self, scheduler: Any, batch: Any) -> Iterable[Any]:
        return ()
