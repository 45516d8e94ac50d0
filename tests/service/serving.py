"""`laps serve` as a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

LAPS = Path(sys.executable).with_name("laps")


class ServingProcess:
    """Runs `laps serve` with JSON logs. `async with` starts it, and kills it if it still runs."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.address = ""
        self.logs: list[dict[str, Any]] = []
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> ServingProcess:
        self.process = await asyncio.create_subprocess_exec(
            LAPS,
            *("serve", "--listen", "127.0.0.1:0", "--log-format", "json", *self._arguments),
            stderr=asyncio.subprocess.PIPE,
        )
        self.address = (await self.logged("serving"))["address"]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def logged(self, event: str) -> dict[str, Any]:
        """Read the log up to `event`."""
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            # gRPC's own library writes lines that are no JSON.
            if line.startswith(b"{"):
                self.logs.append(json.loads(line))
                if self.logs[-1]["event"] == event:
                    return self.logs[-1]
        raise AssertionError(f"the service ended before {event!r}; it logged {self.logs}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)
