"""Everything that depends on a version of SGLang, and the check that this one is supported.

A renamed method must end in a refusal at start and never in a server that silently runs unpatched:
SGLang only logs a plugin that fails and a hook that finds no target (sglang/srt/plugins).
"""

from __future__ import annotations

import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

SUPPORTED = ("0.5.17", "0.5.18", "0.5.22", "0.5.23")
"""Versions whose engine tests pass. CI runs the oldest and the newest; the others were run once.

0.5.19 counts resident KV cache in another way, 0.5.20 and 0.5.21 look for overdue requests
elsewhere: neither is one of the two kinds of engine below.
"""

SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"
CHECKER = "sglang.srt.managers.scheduler_components.invariant_checker.SchedulerInvariantChecker"
RECEIVER = "sglang.srt.managers.scheduler_components.request_receiver.SchedulerRequestReceiver"


class UnsupportedEngineError(RuntimeError):
    """This SGLang, or the way it was started, is not supported; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """A function of SGLang that we hook or call, and the parameters that we rely on."""

    path: str
    parameters: tuple[str, ...] = ()

    def problem(self) -> str | None:
        """Say what is wrong with the target in this SGLang, or None."""
        try:
            function = pkgutil.resolve_name(self.path)
        except (ImportError, AttributeError):
            return f"{self.path} does not exist"
        if not self.parameters:
            return None
        # Plugins that loaded before us may have wrapped it: functools.wraps keeps the signature.
        names = inspect.signature(function).parameters
        missing = [name for name in self.parameters if name not in names]
        return f"{self.path} has no parameter {', '.join(missing)}" if missing else None


COMMON_TARGETS = (
    Target(f"{SCHEDULER}.__init__", ("server_args", "port_args")),
    Target(f"{SCHEDULER}.get_new_batch_prefill", ("running_batch",)),
    Target(f"{SCHEDULER}.update_running_batch", ("batch",)),
    Target(f"{SCHEDULER}.pause_generation", ("recv_req",)),
    Target(f"{SCHEDULER}.process_input_requests", ("recv_reqs",)),
    Target(f"{SCHEDULER}.process_batch_result", ("batch", "result")),
    Target(f"{SCHEDULER}._add_request_to_queue", ("req", "is_retracted")),
    Target(f"{SCHEDULER}.get_internal_state", ("recv_req",)),
    Target(f"{RECEIVER}._pull_raw_reqs"),
    Target("sglang.srt.managers.schedule_policy.PrefillAdder.__init__", ("running_batch",)),
    Target(
        "sglang.srt.managers.schedule_policy.PrefillAdder._get_running_request_total_token_offset",
        ("req",),
    ),
    Target("sglang.srt.managers.schedule_policy.PrefillAdder.rem_total_tokens"),
    Target("sglang.srt.managers.schedule_policy.CLIP_MAX_NEW_TOKENS"),
    Target("sglang.srt.managers.schedule_batch.ScheduleBatch.filter_batch", ("keep_indices",)),
    Target("sglang.srt.managers.schedule_batch.ScheduleBatch.merge_batch", ("other",)),
    Target("sglang.srt.managers.schedule_batch.ScheduleBatch.check_decode_mem"),
    Target("sglang.srt.managers.schedule_batch.Req.reset_for_retract"),
    Target("sglang.srt.managers.schedule_batch.Req.update_spec_correct_drafts_histogram"),
    Target("sglang.srt.mem_cache.allocation_sizing.get_alloc_reserve_per_decode"),
    Target("sglang.srt.runtime_context.get_context"),
)


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


Hooks = Sequence[tuple[str, str, Callable[..., Any]]]
"""(target, "around" or "after", function), as `HookRegistry.register` takes them."""


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


def unapplied(targets: Iterable[str]) -> list[str]:
    """Return those of `targets` that SGLang's HookRegistry has not patched (it only logs why)."""
    from sglang.srt.plugins.hook_registry import HookRegistry

    return [target for target in targets if target not in HookRegistry._patched]


def resolved_settings() -> dict[str, Any]:
    """Return SGLang's settings by name, defaults resolved, in the scheduler's process."""
    from sglang.srt.runtime_context import get_context

    settings: dict[str, Any] = get_context().resolved_server_args_dict()
    return settings


def captured_batch_sizes(settings: Mapping[str, Any], resident: int) -> tuple[int, ...]:
    """Return the sizes that SGLang pads a decode batch to, ascending; none without CUDA graphs.

    `settings` are SGLang's, resolved; `resident` its `max_running_requests`. As in
    sglang/srt/model_executor/runner/base_cuda_graph_runner.py, get_batch_sizes_to_capture.
    """
    config = settings.get("cuda_graph_config")
    if config is None:
        return ()
    # SGLang 0.5.22 and later resolve it to plain dictionaries.
    decode = config["decode"] if isinstance(config, dict) else vars(config.decode)
    if decode["backend"] == "disabled" or not decode["bs"]:
        return ()
    largest = min(max(decode["bs"]), resident)
    return tuple(sorted({size for size in decode["bs"] if size <= resident} | {largest}))


def check_version() -> str:
    """Return the version of SGLang, or raise UnsupportedEngineError if it is not supported."""
    found = version("sglang")
    if found not in SUPPORTED:
        raise UnsupportedEngineError(
            f"sglang-laps does not support SGLang {found}: install one of {', '.join(SUPPORTED)}, "
            "or start the server without the --laps flags"
        )
    return found


def installed_engine() -> Engine:
    """Return what is particular to the SGLang that is installed.

    Raises UnsupportedEngineError if it is not a supported version, or if a function that we hook
    or call is missing or has changed; the message names it.
    """
    found = check_version()
    engine: Engine = Sglang0523() if found in ("0.5.22", "0.5.23") else Sglang0517()
    problems = [problem for target in engine.targets if (problem := target.problem())]
    if problems:
        raise UnsupportedEngineError(
            f"sglang-laps cannot patch this SGLang {found}: {'; '.join(problems)}. "
            "Was it modified? Start the server without the --laps flags, or install it afresh"
        )
    return engine
