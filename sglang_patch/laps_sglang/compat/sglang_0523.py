"""SGLang 0.5.22 and 0.5.23, which list in one place the batches that they walk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from laps_sglang.compat.engine import Engine, Hooks
from laps_sglang.compat.targets import CHECKER, COMMON_TARGETS, SCHEDULER, Target


class Sglang0523(Engine):
    """SGLang 0.5.22 and 0.5.23."""

    targets = (
        *COMMON_TARGETS,
        Target(f"{SCHEDULER}._collect_inflight_batches"),
        Target(f"{SCHEDULER}._reqs_finishing_inflight", ("batch",)),
        Target(f"{CHECKER}._requests_owning_rows"),
        Target("sglang.srt.mem_cache.common.release_kv_cache", ("checkpoint",)),
    )

    def hooks(
        self, paused: Callable[[], Sequence[Any]], expose: Callable[[], Iterable[Any]]
    ) -> Hooks:
        def inflight_batches(batches: list[Any], scheduler: Any) -> list[Any]:
            return [*batches, *expose()]

        def owning_rows(reqs: list[Any], checker: Any) -> list[Any]:
            known = {id(req) for req in reqs}
            return reqs + [r for r in paused() if r.kv.holds_kv and id(r) not in known]

        return (
            (f"{SCHEDULER}._collect_inflight_batches", "after", inflight_batches),
            (f"{CHECKER}._requests_owning_rows", "after", owning_rows),
        )

    def release_to_cache(self, req: Any, tree_cache: Any) -> None:
        from sglang.srt.mem_cache.common import release_kv_cache

        release_kv_cache(req, tree_cache, checkpoint=True)

    def holds_kv(self, req: Any) -> bool:
        return bool(req.kv.holds_kv)

    def beams(self, reqs: Sequence[Any]) -> int:
        groups = [req.beam_group for req in reqs if req.beam_group is not None]
        return sum(max(group.num_member_rows, 1) for group in groups)

    def charge(self, adder: Any, tokens: float) -> None:
        adder.memory_budget.total_offset += tokens

    def matched_prefix(self, req: Any) -> int:
        return int(req.prefix_len)

    def dp_rank(self, scheduler: Any) -> int:
        from sglang.srt.runtime_context import get_parallel

        return get_parallel().dp_rank or 0

    def is_entry_rank(self, scheduler: Any) -> bool:
        from sglang.srt.runtime_context import get_parallel

        ranks = get_parallel()
        return not (ranks.pp_rank or ranks.attn_tp_rank or ranks.attn_cp_rank)

    def finishing(self, scheduler: Any, batch: Any) -> Iterable[Any]:
        found: Iterable[Any] = scheduler._reqs_finishing_inflight(batch)
        return found
