"""The attributes that SGLang's scheduler loops read and that no test varies."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from sglang.srt.disaggregation.utils import DisaggregationMode
from sglang.srt.managers.schedule_batch import ScheduleBatch


class Nop:
    """Answers any method with None: stands for metrics, profilers and the like."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kw: None


class FakeDevice:
    """Stands for `torch.cuda`: streams and events that do nothing."""

    Event = Nop

    @staticmethod
    def stream(stream: Any) -> Any:
        return nullcontext()

    @staticmethod
    def current_stream() -> Any:
        return Nop()


class _StageMetrics(Nop):
    _trace_stage = None

    def record(self, *args: Any, **kw: Any) -> Any:
        return nullcontext()


class _NoBeams:
    groups: tuple[()] = ()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name == "commit_decode":
            return lambda *args, **kw: set()
        counts = "rows" in name or "num" in name
        return lambda *args, **kw: 0 if counts else None


def fixed_state(
    slots: int, kv_tokens: int, chunk: int, page_size: int, overlap: bool
) -> dict[str, Any]:
    """Return the attributes by name, for all supported versions of SGLang together."""
    no_op = Nop().anything
    metrics = types.SimpleNamespace(
        num_retracted_reqs=0,
        num_paused_reqs=0,
        enable_metrics=False,
        num_generated_tokens=0,
        forward_ct_decode=0,
        current_scheduler_metrics_enabled=False,
        last_gen_throughput=0.0,
        spec_total_num_forward_ct=0,
        **dict.fromkeys(
            (
                "update_spec_metrics",
                "report_decode_stats",
                "report_prefill_stats",
                "log_batch_result_stats",
                "update_device_timer",
                "_maybe_log_idle_metrics",
                "snapshot_spec_decode_metrics",
                "record_scheduler_active",
                "record_scheduler_idle",
            ),
            no_op,
        ),
    )
    streamer = types.SimpleNamespace(stream_output=no_op)
    to_tokenizer = types.SimpleNamespace(send_output=no_op)
    return {
        # What runs where
        "page_size": page_size,
        "device": "cpu",
        "device_module": FakeDevice,
        "enable_overlap": overlap,
        "enable_overlap_mlx": False,
        "forward_stream": Nop(),
        "schedule_stream": Nop(),
        "copy_stream": Nop(),
        "forward_stream_ctx": nullcontext(),
        "copy_stream_ctx": nullcontext(),
        "batch_record_buf": [None, None],
        "batch_record_ct": 0,
        "_war_barrier_enabled": False,
        "ps": types.SimpleNamespace(
            pp_size=1,
            pp_rank=0,
            tp_size=1,
            tp_rank=0,
            dp_rank=None,
            attn_tp_rank=0,
            attn_tp_size=1,
            attn_cp_rank=0,
            attn_cp_size=1,
        ),
        "pp_group": types.SimpleNamespace(is_last_rank=True, is_first_rank=True),
        "disaggregation_mode": DisaggregationMode.NULL,
        # Queues and counters
        "gracefully_exit": False,
        "waiting_queue": [],
        "running_batch": ScheduleBatch(reqs=[], batch_is_full=False),
        "last_batch": None,
        "result_queue": deque(),
        "cur_batch_for_debug": None,
        "forward_ct": 0,
        "_engine_paused": False,
        "_deferred_input_requests": [],
        "_pending_chunked_abort_req": None,
        "chunked_req": None,
        "return_health_check_ipcs": deque(),
        "total_prefill_uncached_tokens": 0,
        "total_prefill_busy_us": 0,
        "processed_tokens_counter": 0,
        "decode_moment_totals": [0.0] * 6,
        "_prev_decode_launch_ts": None,
        "_prev_step": None,
        "_prev_prefill_end_ts": False,
        "_last_stall_publish_ts": 0,
        "_pause_intervals": [],
        "_pause_started_at": None,
        "_sched_idled": False,
        # Limits
        "max_running_requests": slots,
        "max_total_num_tokens": kv_tokens,
        "max_prefill_tokens": 4096,
        "max_queued_requests": None,
        "max_prefill_bs": 0.0,
        "chunked_prefill_size": chunk,
        "_prefill_decode_interval_remaining": 0,
        "prefill_decode_interval": 0,
        "priority_scheduling_preemption_threshold": 10,
        # Features that are off
        **dict.fromkeys(
            (
                "is_mixed_chunk",
                "enable_dynamic_chunking",
                "enable_fpm",
                "enable_hisparse",
                "require_mlp_sync",
                "enable_hierarchical_cache",
                "enable_hicache_storage",
                "enable_priority_scheduling",
                "enable_priority_preemption",
                "abort_on_priority_when_disabled",
                "schedule_low_priority_values_first",
                "is_hybrid_swa",
                "is_hybrid_ssm",
                "enable_lora",
                "enable_unified_memory",
                "enable_pdmux",
                "enable_dp_attention",
                "enable_skip_finishing_decode",
                "enable_lmcache",
                "enable_continuous_input_polling",
                "enable_unified_cache_external_linker",
                "enable_async_d2h_copy",
                "attn_dp_enabled",
            ),
            False,
        ),
        **dict.fromkeys(
            (
                "_confidence_budget_prepare",
                "dllm_config",
                "hisparse_coordinator",
                "prefill_delayer",
                "min_free_slots_delayer",
                "lora_drainer",
                "truncation_align_size",
                "load_snapshot_writer",
                "scripted_scheduler_hook",
                "forward_sleep_time",
                "external_corpus_manager",
                "rust_server",
                "mm_receiver",
                "idle_sleeper",
                "decode_offload_manager",
                "dynamic_chunk_sizer",
            ),
        ),
        # Collaborators that have nothing to do here
        "is_generation": True,
        "metrics_reporter": metrics,
        "output_streamer": streamer,
        "ipc_channels": types.SimpleNamespace(send_to_tokenizer=to_tokenizer, recv_from_rpc=None),
        "kv_events_publisher": Nop(),
        "profiler_manager": Nop(),
        "session_controller": Nop(),
        "flush_wrapper": Nop(),
        "load_publisher": Nop(),
        "scheduler_stage_metrics": _StageMetrics(),
        "beam_coordinator": _NoBeams(),
        "_record_step_counters": no_op,
        "load_inquirer": types.SimpleNamespace(
            get_loads=no_op, _get_num_pending_tokens=lambda chunk_deduct=0: 0
        ),
        "dllm_manager": types.SimpleNamespace(any_staging_reqs=lambda: False),
        "dp_attn_adapter": types.SimpleNamespace(
            maybe_prepare_mlp_sync_batch=lambda batch, need_sync=None: batch,
            maybe_convert_decode_to_extend=lambda batch: batch,
            drop_sync_wait_carry=no_op,
        ),
        "ngram_embedding_manager": types.SimpleNamespace(
            prepare_for_forward=lambda batch, chunked_req=None: batch
        ),
        "grammar_manager": types.SimpleNamespace(
            has_waiting_grammars=lambda: False, grammar_queue=[], abort_requests=no_op
        ),
    }
