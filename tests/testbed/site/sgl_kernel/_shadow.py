"""The stand-in must never hide a real sgl_kernel, which would then silently not run."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path


def refuse_to_shadow(stand_in: Path) -> None:
    """Raise RuntimeError if an `sgl_kernel` other than the folder `stand_in` could be imported.

    Not an ImportError: SGLang guards many imports against those and would go on without a word.
    """
    elsewhere = [p for p in sys.path if Path(p or ".").resolve() != stand_in.parent.resolve()]
    real = PathFinder.find_spec("sgl_kernel", elsewhere)
    if real is None or real.origin is None:
        return
    raise RuntimeError(
        f"a real sgl_kernel is installed ({real.origin}) and the CPU test bed refuses to "
        f"shadow it: take {stand_in.parent} off PYTHONPATH, or use an environment made by "
        "tests/testbed/install.py"
    )
