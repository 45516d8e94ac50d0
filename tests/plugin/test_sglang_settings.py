"""Each of SGLang's settings that may bear on scheduling has been looked at.

A setting that a later SGLang adds fails here until it is refused, or settled below.
"""

from __future__ import annotations

import argparse
import importlib
import re

import pytest

from laps_sglang.modes import REFUSED, refuse_unsupported

pytestmark = pytest.mark.engine

OLD_ONLY = {"enable_prefill_context_parallel", "enable_dsa_prefill_context_parallel"}
"""Settings of SGLang 0.5.17 that the newest has no more."""
SETTLED = [
    # Limits and sizes that admission keeps to, whoever chooses whom to admit
    "mem_fraction_static|max_(running|queued)_requests|max_total_tokens|max_prefill_tokens",
    "chunked_prefill_size|prefill_max_requests|page_size|schedule_conservativeness",
    "retraction_policy|radix_eviction_policy.*|disable_radix_cache|disable_overlap_schedule",
    "scheduler_recv_interval",
    # Of no effect without a mode that is refused
    "enable_dynamic_chunking|pp_.*|c128_page_size|.*swa.*|.*mamba.*|priority_.*|.*_priority_.*",
    "prefill_delayer_.*|prefill_decode_interval_min_bs|disaggregation_.*|encoder_.*|pdmux_.*",
    "enable_adaptive_dispatch_to_encoder|decoupled_spec_.*|num_reserved_decode_tokens|sm_group_num",
    "optimistic_prefill_attempts|hisparse_config|lmcache_config_file|flexkv_config_file",
    "hicache_storage_.*|hicache_host_memory_mode|unified_cache_external_.*|enable_linker_.*",
    "enable_dp_.*|enable_tp_lm_head_.*|dcp_.*|cp_strategy|enable_cp_.*|enable_dsa_cache_layer_split",
    "elastic_ep_.*|ep_join_.*|max_ep_size|prefill_only_disable_kv_cache|uno_lora_path",
    "speculative_(dflash|dspark|domino)_.*|num_continuous_decode_steps",
    # Where pages lie and how they are copied, not who owns them
    "enable_page_major_kv_layout|hicache_(ratio|size|host_memory_fraction|io_backend|mem_layout)",
    "disable_chunked_prefix_cache",
    # How a model is spread over ranks that all run the same batch
    "nccl_port|dist_.*|gated_launch_port|nnodes|node_rank|tp_size|dp_size|load_balance_method",
    "moe_dp_size|ep_size|moe_dense_tp_size|shared_experts_tp_size|enable_(shared_experts|dense)_.*",
    "enable_(layernorm_sp|megamoe_.*|attn_tp_input_scattered|p2p_check)|disable_attn_tp_gather",
    # Which drafts are made, and by which kernels; not what crosses rounds
    "speculative_(draft|num|eagle|attention|moe|dsa|token_map|accept|ngram|boundary|enable_w4).*",
    "speculative_adaptive_config|spec_trace_dir|language_model_only",
]
TESTED = {"enable_hierarchical_cache", "speculative_adaptive"}


def settings() -> set[str]:
    found = set()
    for module in ("schedule", "memory", "spec", "parallel", "disagg"):
        fields = importlib.import_module(f"sglang.srt.arg_groups.fields.{module}")
        for namespace in vars(fields).values():
            if hasattr(namespace, "_NS_PATH"):
                found |= {name for name in namespace.__annotations__ if not name.startswith("_")}
    return found


def test_every_setting_is_refused_tested_or_settled() -> None:
    settled = re.compile("|".join(SETTLED))
    open_ = {name for name in settings() - REFUSED.keys() - TESTED if not settled.fullmatch(name)}
    assert not open_


def test_every_refused_setting_is_one_of_sglangs_and_off_by_default() -> None:
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    defaults = {action.dest: action.default for action in parser._actions}
    assert REFUSED.keys() - defaults.keys() == OLD_ONLY
    refuse_unsupported(defaults, None)
