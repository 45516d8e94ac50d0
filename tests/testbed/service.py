"""Start, kill and restart the scheduling service as a process of its own.

with LapsService(log_path=tmp / "laps.log") as service:
    ...
    service.kill()
    service.start()
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.launch import ReservedPort

START_TIMEOUT_S = 60.0
LAPS = (sys.executable, "-m", "laps.cli")


class LapsService:
    """`laps serve` of this environment, always at the same address.

    `command` starts the `laps` that serves.
    """

    def __init__(self, *arguments: str, log_path: Path, command: Sequence[str] = LAPS) -> None:
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self.address = f"127.0.0.1:{self.port}"
        self.log_path = log_path
        self._serve = (*command, "serve", "--listen", self.address, *arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The service's process id."""
        assert self._process is not None, "the service is not started"
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it accepts connections."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._serve,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches whoever started it, who then stops it
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the service did not start:\n{self.log_path.read_text()}")
            time.sleep(0.05)

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """End the service for good: gracefully, or at once if it takes too long."""
        self._reserved.release()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """SIGKILL: no goodbye to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
