"""What rounds and prefills cost for models of several sizes: a roofline over measured overhead.

A round of n drafts with an EAGLE-like head streams the target's weights once and the head's n
times, reads the KV cache of every request, and verifies n + 1 tokens of each:

    base        = OVERHEAD_S + (1 + n * HEAD) * weights / bandwidth
    per request = HOST_S + context * kv_bytes / bandwidth + (n + 1) * 2 * parameters / compute
    prefill     = OVERHEAD_S + tokens * 2 * parameters / compute

Bandwidth and compute are those of an H100 SXM (NVIDIA data sheet: 3.35 TB/s, 989 TFLOP/s in dense
bfloat16) times the share that serving engines reach, times the GPUs. Overhead and host time are
what SmolLM2-135M with an EAGLE head of 3 steps shows on one H100 under SGLang 0.5.17, where the
roofline is next to nothing: about 3.8 ms a round for one request, 8 to 10 ms for 40 to 48.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.physics import Linear, Physics

BANDWIDTH = 3.35e12 * 0.7
COMPUTE = 989e12 * 0.5
MEMORY = 80e9 * 0.85
"""Bytes of a GPU for weights and KV cache."""
OVERHEAD_S = 3.7e-3
HOST_S = 0.12e-3
HEAD = 0.05
"""Weights of the draft head over those of the target."""
CONTEXT = 1_300
"""Mean tokens of a request in the Azure trace, prompt and half of the output."""


@dataclass(frozen=True)
class Model:
    """A decoder in bfloat16, and the GPUs that it is spread over."""

    name: str
    parameters: float
    kv_bytes: int
    """KV cache per token: 2 (K and V) * 2 bytes * layers * KV heads * head size."""
    gpus: int = 1

    def physics(self, drafts: int, max_running: int = 16) -> Physics:
        """Return the costs; plans are late by one step, and paused requests take memory."""
        weights = 2.0 * self.parameters
        bandwidth, compute = BANDWIDTH * self.gpus, COMPUTE * self.gpus
        verify_s = (drafts + 1) * 2.0 * self.parameters / compute
        return Physics(
            round_time=Linear(
                OVERHEAD_S + (1 + drafts * HEAD) * weights / bandwidth,
                HOST_S + CONTEXT * self.kv_bytes / bandwidth + verify_s,
            ),
            max_running=max_running,
            max_resident=16 * max_running,
            kv_tokens=int((MEMORY * self.gpus - weights) / self.kv_bytes),
            prefill_s=OVERHEAD_S,
            prefill_token_s=2.0 * self.parameters / compute,
            plan_delay=1,
        )


MODELS = (
    Model("0.1B (SmolLM2)", 0.135e9, 2 * 2 * 30 * 3 * 64),
    Model("1B (Llama 3.2)", 1.24e9, 2 * 2 * 16 * 8 * 64),
    Model("8B (Llama 3.1)", 8.03e9, 2 * 2 * 32 * 8 * 128),
    Model("32B (Qwen 2.5)", 32.8e9, 2 * 2 * 64 * 8 * 128, gpus=2),
    Model("70B (Llama 3.1)", 70.6e9, 2 * 2 * 80 * 8 * 128, gpus=4),
)
