"""SGLang's real scheduler loops under the plugin, over a fake model (see `real_scheduler`).

The plugin's hooks are applied through SGLang's own registry.
"""

from __future__ import annotations

import types
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import zmq
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.plugins.hook_registry import HookRegistry, HookType
from sglang.srt.runtime_context import get_context, get_parallel
from sglang.srt.sampling.sampling_params import SamplingParams

from engine.fake_model import DRAFTS, STRIDE, VOCABULARY
from engine.real_scheduler import NEWEST, Ranks, Setup, build_scheduler
from laps_sglang.compat import Engine, installed_engine
from laps_sglang.hooks import Hooks
from laps_sglang.planner import Planner
from laps_sglang.worker import Worker

ENGINE: Engine = installed_engine()
ALONE = Ranks()


def _apply_hooks() -> Hooks:
    def attach(scheduler: Any) -> Worker:
        return Worker(scheduler, ENGINE, scheduler.setup.max_running)

    hooks = Hooks(ENGINE, lambda: None, attach)
    for target, kind, function in hooks.table():
        HookRegistry.register(target, _switchable(target, kind, function), HookType(kind))
    HookRegistry.apply_hooks()
    return hooks


PROBE: list[Callable[..., Any]] = [lambda _, __, function, *args, **kw: function(*args, **kw)]
"""How hooks are called: the last one (bench/step measures through it)."""
REMOVED: set[str] = set()
"""Targets whose hooks are out of action: the mutants of test_hooks.py."""


def _switchable(target: str, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def hook(*args: Any, **kw: Any) -> Any:
        if target not in REMOVED:
            return PROBE[-1](target, kind, function, *args, **kw)
        return args[0](*args[1:], **kw) if kind == "around" else None

    return hook


HOOKS = _apply_hooks()


class _Tokenizer:
    """The socket from the tokenizer: every poll runs the test's script, then hands over `inbox`."""

    def __init__(self) -> None:
        self.inbox: deque[Any] = deque()
        self._script_ran = False
        self.script: Callable[[int], bool] = lambda iteration: True
        self.iteration = 0
        self.limit = 0
        self.stop: Callable[[], None] = lambda: None

    def recv_pyobj(self, flags: int = 0) -> Any:
        if not self._script_ran:
            self._script_ran = True
            self.iteration += 1
            assert self.iteration <= self.limit, "the loop does not come to an end"
            if self.script(self.iteration):
                self.stop()
        if self.inbox:
            return self.inbox.popleft()
        self._script_ran = False
        raise zmq.ZMQError


class _FakeTokenizer:
    """Writes token 7 as "<7>"."""

    additional_stop_token_ids = None
    eos_token_id = None

    def encode(self, text: str, **kw: Any) -> list[int]:
        return [0] * len(text)

    def decode(self, tokens: Sequence[int], **kw: Any) -> str:
        return "".join(f"<{token}>" for token in tokens)


class RealLoop:
    """One scheduler of SGLang, patched, over a fake model."""

    def __init__(self, setup: Setup, group: Ranks = ALONE) -> None:
        self.setup = setup
        fields: dict[str, Any] = {
            "attention_backend": "torch_native",
            "device": "cpu",
            "page_size": setup.page,
            "disable_radix_cache": not setup.radix_cache,
            "disable_overlap_schedule": not setup.overlap,
            "pp_max_micro_batch_size": setup.slots,
            "max_running_requests": setup.slots,
            "chunked_prefill_size": setup.chunk,
        }
        if setup.speculative:
            fields |= {
                "speculative_algorithm": "EAGLE",
                "speculative_num_steps": DRAFTS,
                "speculative_eagle_topk": 1,
                "speculative_num_draft_tokens": STRIDE,
            }
        self._context = ExitStack()
        override = get_context().override_server_args(**fields)
        server_args = override.install()
        self._context.callback(override.restore)
        if NEWEST:
            ranks: dict[str, Any] = {"pp_rank": 0, "attn_cp_rank": 0}
            ranks |= {"tp_rank": group.rank, "attn_tp_rank": group.rank}
            if group.size > 1:
                sizes = ("tp_size", "attn_tp_size", "moe_tp_size")
                ranks |= dict.fromkeys(sizes, group.size) | {"tp_group": group}
            self._context.enter_context(get_parallel().override(**ranks))
        self._tokenizer = _Tokenizer()
        self.scheduler = build_scheduler(setup, server_args, self._tokenizer, group)
        self.worker = HOOKS.adopt(self.scheduler)

    def close(self) -> None:
        """Take this loop's settings out of SGLang's process-wide context."""
        self._context.close()

    def plan_with(self, planner: Planner) -> None:
        """Let `planner` decide from now on."""
        self.worker.planner = planner

    def run(self, script: Callable[[int], bool], limit: int = 6000) -> int:
        """Run the loop; `script(iteration)` is called where requests are received, and ends it.

        Returns the number of iterations; more than `limit` fail the test.
        """
        self._tokenizer.script, self._tokenizer.limit = script, limit
        self._tokenizer.stop = lambda: setattr(self.scheduler, "gracefully_exit", True)
        loop = "event_loop_overlap" if self.setup.overlap else "event_loop_normal"
        getattr(self.scheduler, loop)()
        return self._tokenizer.iteration

    def receive(self, *messages: Any) -> None:
        """Let SGLang's receiver find `messages` (entry rank): it broadcasts them to all ranks.

        They reach `scheduler._request_dispatcher`.
        """
        self._tokenizer.inbox.extend(messages)

    def end(self) -> None:
        """End `run` after this iteration."""
        self._tokenizer.stop()

    def submit(
        self, rid: str, prompt: Sequence[int], tokens: int, session: Any = None, **sampling: Any
    ) -> Any:
        """Queue a request for `tokens` greedy tokens after `prompt`, and return SGLang's Req."""
        params = SamplingParams(max_new_tokens=tokens, temperature=0, **sampling)
        params.normalize(_FakeTokenizer())
        req = Req(
            rid,
            "",
            array("q", prompt),
            params,
            session=session,
            eos_token_ids=set(),
            vocab_size=VOCABULARY,
        )
        req.tokenizer = _FakeTokenizer()
        self.scheduler._add_request_to_queue(req)
        return req

    def expect_answers(self, ratio: float) -> None:
        """Let SGLang's admission believe that requests use this share of their max_new_tokens."""
        self.scheduler.new_token_ratio_tracker = types.SimpleNamespace(
            current=ratio, decay_step=lambda: None, reset=lambda: None
        )

    def check_no_leak(self) -> None:
        """Assert that an idle scheduler has every KV slot and request slot back."""
        s = self.scheduler
        s.on_idle()
        free = s.token_to_kv_pool_allocator.available_size() + s.tree_cache.evictable_size()
        assert free == self.setup.kv_tokens
        assert s.req_to_token_pool.available_size() == self.setup.slots
