"""The SGLang servers of these tests: real ones on CPU, with SGLang's strict leak checks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from testbed.launch import MODELS, SglangServer, living

PATIENCE_S = 120.0
"""Longest wait for something that must come; a busy machine may be very slow."""
SYNC, OVERLAP = "sync", "overlap"


@dataclass(frozen=True, slots=True)
class Variant:
    """A model and a way to decode it: SGLang's flags but for ours."""

    name: str
    model: str
    algorithm: str | None = None
    draft: str | None = None
    shape: tuple[int, int, int] | None = None
    """Draft steps, candidates a step, and tokens sent to verification."""
    more: tuple[str, ...] = ()
    """Further flags."""

    @property
    def flags(self) -> list[str]:
        if self.shape is None:
            return list(self.more)
        steps, topk, tokens = self.shape
        return [
            *self.more,
            *("--speculative-num-steps", str(steps)),
            *("--speculative-eagle-topk", str(topk)),
            *("--speculative-num-draft-tokens", str(tokens)),
        ]


PLAIN = Variant("plain", "tiny")
TREE = Variant("tree", "tiny", "STANDALONE", "tiny-draft-0.2", (3, 2, 6))
CHAIN = Variant(
    "chain",
    "tiny",
    "STANDALONE",
    "tiny-draft-0.2",
    (4, 1, 5),
    # Settings of SGLang's scheduler that the plugin must live with.
    more=(
        *("--scheduler-recv-interval", "3"),
        *("--prefill-max-requests", "2"),
        *("--radix-eviction-policy", "lfu"),
    ),
)
EAGLE = Variant("eagle", "tiny", "EAGLE", "tiny-eagle", (3, 2, 6))
EAGLE3 = Variant("eagle3", "tiny", "EAGLE3", "tiny-eagle3", (3, 2, 6))
NGRAM = Variant("ngram", "tiny", "NGRAM", more=("--speculative-num-draft-tokens", "6"))
ADAPTIVE = Variant(
    "eagle-adaptive",
    "tiny",
    "EAGLE",
    "tiny-eagle",
    (2, 1, 3),
    more=(
        "--speculative-adaptive",
        *("--speculative-adaptive-config", str(Path(__file__).with_name("adaptive.json"))),
        "--disable-cuda-graph",  # SGLang builds the graphs of every draft length on any device
    ),
)
SMOLLM2 = Variant("smollm2", "smollm2-135m", "EAGLE", "smollm2-135m-eagle", (3, 2, 6))


def sglang(variant: Variant, log_path: Path, *flags: str, loop: str | None = None) -> SglangServer:
    """A server of this interpreter's SGLang, not started yet.

    `loop` is the scheduler loop; None for the one that SGLang chooses on a CPU (synchronous where
    it speculates, else overlap). Level 2 of the busy check also logs every check, for
    `assert_clean` to find.
    """
    environment = {
        "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "1",
        "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "2",
        "LAPS_TESTBED_OVERLAP": "1" if loop == OVERLAP else "0",
    }
    return SglangServer(
        Path(sys.executable),
        MODELS / variant.model,
        draft=MODELS / variant.draft if variant.draft else None,
        algorithm=variant.algorithm,
        extra_args=[
            "--sleep-on-idle",  # or it spins, and the servers beside it starve
            *variant.flags,
            *(["--disable-overlap-schedule"] if loop == SYNC else []),
            *flags,
        ],
        extra_env=environment,
        log_path=log_path,
    )


def internal_state(server: SglangServer) -> dict[str, Any]:
    """What the scheduler says of itself in `/server_info`."""
    [state] = _internal_states(server)
    return state


def _internal_states(server: SglangServer) -> list[dict[str, Any]]:
    response = httpx.get(f"{server.base_url}/server_info", timeout=PATIENCE_S)
    response.raise_for_status()
    return [dict(state) for state in response.json()["internal_states"]]


def laps_block(server: SglangServer) -> dict[str, Any]:
    """What the plugin says of itself in `/server_info`."""
    [block] = laps_blocks(server)
    return block


def laps_blocks(server: SglangServer) -> list[dict[str, Any]]:
    """What the plugin says of itself in `/server_info`, replica by replica."""
    return [dict(state["laps"]) for state in _internal_states(server)]


def flush(server: SglangServer) -> bool:
    """Empty the radix cache; False while the server is not idle."""
    response = httpx.post(f"{server.base_url}/flush_cache", timeout=PATIENCE_S)
    return response.status_code == 200


def assert_clean(server: SglangServer) -> None:
    """Assert that the server serves, holds nothing, and checked its memory all the while."""
    assert until(lambda: flush(server)), server.log_tail()
    assert server.is_ready(), server.log_tail()
    block = internal_state(server).get("laps", {})
    assert (block.get("running", 0), block.get("paused", 0)) == (0, 0)
    assert "[Mem Check (BUSY)]" in server.log_path.read_text(errors="replace")


def processes(group: int) -> list[int]:
    """The processes of a server, by the process id of its main one."""
    return sorted(living(group))


def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Wait until `condition` holds; False if it never does."""
    deadline = time.monotonic() + patience_s
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds
