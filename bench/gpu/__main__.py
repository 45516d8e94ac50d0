"""Everything on the GPU page, stage after stage (`make bench-gpu`).

A stage that fails does not stop those after it. What has a result is skipped.
"""

from __future__ import annotations

import shlex
import subprocess
import sys

from torch.cuda import device_count

from gpu.contest import add_gpus
from gpu.servers import arguments

PRESSURE = ("--kv-tokens", "10000", "--dtype", "float32")
"""Enough for 8 requests of the longest kind, not for the 64 that are resident without pressure."""
TWO_GPUS = (("identity", "--case", "two-gpus", "--tp", "2"),) if device_count() > 1 else ()
CONTESTS = (("compare",), ("large",))
STAGES = (
    ("identity", "--case", "tree"),
    ("identity", "--case", "chain", "--shape", "chain"),
    ("identity", "--case", "pressure", *PRESSURE),
    ("identity", "--case", "host-cache", *PRESSURE, "--host-cache"),
    *TWO_GPUS,
    ("record",),
    ("throughput",),
    ("moves",),
    *CONTESTS,
    ("throughput", "--large"),
)


def main() -> None:
    parser = arguments("gpu", __doc__)
    add_gpus(parser)
    options = parser.parse_args()
    common = [
        *("--model", str(options.model), "--draft", str(options.draft), "--prompts"),
        *map(str, options.prompts),
        *("--out", str(options.out), f"--sglang-args={shlex.join(options.sglang_args)}"),
        *(("--short",) if options.short else ()),
    ]
    gpus = ("--gpus", str(options.gpus))
    stages = [(*stage, *(gpus if stage in CONTESTS else ())) for stage in STAGES]
    failed: list[tuple[str, ...]] = [stage for stage in stages if run(*stage, *common)]
    out = ("--out", str(options.out))
    long_run = ("longrun", *out, *(("--requests", "100") if options.short else ()))
    failed += [stage for stage in (("replay", *out), long_run, ("page", *out)) if run(*stage)]
    if failed:
        sys.exit(
            f"failed: {', '.join(map(shlex.join, failed))} (see above, and {options.out}/logs)"
        )


def run(stage: str, *flags: str) -> int:
    """Run one stage; return its exit status."""
    print(f"--- {stage} {shlex.join(flags[:2])}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", f"gpu.{stage}", *flags])
    try:
        return process.wait()
    except BaseException:  # a signal: the stage has servers to stop
        process.terminate()
        process.wait()
        raise


if __name__ == "__main__":
    main()
