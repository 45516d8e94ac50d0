"""The SGLang servers that are measured: of this interpreter, on its GPU.

Where there is none they run on the CPU test bed (tests/testbed): too slow to measure anything, and
enough to see that everything works.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import torch

from gpu.shapes import SHAPES
from gpu.tap import NATIVE, TRACES
from testbed.launch import SITE, SglangServer

BENCH = Path(__file__).parents[1]
TAP_SITE = Path(__file__).with_name("tap_site")
GPU = torch.cuda.is_available()
PATIENCE_S = 60.0
"""Longest wait for a server to do what it does at once."""
FLOAT32 = ("float32", "float")
"""What SGLang calls it."""
SHARING = ("--sleep-on-idle",)
"""An idle server spins otherwise, and the one beside it starves."""


class MeasurementError(RuntimeError):
    """A server that does not do what is to be measured; the message says what."""


def arguments(program: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every measurement asks for."""
    # A plain kill (that of a time limit, for one) must unwind and stop what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(
        prog=program, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="target model, by path")
    parser.add_argument("--draft", type=Path, required=True, help="EAGLE head, by path")
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, help="JSON-lines files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--sglang-args", type=shlex.split, default=[])
    parser.add_argument(
        "--short", action="store_true", help="few requests, to see that everything works"
    )
    return parser


def server(
    options: argparse.Namespace,
    shape: str,
    name: str,
    *flags: str,
    environment: Mapping[str, str] | None = None,
) -> SglangServer:
    """Return a server with a draft of the wanted shape, not started yet; `name` is its log's."""
    words = (
        *SHAPES[shape].flags,
        *SHARING,
        *options.sglang_args,
        *flags,  # last: they win
    )
    # Some of SGLang's kernels take no float32, and it is the tap that has layers do without them.
    native = {**tapped(), NATIVE: "1"} if dtype_of(words) in FLOAT32 else {}
    return SglangServer(
        Path(sys.executable),
        options.model,
        draft=options.draft,
        algorithm="EAGLE",
        cpu=not GPU,
        extra_args=words,
        extra_env={**native, **(environment or {})},
        log_path=options.out / "logs" / f"{name}.log",
        start_timeout_s=600,
    )


def dtype_of(words: Sequence[str]) -> str | None:
    """Return the --dtype among SGLang's arguments, of several the last; None if there is none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--dtype")
    dtype: str | None = parser.parse_known_args(words)[0].dtype
    return dtype


def tapped(traces: Path | None = None) -> dict[str, str]:
    """Return the environment of a server whose steps are measured (`gpu.tap`).

    With `traces`, a recording, its acceptance is forced (`gpu.forced`).
    """
    ours = (TAP_SITE, BENCH) if GPU else (TAP_SITE, BENCH, SITE)
    path = os.pathsep.join([*map(str, ours), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path} | ({TRACES: str(traces.resolve())} if traces else {})


def internal_state(process: SglangServer) -> dict[str, Any]:
    """Return what the scheduler says of itself: with the plugin `laps`, tapped `bench`."""
    response = httpx.get(f"{process.base_url}/server_info", timeout=PATIENCE_S).raise_for_status()
    return dict(response.json()["internal_states"][0])


def flush_cache(process: SglangServer) -> None:
    """Empty the prefix cache, as soon as nothing runs any more."""
    deadline = time.monotonic() + PATIENCE_S
    while not httpx.post(f"{process.base_url}/flush_cache", timeout=PATIENCE_S).is_success:
        if time.monotonic() > deadline:
            raise MeasurementError(f"{process.base_url} does not become idle: see its log")
        time.sleep(0.2)


def refuse_others(options: argparse.Namespace, stage: str) -> None:
    """Raise MeasurementError if the results that are there of a stage are of something else.

    No median is of both, and what is there is not measured again.
    """
    path = _note_path(options, stage)
    before = json.loads(path.read_text()) if path.exists() else {}
    for name, now in _measured_with(options).items():
        if before.get(name, now) != now:
            raise MeasurementError(
                f"{options.out} has results of {stage} with {name} {before[name]!r}, and these "
                f"would be with {now!r}: use another --out"
            )


def _measured_with(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the results of a stage must have in common."""
    return {
        "model": options.model.name,
        "draft": options.draft.name,
        "sglang_args": shlex.join(options.sglang_args),
        "shape": getattr(options, "shape", None),
        "short": options.short,
    }


def _note_path(options: argparse.Namespace, stage: str) -> Path:
    path: Path = options.out / f"machine-{stage}.json"
    return path


def note_machine(options: argparse.Namespace, stage: str) -> None:
    """Write OUT/machine-STAGE.json: where, with what and when the stage was last run."""
    (options.out / "logs").mkdir(parents=True, exist_ok=True)
    note = {
        "date": datetime.now(UTC).date().isoformat(),
        "gpu": torch.cuda.get_device_name() if GPU else None,
        "gpus": torch.cuda.device_count(),
        "driver": _driver(),
        "cpu": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sglang": version("sglang"),
        **_measured_with(options),
    }
    _note_path(options, stage).write_text(json.dumps(note, indent=1) + "\n")


def _driver() -> str | None:
    if not GPU:
        return None
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[0].strip() or None
