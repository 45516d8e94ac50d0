"""What SGLang made of the settings that its server was started with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
