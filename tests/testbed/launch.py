"""Start a real SGLang server on CPU, wait until it serves, and stop every process of it.

    with SglangServer(env_python("0.5.23"), MODELS / "tiny", log_path=tmp / "sglang.log") as server:
        httpx.get(f"{server.base_url}/health")

Standard library only, so that any interpreter can drive a server of any environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / ".models"
SITE = Path(__file__).resolve().parent / "site"

ENVIRONMENT = {
    "PYTHONPATH": str(SITE),
    "SGLANG_USE_CPU_ENGINE": "1",
    "HF_HUB_OFFLINE": "1",
    "TORCHDYNAMO_DISABLE": "1",  # dynamo trips over the Triton stub
    # A spinning OpenMP team beside any other busy process slows decoding forty times over.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
ARGUMENTS = {
    "--device": "cpu",
    "--dtype": "float32",  # in bfloat16 a batch's shape decides near ties, and outputs differ
    "--max-total-tokens": "8192",  # left to itself, SGLang takes most of the machine's memory
    "--max-running-requests": "32",
}
TAIL_LINES = 60


class ServerFailedError(RuntimeError):
    """The server died or did not become ready; the message ends with the tail of its log."""


def env_python(version: str) -> Path:
    """The interpreter of the environment that install.py made for SGLang `version`."""
    return ROOT / ".envs" / f"sglang-{version}" / "bin" / "python"


class ReservedPort:
    """A TCP port of the loopback interface that nobody is given but who asks for it by number.

    A socket is bound to it and does not listen: connections are refused, and a server, which binds
    with SO_REUSEADDR, finds the port free, however long it takes to start.
    """

    def __init__(self) -> None:
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.number: int = self._holder.getsockname()[1]

    def release(self) -> None:
        """Let anybody have it; may be called twice."""
        self._holder.close()


class SglangServer:
    """One SGLang server; a context manager that owns its whole process group.

    `draft` and `algorithm` are SGLang's --speculative-draft-model-path and
    --speculative-algorithm. `extra_args` come last and `extra_env` wins, so either may override
    what is set here. `cpu=False` runs the SGLang of `python` as it is, on its GPU and without the
    test bed.
    """

    def __init__(
        self,
        python: Path,
        model: Path,
        *,
        draft: Path | None = None,
        algorithm: str | None = None,
        cpu: bool = True,
        extra_args: Sequence[str] = (),
        extra_env: Mapping[str, str] | None = None,
        log_path: Path,
        start_timeout_s: float = 240.0,
    ) -> None:
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log_path = log_path
        self._start_timeout_s = start_timeout_s
        self._environment = {**os.environ, **(ENVIRONMENT if cpu else {}), **(extra_env or {})}
        arguments = {
            "--model-path": str(model),
            "--host": "127.0.0.1",
            "--port": str(self.port),
            **(ARGUMENTS if cpu else {}),
        }
        if algorithm is not None:
            arguments["--speculative-algorithm"] = algorithm
        if draft is not None:
            arguments["--speculative-draft-model-path"] = str(draft)
        flat = [word for pair in arguments.items() for word in pair]
        self.command = [str(python), "-m", "sglang.launch_server", *flat, *extra_args]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the server's main process, which is also its process group."""
        if self._process is None:
            raise ServerFailedError("the server is not started")
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            # Whoever asked it sees a closed connection at most; why is in its log alone.
            error.add_note(self.log_tail())
        self.stop()

    def start(self) -> None:
        """Start the process; `wait_until_ready` is separate so that a caller can show progress."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and a signal reaches all of it
            )

    def is_ready(self) -> bool:
        """Whether the server answers requests now; raises ServerFailedError if it has died."""
        if self._process is None or self._process.poll() is not None:
            code = "not started" if self._process is None else self._process.returncode
            raise ServerFailedError(f"SGLang exited (status {code}).\n{self.log_tail()}")
        try:
            with urllib.request.urlopen(f"{self.base_url}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while not self.is_ready():
            if time.monotonic() > deadline:
                waited = f"{self._start_timeout_s:.0f} s"
                raise ServerFailedError(f"SGLang was not ready within {waited}.\n{self.log_tail()}")
            time.sleep(0.2)

    def log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join([f"The last lines of {self.log_path}:", *lines])

    def stop(self, grace_s: float = 2.0) -> None:
        """End the main process, the schedulers and the detokenizer; may be called twice.

        SIGTERM to the main process, which ends the others; after `grace_s` SIGKILL to all: SGLang
        looks for the signal every 5 s only, and then waits for the requests it has.
        """
        self._reserved.release()
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.terminate()
            _ended(process, grace_s)
        finally:  # a second Ctrl-C cuts the wait short, and nothing else
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            _ended(process, patience_s=10.0)
            process.wait()


def _ended(process: subprocess.Popen[bytes], patience_s: float) -> bool:
    """Wait until nothing of the process's group runs any more; False if that takes too long."""
    deadline = time.monotonic() + patience_s
    while any(living(process.pid)):
        if time.monotonic() > deadline:
            return False
        process.poll()  # collects the main process, once it has ended
        time.sleep(0.05)
    return True


def living(group: int) -> Iterator[int]:
    """Process ids of `group` that still run; a zombie, yet to be collected, does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state parent group ...; the name may hold anything, brackets too
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it ended while we looked
        if int(its_group) == group and state != "Z":
            yield int(stat.parent.name)
