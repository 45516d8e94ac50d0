"""Ways to run SGLang that the plugin refuses, each with the reason.

Refused at start, before the model is loaded: a scheduler that is half right is worse than none.
docs/modes.md lists every mode and what shows its state; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from laps_sglang.compat import UnsupportedEngineError

ALGORITHMS = ("EAGLE", "NEXTN", "EAGLE3", "STANDALONE", "NGRAM")
"""Speculative algorithms that are tested; NEXTN is SGLang's other name of EAGLE."""

REFUSED = {
    # Who schedules what, and where
    "disaggregation_mode": "prefill and decode servers have queues of their own",
    "enable_pd_role_switch": "prefill and decode servers have queues of their own",
    "encoder_only": "an encoder server has no requests to decode",
    "language_only": "requests wait for their encoder in a queue of its own",
    "decoupled_spec_role": "the server that drafts knows of no paused requests",
    "pp_size": "pipeline stages hold several running batches",
    "enable_dp_attention": "ranks must agree on the kind of every step",
    "attn_dp_size": "ranks must agree on the kind of every step",
    "dwdp_size": "ranks must agree on the kind of every step",
    "moe_a2a_backend": "ranks must agree on the kind of every step",
    "elastic_ep_backend": "ranks come and go while they follow one plan",
    "attn_cp_size": "requests are split over ranks, which no test covers",
    "dcp_size": "requests are split over ranks, which no test covers",
    "enable_prefill_cp": "requests are split over ranks, which no test covers",
    "enable_prefill_context_parallel": "requests are split over ranks, which no test covers",
    "enable_dsa_prefill_context_parallel": "requests are split over ranks, which no test covers",
    "enable_kv_cache_sharding": "requests are split over ranks, which no test covers",
    "use_ray": "Ray starts scheduler processes without the plugin's settings",
    "device": "only CUDA devices and the CPU are tested",
    # Who is admitted, and in which order
    "enable_mixed_chunk": "decode rows inside a prefill batch cannot be paused",
    "enable_priority_scheduling": "it preempts by another order (and drops the KV cache)",
    "schedule_policy": "it reorders what the plan has ordered",
    "enable_lora": "SGLang counts the adapters of running requests only",
    "lora_paths": "SGLang counts the adapters of running requests only",
    "enable_prefill_delayer": "it holds back prefills that the plan wants",
    "min_free_slots_delay": "it holds back prefills that the plan wants",
    "prefill_decode_interval": "it holds back prefills that the plan wants",
    "enable_pdmux": "it has a scheduler loop of its own",
    "enable_two_batch_overlap": "it splits every batch in two, which no test covers",
    "dllm_algorithm": "diffusion models have no verify rounds",
    "is_embedding": "there is nothing to decode",
    "enable_mis": "there is nothing to decode",
    # What becomes of a request's memory
    "enable_streaming_session": "a session keeps the slot that a demotion gives up",
    "enable_session_radix_cache": "sessions hold cache entries that a demotion gives up",
    "enable_hisparse": "it moves requests between batches",
    "enable_unified_memory": "it counts free memory in another way than the plugin",
    "enable_lmcache": "what its cache makes of a demoted request is not tested",
    "enable_flexkv": "what its cache makes of a demoted request is not tested",
    "radix_cache_backend": "what its cache makes of a demoted request is not tested",
    "enable_unified_cache_external_linker": "what its cache makes of a demoted request "
    "is not tested",
    "hicache_storage_backend": "requests wait for its prefetches, which no test covers",
    "hicache_write_policy": "only write_through is tested",
    "strip_thinking_cache": "a demoted request would compute anew what it has thought",
    "enable_watermark": "its state stays with the slot that a demotion gives up",
    "enable_return_aux_hidden_states": "what it records of a demoted request is not tested",
    "enable_return_routed_experts": "what it records of a demoted request is not tested",
    "enable_return_indexer_topk": "what it records of a demoted request is not tested",
    # How requests speculate
    "speculative_algorithm": f"only {', '.join(ALGORITHMS)} are tested",
    "enable_multi_layer_eagle": "its requests keep draft state that no test covers",
    "speculative_use_rejection_sampling": "draft probabilities go from round to round, "
    "which no test covers",
    "speculative_use_block_verification": "draft probabilities go from round to round, "
    "which no test covers",
}
"""SGLang's settings by name, and why the plugin does not work with them."""

_OFF: tuple[object, ...] = (None, False, 0, "", [])
_HARMLESS: dict[str, tuple[object, ...]] = {
    "disaggregation_mode": ("null",),
    "decoupled_spec_role": ("null",),
    **dict.fromkeys(("pp_size", "attn_dp_size", "dwdp_size", "attn_cp_size", "dcp_size"), (1,)),
    "moe_a2a_backend": ("none",),
    "device": ("cuda", "cpu"),
    "schedule_policy": ("fcfs",),
    "hicache_write_policy": ("write_through",),
}


def refuse_unsupported(settings: Mapping[str, Any], max_running: int | None) -> None:
    """Raise UnsupportedEngineError, naming every setting that the plugin cannot work with.

    `settings` are SGLang's, resolved or as given; one that a version does not have is off.
    `max_running` is the cap asked for, or None.
    """
    problems = [*_refused(settings)]
    resident = settings.get("max_running_requests")
    if max_running is not None and resident is not None and max_running > resident:
        problems.append(
            f"--laps-max-running {max_running} above --max-running-requests {resident}: "
            "requests that run are resident"
        )
    if problems:
        raise UnsupportedEngineError(
            "sglang-laps cannot schedule this server: " + "; ".join(problems) + "."
        )


def _refused(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, reason in REFUSED.items():
        value = settings.get(name)
        if value in _OFF or value in _HARMLESS.get(name, ()):
            continue
        if name == "speculative_algorithm" and str(value).upper() in ALGORITHMS:
            continue
        flag = "--" + name.replace("_", "-")
        yield f"{flag}: {reason}" if value is True else f"{flag} {value}: {reason}"


def refuse_unsupported_model(scheduler: Any) -> None:
    """Raise UnsupportedEngineError for a model whose state is more than a KV cache in full."""
    config = scheduler.model_config
    for refused, kind in (
        (scheduler.is_hybrid_ssm, "state-space layers"),
        (scheduler.is_hybrid_swa, "sliding-window attention"),
        (config.is_encoder_decoder, "an encoder of its own"),
    ):
        if refused:
            raise UnsupportedEngineError(
                "sglang-laps cannot schedule this model: "
                f"a paused request of a model with {kind} is not supported"
            )
