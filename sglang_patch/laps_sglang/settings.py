"""The plugin's settings: SGLang flags on the command line, environment from there on.

SGLang's `ServerArgs` keeps only its own fields, and the scheduler processes are spawned, so a flag
is carried to them by the environment. The names begin with SGLANG_LAPS_ and are distinct from the
`laps` command's, so that pointing the command at a service never patches a server that is started
in the same shell.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laps.engine.types import PolicySpec

ENDPOINT = "SGLANG_LAPS_ENDPOINT"
EMBEDDED = "SGLANG_LAPS_EMBEDDED"
MAX_RUNNING = "SGLANG_LAPS_MAX_RUNNING"
POLICY = "SGLANG_LAPS_POLICY"
LENGTH_MODEL = "SGLANG_LAPS_LENGTH_MODEL"

DEFAULT_POLICY = PolicySpec().name


class SettingsError(ValueError):
    """A setting is not usable; the message says which and what it should be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a worker is to be scheduled."""

    endpoint: str | None = None
    """host:port of the service; None in embedded mode."""
    max_running: int | None = None
    """Most requests in one verify round; None for SGLang's own cap, `--max-running-requests`."""
    policy: str = DEFAULT_POLICY
    """Policy of the embedded engine until a service says otherwise."""
    length_model: Path | None = None
    """The file in which what is learnt of lengths is kept; None if nothing is to be learnt."""


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings | None:
    """Return the settings, or None if the plugin was not asked for. Raises SettingsError."""
    endpoint = environment.get(ENDPOINT) or None
    embedded = environment.get(EMBEDDED, "0")
    max_running = environment.get(MAX_RUNNING)
    if embedded not in ("0", "1"):
        raise SettingsError(f"{EMBEDDED} must be 0 or 1, not {embedded!r}")
    if endpoint is None and embedded == "0":
        if max_running is not None or environment.get(POLICY) or environment.get(LENGTH_MODEL):
            raise SettingsError(
                "--laps-max-running, --laps-policy and --laps-length-model need "
                "--laps-endpoint or --laps-embedded"
            )
        return None
    if endpoint is not None and embedded == "1":
        raise SettingsError("give either --laps-endpoint or --laps-embedded, not both")
    if endpoint is not None and not re.fullmatch(r"\S+:\d+", endpoint):
        raise SettingsError(f"--laps-endpoint ({ENDPOINT}) must be HOST:PORT, not {endpoint!r}")
    if max_running is not None and (not max_running.isdecimal() or int(max_running) < 1):
        raise SettingsError(
            f"--laps-max-running ({MAX_RUNNING}) must be a whole number of at least 1, "
            f"not {max_running!r}"
        )
    return Settings(
        endpoint=endpoint,
        max_running=None if max_running is None else int(max_running),
        policy=environment.get(POLICY) or DEFAULT_POLICY,
        length_model=Path(model) if (model := environment.get(LENGTH_MODEL)) else None,
    )


class _Export(argparse.Action):
    """Store a flag's value in the environment variable that its `const` names."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        os.environ[str(self.const)] = "1" if self.nargs == 0 else str(values)


def add_flags(result: None, parser: argparse.ArgumentParser) -> None:
    """AFTER hook on `ServerArgs.add_cli_args`: the plugin's flags, in a group of their own."""
    group = parser.add_argument_group("sglang-laps")

    def flag(name: str, variable: str, **kwargs: Any) -> None:
        # SUPPRESS: SGLang builds its ServerArgs from the namespace and must not see these.
        group.add_argument(
            name, action=_Export, const=variable, default=argparse.SUPPRESS, **kwargs
        )

    flag(
        "--laps-endpoint",
        ENDPOINT,
        metavar="HOST:PORT",
        help="scheduling service that decides which requests run",
    )
    flag(
        "--laps-embedded",
        EMBEDDED,
        nargs=0,
        help="decide in a process beside the scheduler, without a service",
    )
    flag(
        "--laps-max-running",
        MAX_RUNNING,
        metavar="N",
        help="most requests in one step; the others pause with their KV cache kept "
        "(default: --max-running-requests, the cap of resident ones)",
    )
    flag(
        "--laps-policy",
        POLICY,
        metavar="NAME",
        help=f"policy of the embedded engine (default: {DEFAULT_POLICY})",
    )
    flag(
        "--laps-length-model",
        LENGTH_MODEL,
        metavar="FILE",
        help="predict output lengths from prompts, learn them from what finishes, and keep what "
        "was learnt in FILE (default: neither)",
    )
