"""Functions of SGLang that we hook or call, and whether they are there, as we know them.

A renamed method must end in a refusal at start and never in a server that silently runs unpatched:
SGLang only logs a plugin that fails and a hook that finds no target (sglang/srt/plugins).
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass

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


def unapplied(targets: Iterable[str]) -> list[str]:
    """Return those of `targets` that SGLang's HookRegistry has not patched (it only logs why)."""
    from sglang.srt.plugins.hook_registry import HookRegistry

    return [target for target in targets if target not in HookRegistry._patched]
