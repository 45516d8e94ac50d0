"""The SGLang servers that are measured: of this interpreter, on its GPU."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from gpu.shapes import SHAPES
from testbed.launch import SglangServer


def arguments(program: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every measurement asks for."""
    parser = argparse.ArgumentParser(
        prog=program, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="target model, by path")
    parser.add_argument("--draft", type=Path, required=True, help="EAGLE head, by path")
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, help="JSON-lines files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--sglang-args", type=shlex.split, default=[])
    return parser


def server(
    options: argparse.Namespace,
    shape: str,
    name: str,
    *flags: str,
    environment: Mapping[str, str] | None = None,
) -> SglangServer:
    """Return a server with a draft of the wanted shape, not started yet; `name` is its log's."""
    return SglangServer(
        Path(sys.executable),
        options.model,
        draft=options.draft,
        algorithm="EAGLE",
        cpu=False,
        extra_args=(*SHAPES[shape].flags, *flags, *options.sglang_args),
        extra_env=environment,
        log_path=options.out / f"{name}.log",
        start_timeout_s=600,
    )
