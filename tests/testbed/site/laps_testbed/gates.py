"""SGLang plugin (`sglang.srt.plugins`): open the gates that keep speculation off a CPU.

SGLang has the CPU code paths for speculative decoding since 0.5.16 but takes them only where it
finds Intel AMX, because only then are the kernels there.  Here the kernels are `sgl_kernel` beside
this package, and they run on any CPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from . import host_cache, paging

OVERLAP_ENV = "LAPS_TESTBED_OVERLAP"  # 1: keep the overlap scheduler with speculative decoding


def activate() -> None:
    """Called by SGLang in every process, before the server arguments are resolved."""
    import sgl_kernel  # raises where it would shadow a real one

    if not getattr(sgl_kernel, "IS_LAPS_STAND_IN", False):
        raise RuntimeError(
            f"the laps test bed is on PYTHONPATH but sgl_kernel comes from {sgl_kernel.__file__}; "
            "take tests/testbed/site off PYTHONPATH to use a real sgl_kernel"
        )
    _choose_amx_attention()
    _allocate_pages_without_triton()
    host_cache.install()
    # Asks for one NUMA node a rank, for an operator that binds threads and is not there.
    _hook("sglang.srt.utils.numa_utils.init_threads_binding", _leave_alone, "REPLACE")
    if os.environ.get(OVERLAP_ENV) == "1":
        _keep_overlap()


def _choose_amx_attention() -> None:
    """Keep the `intel_amx` attention backend, the one on CPU that has TARGET_VERIFY and drafting.

    `cpu_has_amx_support()` itself must go on saying no: elsewhere it decides whether weights are
    packed by operators that only a real sgl_kernel has.
    """
    try:
        from sglang.srt.runtime_context import override_platform  # 0.5.20 and newer
    except ImportError:
        from sglang.srt.arg_groups import overrides

        overrides.cpu_has_amx_support = lambda: True
        _mend_first_versions()
    else:
        override_platform(has_amx=True).install()


def _mend_first_versions() -> None:
    """What 0.5.17 gets wrong on a CPU, kernels apart, and later versions mended."""
    backend = "sglang.srt.layers.attention.intel_amx_backend.IntelAMXAttnBackend"
    # It works out the lengths for verification and for drafting, and then passes the kernel
    # those of the committed prefix all the same.
    _hook(f"{backend}.forward_extend", _passing_seq_lens(_verify_seq_lens), "AROUND")
    _hook(f"{backend}.forward_decode", _passing_seq_lens(_draft_seq_lens), "AROUND")
    # It keeps the bits of a grammar in page-locked memory, and applies them on a GPU only.
    grammar = "sglang.srt.constrained.xgrammar_backend"
    _hook(f"{grammar}._allocate_token_bitmask", _allocate_token_bitmask, "REPLACE")
    _hook(f"{grammar}.XGrammarGrammar.apply_vocab_mask", _apply_vocab_mask, "REPLACE")
    # NGRAM's C++ is compiled at run time and lacks an include that older compilers want.
    os.environ.setdefault("CXX", "g++ -include cstddef")


def _allocate_token_bitmask(vocabulary: int, rows: int) -> torch.Tensor:
    """A bit for each token, all set, in words of 32."""
    return torch.full((rows, -(vocabulary // -32)), -1, dtype=torch.int32)


def _apply_vocab_mask(grammar: Any, logits: torch.Tensor, vocab_mask: torch.Tensor) -> None:
    from xgrammar import apply_token_bitmask_inplace

    apply_token_bitmask_inplace(logits, vocab_mask)


def _verify_seq_lens(backend: Any, forward_batch: Any) -> torch.Tensor | None:
    is_verify = forward_batch.forward_mode.is_target_verify()
    return backend.extend_metadata[0] if is_verify else None


def _draft_seq_lens(backend: Any, forward_batch: Any) -> torch.Tensor | None:
    metadata = backend.draft_decode_metadata
    return None if metadata is None else metadata[1]


def _passing_seq_lens(
    right_lengths: Callable[[Any, Any], torch.Tensor | None],
) -> Callable[..., Any]:
    """A hook around an attention call that shows it `right_lengths`, where there are any."""

    def around(
        forward: Callable[..., Any],
        backend: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: Any,
        forward_batch: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        committed, seq_lens = forward_batch.seq_lens, right_lengths(backend, forward_batch)
        if seq_lens is not None:
            forward_batch.seq_lens = seq_lens
        try:
            return forward(backend, q, k, v, layer, forward_batch, *args, **kwargs)
        finally:
            forward_batch.seq_lens = committed

    return around


def _allocate_pages_without_triton() -> None:
    """For --page-size above 1; where SGLang has a PyTorch form of its own, take that."""
    from sglang.srt.mem_cache import allocation
    from sglang.srt.mem_cache.allocator import paged

    allocation.get_last_loc_triton = allocation.get_last_loc_torch
    paged.alloc_extend_kernel = paging.Launcher(paging.alloc_extend)
    paged.alloc_decode_kernel = paging.Launcher(paging.alloc_decode)


def _keep_overlap() -> None:
    """Keep the overlap scheduler: SGLang turns it off for speculation on CPU, and two things it
    then uses have no CPU form."""
    _hook(
        "sglang.srt.arg_groups.speculative_hook._disable_overlap_schedule_for_cpu",
        _leave_alone,
        "REPLACE",
    )
    _hook("sglang.srt.managers.overlap_utils.gather_spec_extras", _gather_rows, "REPLACE")
    # 0.5.17 calls it on CPU tensors, which have no streams to be recorded on.
    torch.Tensor.record_stream = _leave_alone  # type: ignore[method-assign]


def _leave_alone(*_: object, **__: object) -> None:
    """Stands in for what must not happen."""


def _gather_rows(
    indices: torch.Tensor, *buffers: torch.Tensor | None
) -> tuple[torch.Tensor | None, ...]:
    """`gather_spec_extras` (a Triton kernel upstream): rows `indices` of every buffer."""
    return tuple(None if buffer is None else buffer[indices] for buffer in buffers)


def _hook(target: str, function: Callable[..., Any], kind: str) -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(target, function, HookType[kind])
