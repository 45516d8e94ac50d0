"""Make `.envs/sglang-VERSION`: a virtual environment in which real SGLang runs without a GPU.

    python3 tests/testbed/install.py 0.5.23

Standard library only; takes about a minute and 1.6 GB the first time, and returns at once when the
environment already matches its lock (`requirements/sglang-VERSION-cpu.txt`) and `pyproject.toml`.
The test bed itself is never installed: it is put on PYTHONPATH by `launch.py`.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVS = ROOT / ".envs"
PYTHONS = ((3, 11), (3, 13))  # oldest and newest that every pinned wheel exists for
# PyPI's Linux build of torch is the CUDA one; this index has the CPU one.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
DISK_BYTES = 3 * 2**30  # 1.6 GB installed, and what pip unpacks on the way

# Importing what a server imports also leaves exactly its bytecode behind; pip would compile all of
# torch and transformers, which takes longer than installing them.
CHECK = """
import torch
if torch.version.cuda is not None:
    raise SystemExit(f"torch {torch.__version__} is a CUDA build")
import sglang
import sglang.srt.entrypoints.http_server
import sglang.srt.managers.scheduler
print(f"SGLang {sglang.__version__} and torch {torch.__version__} import")
"""
CHECK_ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).resolve().parent / "site"),
    "SGLANG_USE_CPU_ENGINE": "1",
}


class InstallError(Exception):
    """The environment cannot be made; the message says what to do about it."""


def main() -> None:
    versions = sorted(p.name.split("-")[1] for p in lock_path("*").parent.glob(lock_path("*").name))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", choices=versions, help="SGLang version")
    version: str = parser.parse_args().version
    try:
        install(version)
    except InstallError as error:
        sys.exit(f"install.py: {error}")
    except KeyboardInterrupt:
        sys.exit("install.py: interrupted; run it again to finish")


def lock_path(version: str) -> Path:
    return ROOT / "requirements" / f"sglang-{version}-cpu.txt"


def env_path(version: str) -> Path:
    return ENVS / f"sglang-{version}"


def install(version: str) -> None:
    """Bring the environment of `version` up to date, rebuilding it only if its lock changed."""
    env, lock = env_path(version), lock_path(version)
    ENVS.mkdir(exist_ok=True)
    with only_one_installer(version):
        packages = {"env": str(env), "lock": digest(lock)}
        wanted = {**packages, "project": digest(ROOT / "pyproject.toml")}
        have = read_stamp(env)
        if have == wanted:
            print(f"{env.relative_to(ROOT)} is up to date")
            return
        started = time.monotonic()
        if not packages.items() <= have.items():
            build(env, lock)
            stamp_path(env).write_text(json.dumps(packages))
        step(f"installing this project into {env.relative_to(ROOT)} (editable)")
        pip(env, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
        stamp_path(env).write_text(json.dumps(wanted))
        print(f"{env.relative_to(ROOT)} is ready ({time.monotonic() - started:.0f} s)")


def build(env: Path, lock: Path) -> None:
    """Make `env` from nothing with exactly what `lock` names."""
    check_machine()
    shutil.rmtree(env, ignore_errors=True)
    step(f"creating {env.relative_to(ROOT)}")
    run([sys.executable, "-m", "venv", str(env)], hint="is the venv module (python3-venv) there?")
    pins = [line for line in lock.read_text().splitlines() if line and not line.startswith("#")]
    torch = next(line for line in pins if line.startswith("torch=="))
    step(f"installing {torch} (CPU build, about 200 MB)")
    # Few retries and a short time-out: where the index cannot be reached, pip goes on with the
    # wheels of PIP_FIND_LINKS.
    source = ["--index-url", TORCH_INDEX, "--retries", "2", "--timeout", "15"]
    hint = f"is {TORCH_INDEX} reachable? Or set PIP_FIND_LINKS to a folder with the CPU wheel"
    pip(env, "--no-deps", *source, torch, hint=hint)
    step(f"installing the other {len(pins) - 1} packages of {lock.relative_to(ROOT)}")
    pip(env, "--no-deps", "--requirement", str(lock), hint="is the package index reachable?")
    step("importing SGLang once")
    python, hint = str(env / "bin" / "python"), f"remove {env} and try again"
    found = run([python, "-c", CHECK], hint=hint, environment=CHECK_ENVIRONMENT)
    step(found.strip().splitlines()[-1])


def check_machine() -> None:
    """Refuse early, with a reason, what would fail late without one."""
    oldest, newest = PYTHONS
    if not oldest <= sys.version_info[:2] <= newest:
        raise InstallError(
            f"needs Python {'.'.join(map(str, oldest))} to {'.'.join(map(str, newest))}, "
            f"this is {sys.version.split()[0]} ({sys.executable}); "
            "run it with another one, for example: python3.11 tests/testbed/install.py"
        )
    if sys.platform != "linux":
        raise InstallError(
            f"SGLang's wheels are for Linux, this is {sys.platform}; use a container"
        )
    if shutil.which("g++") is None and shutil.which("c++") is None:
        raise InstallError(
            "no C++ compiler (SGLang compiles small pieces at run time); "
            "install g++, for example: apt install g++"
        )
    free = shutil.disk_usage(ENVS).free
    if free < DISK_BYTES:
        raise InstallError(
            f"{free / 2**30:.1f} GiB free under {ENVS}, {DISK_BYTES / 2**30:.0f} GiB are needed"
        )


@contextmanager
def only_one_installer(version: str) -> Iterator[None]:
    """Hold a lock file, so that two `make` runs do not write one environment together."""
    with (ENVS / f".sglang-{version}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            step("another install is running; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def stamp_path(env: Path) -> Path:
    return env / "laps-stamp.json"


def read_stamp(env: Path) -> dict[str, str]:
    """What `env` was made from; empty if it is unfinished or its interpreter has gone."""
    try:
        stamp: dict[str, str] = json.loads(stamp_path(env).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if (env / "bin" / "python").exists() else {}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pip(env: Path, *arguments: str, hint: str = "see pip's message above") -> None:
    command = [str(env / "bin" / "python"), "-m", "pip", "install", "-qq", "--no-compile"]
    run([*command, *arguments], hint=hint)


def run(command: list[str], hint: str, environment: Mapping[str, str] | None = None) -> str:
    """Run `command` and return its output; on failure show the output's tail and `hint`."""
    # A PYTHONPATH that names other packages would leak into the environment being made.
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        command,
        env={**own, **(environment or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        print(f"$ {' '.join(command)}\n{tail}", file=sys.stderr)
        raise InstallError(f"the command above failed; {hint}")
    return done.stdout


def step(message: str) -> None:
    print(f"- {message}", flush=True)


if __name__ == "__main__":
    main()
