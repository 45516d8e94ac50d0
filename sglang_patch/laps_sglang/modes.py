"""Ways to run SGLang that the plugin refuses or warns of, each with the reason.

Refused at start, before the model is loaded: a scheduler that is half right is worse than none.
docs/modes.md lists every mode and what shows its state; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from laps_sglang.compat import UnsupportedEngineError


def refuse_unsupported(settings: Mapping[str, Any], max_running: int | None) -> None:
    """Raise UnsupportedEngineError, naming every setting that the plugin cannot work with.

    `settings` are SGLang's, resolved; `max_running` is the cap asked for, or None.
    """
    problems = [reason for refused, reason in _checks(settings, max_running) if refused]
    if problems:
        raise UnsupportedEngineError(
            "sglang-laps cannot schedule this server: " + "; ".join(problems) + "."
        )


def _checks(settings: Mapping[str, Any], max_running: int | None) -> list[tuple[bool, str]]:
    # An option that a version does not have is one that is off.
    given = settings.get
    resident = given("max_running_requests")
    return [
        (
            given("disaggregation_mode") not in (None, "null"),
            "--disaggregation-mode: prefill and decode servers have queues of their own",
        ),
        (
            (given("pp_size") or 1) > 1,
            "--pp-size above 1: pipeline stages hold several running batches",
        ),
        (
            bool(given("enable_dp_attention")),
            "--enable-dp-attention: ranks must agree on the kind of every step",
        ),
        (
            bool(given("enable_mixed_chunk")),
            "--enable-mixed-chunk: decode rows inside a prefill batch cannot be paused",
        ),
        (
            bool(given("enable_priority_scheduling")),
            "--enable-priority-scheduling: it preempts by another order (and drops the KV cache)",
        ),
        (
            given("schedule_policy") not in (None, "fcfs"),
            "--schedule-policy other than fcfs: it reorders what the plan has ordered",
        ),
        (
            bool(given("enable_lora") or given("lora_paths")),
            "--enable-lora: SGLang counts the adapters of running requests only",
        ),
        (
            bool(given("enable_streaming_session")),
            "--enable-streaming-session: a session keeps the slot that a demotion gives up",
        ),
        (
            bool(given("enable_session_radix_cache")),
            "--enable-session-radix-cache: sessions hold cache entries that a demotion gives up",
        ),
        (
            bool(given("enable_prefill_delayer")),
            "--enable-prefill-delayer: it holds back prefills that the plan wants",
        ),
        (bool(given("enable_pdmux")), "--enable-pdmux: it has a scheduler loop of its own"),
        (bool(given("enable_hisparse")), "--enable-hisparse: it moves requests between batches"),
        (
            given("dllm_algorithm") is not None,
            "--dllm-algorithm: diffusion models have no verify rounds",
        ),
        (bool(given("is_embedding")), "--is-embedding: there is nothing to decode"),
        (
            (given("prefill_decode_interval") or 0) > 0,
            "--prefill-decode-interval: it holds back prefills that the plan wants",
        ),
        (
            max_running is not None and resident is not None and max_running > resident,
            f"--laps-max-running {max_running} above --max-running-requests {resident}: "
            "requests that run are resident",
        ),
    ]


_TESTED_ALGORITHMS = (None, "", "EAGLE", "STANDALONE")
_UNTESTED = {
    "enable_hierarchical_cache": "demoted prefixes should survive in host memory",
    "enable_lmcache": "another cache than SGLang's",
    "enable_flexkv": "another cache than SGLang's",
    "enable_unified_memory": "another memory pool",
    "enable_two_batch_overlap": "batches are split once more",
    "enable_multi_layer_eagle": "more draft state a request",
    "speculative_adaptive": "the draft length changes as it runs",
    "enable_return_hidden_states": "hidden states of rounds that a request sits out",
    "enable_return_routed_experts": "experts of rounds that a request sits out",
    "enable_kv_cache_sharding": "a KV cache in shards",
    "enable_prefill_cp": "context parallelism",
}


def untested(settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for every setting that should work and that no test of ours covers."""
    found = [
        f"--{name.replace('_', '-')} is not tested with sglang-laps: {what}"
        for name, what in _UNTESTED.items()
        if settings.get(name)
    ]
    algorithm = settings.get("speculative_algorithm")
    if algorithm not in _TESTED_ALGORITHMS:
        found.append(f"--speculative-algorithm {algorithm} is not tested with sglang-laps")
    return found


def refuse_unsupported_model(scheduler: Any) -> None:
    """Raise UnsupportedEngineError for a model whose state is more than a KV cache in full."""
    if scheduler.is_hybrid_ssm or scheduler.is_hybrid_swa:
        kind = "state-space layers" if scheduler.is_hybrid_ssm else "sliding-window attention"
        raise UnsupportedEngineError(
            f"sglang-laps cannot schedule this model: a paused request with {kind} is not supported"
        )
