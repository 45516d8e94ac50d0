"""The system that the demo shows: the service, and one patched SGLang worker with EAGLE."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from testbed.launch import MODELS, SglangServer
from testbed.service import LapsService

MAX_RUNNING = 4
"""Requests that decode at once; the others wait, or pause with their KV cache kept."""
EAGLE = (
    *("--speculative-num-steps", "3", "--speculative-eagle-topk", "1"),
    *("--speculative-num-draft-tokens", "4"),
)


@dataclass(frozen=True)
class System:
    """Where the doors of a running system are."""

    openai_url: str
    """SGLang's own OpenAI endpoint, without the /v1."""
    service: str
    """host:port of the scheduling service."""
    scale: int
    """How much longer answers may be, so that the load keeps this machine busy for a while."""
    warm_up_tokens: int
    """Longest answer of the warm-up: on a GPU, kernels compile at the first rounds and pauses."""


@contextmanager
def running(options: argparse.Namespace, logs: Path, console: Console) -> Iterator[System]:
    """Start the service and the worker; stop both, whatever happens."""
    gpu = torch.cuda.is_available()
    console.print(
        f"Starting the service and one SGLang worker on the {'GPU' if gpu else 'CPU'} "
        f"({Path(options.model).name} + EAGLE, at most {MAX_RUNNING} running) ..."
    )
    begin = time.monotonic()
    # On a CPU a verify round takes longer than a plan may be old elsewhere.
    service = LapsService("--plan-ttl-s", "5", log_path=logs / "laps.log")
    worker = SglangServer(
        Path(sys.executable),
        Path(options.model),
        draft=Path(options.draft),
        algorithm="EAGLE",
        cpu=not gpu,
        extra_args=(
            *EAGLE,
            *("--laps-endpoint", service.address, "--laps-max-running", str(MAX_RUNNING)),
            *("--max-running-requests", "32", "--skip-server-warmup"),
            # Elsewhere than in float32 the shape of a batch decides near ties.
            *(("--enable-deterministic-inference",) if gpu else ()),
            *options.sglang_args,
        ),
        log_path=logs / "sglang.log",
        start_timeout_s=600,
    )
    with ExitStack() as stack:
        stack.callback(service.stop)
        stack.callback(worker.stop)
        with console.status("loading the model"):
            worker.start()
            service.start()  # meanwhile: SGLang takes its time to import itself
            worker.wait_until_ready()
        console.print(f"Ready after {time.monotonic() - begin:.0f} s.")
        if gpu:
            yield System(worker.base_url, service.address, scale=8, warm_up_tokens=64)
        else:
            yield System(worker.base_url, service.address, scale=1, warm_up_tokens=1)


def default_model() -> Path:
    """Return the target model that `tests/testbed/models.py smollm2` makes."""
    return MODELS / "smollm2-135m"


def default_draft() -> Path:
    """Return the EAGLE head that this repository ships, as the same command lays it out."""
    return MODELS / "smollm2-135m-eagle"
