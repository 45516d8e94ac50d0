"""SGLang's real scheduler loops over a fake model: no process, no GPU, no weights.

`Scheduler.__init__` loads a model and opens sockets, so the scheduler is built without it and given
the attributes that its loops read; the request receiver, batches, allocators, radix cache,
FutureMap, result processor and leak checks are SGLang's own, and so are the loops. The plugin's
hooks are applied through SGLang's own registry.
"""

from __future__ import annotations

import types
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import MISSING, dataclass
from typing import Any

import sglang.srt.managers.overlap_utils as overlap_utils
import sglang.srt.mem_cache.allocation as allocation
import torch
import zmq
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.managers.schedule_policy import SchedulePolicy
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.managers.scheduler_components.batch_result_processor import (
    SchedulerBatchResultProcessor,
)
from sglang.srt.managers.scheduler_components.invariant_checker import SchedulerInvariantChecker
from sglang.srt.managers.scheduler_components.logprob_result_processor import (
    SchedulerLogprobResultProcessor,
)
from sglang.srt.managers.scheduler_components.new_token_ratio_tracker import NewTokenRatioTracker
from sglang.srt.managers.scheduler_components.pool_stats_observer import SchedulerPoolStatsObserver
from sglang.srt.managers.scheduler_components.request_receiver import SchedulerRequestReceiver
from sglang.srt.mem_cache.allocator import TokenToKVPoolAllocator
from sglang.srt.mem_cache.cache_init_params import CacheInitParams
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
from sglang.srt.mem_cache.radix_cache import RadixCache
from sglang.srt.plugins.hook_registry import HookRegistry, HookType
from sglang.srt.runtime_context import get_context, get_parallel
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

from engine.fake_model import DRAFTS, STRIDE, VOCABULARY, FakeModel
from engine.scheduler_state import FakeDevice, fixed_state
from laps_sglang.compat import Engine, installed_engine
from laps_sglang.hooks import Hooks
from laps_sglang.planner import Planner
from laps_sglang.worker import Worker

ENGINE: Engine = installed_engine()
NEWEST = hasattr(Scheduler, "_collect_inflight_batches")
"""Whether this is SGLang 0.5.23 rather than 0.5.17, whose schedulers read other attributes."""


@dataclass(frozen=True)
class Setup:
    """One way to run the loop."""

    speculative: bool = True
    overlap: bool = True
    slots: int = 8
    kv_tokens: int = 4096
    max_running: int | None = None
    seed: int = 0
    chunk: int = 64


# --- what SGLang would do on a GPU ---------------------------------------------------------------


def _assign_slots(
    pool_indices: Any, table: Any, start: Any, end: Any, out: Any, batch_size: int
) -> None:
    offset = 0
    for row in range(batch_size):
        first, last = int(start[row]), int(end[row])
        table[int(pool_indices[row]), first:last] = out[offset : offset + last - first].to(
            table.dtype
        )
        offset += last - first


def _consume(values: torch.Tensor, buffer: torch.Tensor, rows: torch.Tensor) -> None:
    assert (values >= 0).all(), "a FutureMap row was read twice, or was never written"
    buffer[rows] = -1


_real_device_module = torch.get_device_module


def _replace_gpu_parts() -> None:
    """Replace two Triton kernels and the stream calls, and arm the FutureMap's debug assertion."""
    allocation.assign_req_to_token_pool_func = _assign_slots
    overlap_utils.gather_spec_extras = lambda rows, *buffers: tuple(
        None if buffer is None else buffer[rows] for buffer in buffers
    )
    overlap_utils._DEBUG_ASSERT = True
    overlap_utils._assert_nonneg_and_invalidate = _consume
    torch.Tensor.record_stream = lambda self, stream: None  # type: ignore[method-assign, assignment]
    torch.get_device_module = lambda device=None: (  # type: ignore[assignment]
        FakeDevice if "cpu" in str(device) else _real_device_module(device)
    )


def _apply_hooks() -> Hooks:
    def attach(scheduler: Any) -> Worker:
        return Worker(scheduler, ENGINE, scheduler.setup.max_running)

    hooks = Hooks(ENGINE, lambda: None, attach)
    for target, kind, function in hooks.table():
        HookRegistry.register(target, _switchable(target, kind, function), HookType(kind))
    HookRegistry.apply_hooks()
    return hooks


REMOVED: set[str] = set()
"""Targets whose hooks are out of action: the mutants of test_mutations.py."""


def _switchable(target: str, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def hook(*args: Any, **kw: Any) -> Any:
        if target not in REMOVED:
            return function(*args, **kw)
        return args[0](*args[1:], **kw) if kind == "around" else None

    return hook


_replace_gpu_parts()
HOOKS = _apply_hooks()


# --- the scheduler -------------------------------------------------------------------------------


class _Tokenizer:
    """The socket from the tokenizer: every poll runs the test's script, then finds it empty."""

    def __init__(self) -> None:
        self.script: Callable[[int], bool] = lambda iteration: True
        self.iteration = 0
        self.limit = 0
        self.stop: Callable[[], None] = lambda: None

    def recv_pyobj(self, flags: int = 0) -> Any:
        self.iteration += 1
        assert self.iteration <= self.limit, "the loop does not come to an end"
        if self.script(self.iteration):
            self.stop()
        raise zmq.ZMQError


class _NoSocket:
    def recv_pyobj(self, flags: int = 0) -> Any:
        raise zmq.ZMQError


class RealLoop:
    """One scheduler of SGLang, patched, over a fake model."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        fields: dict[str, Any] = {
            "attention_backend": "torch_native",
            "device": "cpu",
            "page_size": 1,
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
            ranks = dict.fromkeys(("pp_rank", "tp_rank", "attn_tp_rank", "attn_cp_rank"), 0)
            self._context.enter_context(get_parallel().override(**ranks))
        self.scheduler = self._build(server_args)
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

    def submit(self, rid: str, prompt: Sequence[int], tokens: int, **sampling: Any) -> Any:
        """Queue a request for `tokens` greedy tokens after `prompt`, and return SGLang's Req."""
        params = SamplingParams(max_new_tokens=tokens, temperature=0, **sampling)
        params.normalize(None)
        req = Req(rid, "", array("q", prompt), params, eos_token_ids=set(), vocab_size=VOCABULARY)
        req.tokenizer = types.SimpleNamespace(additional_stop_token_ids=None, eos_token_id=None)
        self.scheduler._add_request_to_queue(req)
        return req

    def expect_short_answers(self) -> None:
        """Let SGLang's admission believe that requests use a twentieth of their max_new_tokens."""
        self.scheduler.new_token_ratio_tracker = types.SimpleNamespace(
            current=0.05, decay_step=lambda: None, reset=lambda: None
        )

    def check_no_leak(self) -> None:
        """Assert that an idle scheduler has every KV slot and request slot back."""
        s = self.scheduler
        s.on_idle()
        free = s.token_to_kv_pool_allocator.available_size() + s.tree_cache.evictable_size()
        assert free == self.setup.kv_tokens
        assert s.req_to_token_pool.available_size() == self.setup.slots

    def _build(self, server_args: Any) -> Any:
        setup, page_size = self.setup, 1
        s: Any = object.__new__(Scheduler)
        s.setup = setup
        s.server_args = server_args
        s.spec_algorithm = SpeculativeAlgorithm.from_string("EAGLE" if setup.speculative else None)
        s.req_to_token_pool = ReqToTokenPool(setup.slots, 512, "cpu", False)
        s.token_to_kv_pool_allocator = TokenToKVPoolAllocator(
            setup.kv_tokens, torch.bfloat16, "cpu", None, False
        )
        s.tree_cache = RadixCache(
            CacheInitParams(
                disable=False,
                req_to_token_pool=s.req_to_token_pool,
                token_to_kv_pool_allocator=s.token_to_kv_pool_allocator,
                page_size=page_size,
                is_eagle=setup.speculative,
            )
        )
        s.future_map = overlap_utils.FutureMap(
            "cpu", s.spec_algorithm, s.req_to_token_pool, needs_cpu_seq_lens=True
        )
        s.model_config = types.SimpleNamespace(
            vocab_size=VOCABULARY,
            is_encoder_decoder=False,
            is_multimodal=False,
            think_end_ids=None,
            think_start_ids=None,
            self_opened_think_start_ids=None,
            context_len=512,
        )
        s.model_worker = s.tp_worker = FakeModel(s, setup.kv_tokens, setup.speculative, setup.seed)
        s.draft_worker = s.model_worker if setup.speculative else None
        vars(s).update(
            fixed_state(setup.slots, setup.kv_tokens, setup.chunk, page_size, setup.overlap)
        )
        s.batch_result_processor = _accepting(
            SchedulerBatchResultProcessor,
            is_generation=True,
            disaggregation_mode=s.disaggregation_mode,
            enable_overlap=setup.overlap,
            enable_overlap_mlx=False,
            server_args=server_args,
            beam_coordinator=s.beam_coordinator,
            model_config=s.model_config,
            token_to_kv_pool_allocator=s.token_to_kv_pool_allocator,
            tree_cache=s.tree_cache,
            hisparse_coordinator=None,
            req_to_token_pool=s.req_to_token_pool,
            decode_offload_manager=None,
            metrics_collector=None,
            metrics_reporter=s.metrics_reporter,
            draft_worker=None,
            model_worker=s.model_worker,
            logprob_result_processor=SchedulerLogprobResultProcessor(model_config=s.model_config),
            output_streamer=s.output_streamer,
            abort_request=lambda req: None,
        )
        pools: dict[str, Any] = {
            "tree_cache": s.tree_cache,
            "token_to_kv_pool_allocator": s.token_to_kv_pool_allocator,
            "req_to_token_pool": s.req_to_token_pool,
            "is_hybrid_swa": False,
            "full_tokens_per_layer": None,
            "swa_tokens_per_layer": None,
            "max_total_num_tokens": setup.kv_tokens,
            "get_last_batch": lambda: s.last_batch,
            "get_running_batch": lambda: s.running_batch,
        }
        s.pool_stats_observer = _accepting(
            SchedulerPoolStatsObserver,
            **pools,
            session_controller=types.SimpleNamespace(sessions={}),
            hisparse_coordinator=None,
            is_hybrid_ssm=False,
            enable_hisparse=False,
        )
        s.invariant_checker = _accepting(
            SchedulerInvariantChecker,
            **pools,
            is_hybrid_ssm=False,
            disaggregation_mode=s.disaggregation_mode,
            page_size=page_size,
            server_args=server_args,
            scheduler_stage_metrics=None,
            get_chunked_req=lambda: s.chunked_req,
            pool_stats_observer=s.pool_stats_observer,
        )
        s.new_token_ratio_tracker = (
            NewTokenRatioTracker.from_config()
            if NEWEST
            else NewTokenRatioTracker.from_server_args(server_args)
        )
        s.policy = SchedulePolicy("fcfs", s.tree_cache, False, False, False)
        self._tokenizer = _Tokenizer()
        s.request_receiver = _accepting(
            SchedulerRequestReceiver,
            recv_from_tokenizer=self._tokenizer,
            recv_from_rpc=_NoSocket(),
            recv_skipper=None,
            input_blocker=None,
            mm_receiver=None,
            server_args=server_args,
            ps=s.ps,
            model_config=s.model_config,
            max_recv_per_poll=-1,
            stream_output=lambda *args: None,
            get_last_batch=lambda: s.last_batch,
        )
        return s


def _accepting(cls: type, **fields: Any) -> Any:
    """Build a dataclass of SGLang from those of `fields` that this version knows."""
    known = cls.__dataclass_fields__  # type: ignore[attr-defined]
    required = (
        name
        for name, field in known.items()
        if field.init and field.default is MISSING and field.default_factory is MISSING
    )
    given = dict.fromkeys(required) | {name: fields[name] for name in known if name in fields}
    return cls(**given)
