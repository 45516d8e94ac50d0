"""A scheduler of SGLang over a fake model: no process, no GPU, no weights.

`Scheduler.__init__` loads a model and opens sockets, so the scheduler is built without it and given
the attributes that its loops read; the request receiver, batches, allocators, radix cache,
FutureMap, result processor and leak checks are SGLang's own.
"""

from __future__ import annotations

import types
from dataclasses import MISSING, dataclass
from typing import Any

import sglang.srt.managers.overlap_utils as overlap_utils
import sglang.srt.mem_cache.allocation as allocation
import torch
import zmq
from laps_testbed import paging  # type: ignore[import-not-found]
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
from sglang.srt.mem_cache.allocator import (
    PagedTokenToKVPoolAllocator,
    TokenToKVPoolAllocator,
    paged,
)
from sglang.srt.mem_cache.cache_init_params import CacheInitParams
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

from engine.fake_model import VOCABULARY, FakeModel
from engine.scheduler_state import FakeDevice, fixed_state

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
    page: int = 1
    radix_cache: bool = True
    context: int = 512


@dataclass(frozen=True)
class Ranks:
    """A tensor-parallel group of schedulers; SGLang broadcasts requests over it."""

    rank: int = 0
    size: int = 1
    cpu_group: Any = None
    """A torch.distributed process group; None where there is one rank."""

    @property
    def ranks(self) -> list[int]:
        """Global ranks of the members."""
        return list(range(self.size))


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
    allocation.get_last_loc_triton = allocation.get_last_loc_torch
    paged.alloc_extend_kernel = paging.Launcher(paging.alloc_extend)
    paged.alloc_decode_kernel = paging.Launcher(paging.alloc_decode)
    torch.Tensor.record_stream = lambda self, stream: None  # type: ignore[method-assign, assignment]
    torch.get_device_module = lambda device=None: (  # type: ignore[assignment]
        FakeDevice if "cpu" in str(device) else _real_device_module(device)
    )


_replace_gpu_parts()


# --- the scheduler -------------------------------------------------------------------------------


class _NoSocket:
    def recv_pyobj(self, flags: int = 0) -> Any:
        raise zmq.ZMQError


def build_scheduler(setup: Setup, server_args: Any, socket: Any, group: Ranks) -> Any:
    """Return a scheduler whose requests come from `socket`; `server_args` are SGLang's settings."""
    page_size = setup.page
    s: Any = object.__new__(Scheduler)
    s.setup = setup
    s.server_args = server_args
    s.spec_algorithm = SpeculativeAlgorithm.from_string("EAGLE" if setup.speculative else None)
    s.req_to_token_pool = ReqToTokenPool(setup.slots, setup.context, "cpu", False)
    pool = (setup.kv_tokens, torch.bfloat16, "cpu", None, False)
    s.token_to_kv_pool_allocator = (
        TokenToKVPoolAllocator(*pool)
        if page_size == 1
        else PagedTokenToKVPoolAllocator(pool[0], page_size, *pool[1:])
    )
    s.tree_cache = _build_cache(
        setup,
        req_to_token_pool=s.req_to_token_pool,
        token_to_kv_pool_allocator=s.token_to_kv_pool_allocator,
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
        context_len=setup.context,
    )
    s.model_worker = s.tp_worker = FakeModel(s, setup.kv_tokens, setup.speculative, setup.seed)
    s.draft_worker = s.model_worker if setup.speculative else None
    vars(s).update(fixed_state(setup.slots, setup.kv_tokens, setup.chunk, page_size, setup.overlap))
    vars(s.ps).update(
        tp_size=group.size, tp_rank=group.rank, attn_tp_size=group.size, attn_tp_rank=group.rank
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
        if hasattr(NewTokenRatioTracker, "from_config")
        else NewTokenRatioTracker.from_server_args(server_args)
    )
    s.policy = SchedulePolicy("fcfs", s.tree_cache, False, False, False)
    s.request_receiver = _accepting(
        SchedulerRequestReceiver,
        recv_from_tokenizer=socket,
        recv_from_rpc=_NoSocket(),
        recv_skipper=None,
        input_blocker=None,
        mm_receiver=None,
        server_args=server_args,
        ps=s.ps,
        tp_group=group,
        tp_cpu_group=group.cpu_group,
        model_config=s.model_config,
        max_recv_per_poll=-1,
        stream_output=lambda *args: None,
        get_last_batch=lambda: s.last_batch,
    )
    return s


def _build_cache(setup: Setup, **pools: Any) -> Any:
    """Return the cache of this version of SGLang, as `mem_cache/registry.py` chooses it."""
    params = CacheInitParams(
        disable=not setup.radix_cache,
        page_size=setup.page,
        is_eagle=setup.speculative,
        **pools,
    )
    if NEWEST:
        from sglang.srt.mem_cache.unified_cache.components import ComponentType
        from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

        params.tree_components = (ComponentType.FULL,)
        return UnifiedRadixCache(params)
    from sglang.srt.mem_cache.chunk_cache import ChunkCache
    from sglang.srt.mem_cache.radix_cache import RadixCache

    return RadixCache(params) if setup.radix_cache else ChunkCache(params)


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
