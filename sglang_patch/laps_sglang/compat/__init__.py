"""Everything that depends on a version of SGLang, and the check that this one is supported.

`targets` (what must be there), `engine` (what the plugin asks), `sglang_0517` and `sglang_0523`
(the two kinds that answer), `server` (SGLang's settings). All others import from here.
"""

from __future__ import annotations

from importlib.metadata import version

from laps_sglang.compat.engine import Engine
from laps_sglang.compat.server import captured_batch_sizes, resolved_settings
from laps_sglang.compat.sglang_0517 import Sglang0517
from laps_sglang.compat.sglang_0523 import Sglang0523
from laps_sglang.compat.targets import (
    RECEIVER,
    SCHEDULER,
    Target,
    UnsupportedEngineError,
    unapplied,
)

__all__ = [
    "RECEIVER",
    "SCHEDULER",
    "SUPPORTED",
    "Engine",
    "Target",
    "UnsupportedEngineError",
    "captured_batch_sizes",
    "check_version",
    "installed_engine",
    "resolved_settings",
    "unapplied",
]

SUPPORTED = ("0.5.17", "0.5.18", "0.5.22", "0.5.23")
"""Versions whose engine tests pass. CI runs the oldest and the newest; the others were run once.

0.5.19 counts resident KV cache in another way, 0.5.20 and 0.5.21 look for overdue requests
elsewhere: they are of neither of the two kinds of engine.
"""


def check_version() -> str:
    """Return the version of SGLang, or raise UnsupportedEngineError if it is not supported."""
    found = version("sglang")
    if found not in SUPPORTED:
        raise UnsupportedEngineError(
            f"sglang-laps does not support SGLang {found}: install one of {', '.join(SUPPORTED)}, "
            "or start the server without the --laps flags"
        )
    return found


def installed_engine() -> Engine:
    """Return what is particular to the SGLang that is installed.

    Raises UnsupportedEngineError if it is not a supported version, or if a function that we hook
    or call is missing or has changed; the message names it.
    """
    found = check_version()
    engine: Engine = Sglang0523() if found in ("0.5.22", "0.5.23") else Sglang0517()
    problems = [problem for target in engine.targets if (problem := target.problem())]
    if problems:
        raise UnsupportedEngineError(
            f"sglang-laps cannot patch this SGLang {found}: {'; '.join(problems)}. "
            "Was it modified? Start the server without the --laps flags, or install it afresh"
        )
    return engine
