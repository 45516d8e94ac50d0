"""Values between a scheduler and its planner process: pickled, over a pair of sockets.

Both ends run this very code, and nobody else can reach the sockets; so pickle is safe here, and
the fastest way for a scheduler to hand over a report. To look whether something came would cost a
system call in every step: a counter in shared memory, the bell, tells it for the price of a read.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")
_CHUNK = 1 << 16


class Bell:
    """Three numbers that the planner process writes and the scheduler reads, without a system call.

    Each is 8 bytes, aligned, and has one writer: it is read either before or after a change.
    """

    def __init__(self, fd: int) -> None:
        """Map the memory file `fd`; the descriptor is not needed afterwards."""
        os.truncate(fd, mmap.PAGESIZE)
        self._words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")

    @property
    def sent(self) -> int:
        """Values that the planner process has sent."""
        return self._words[0]

    @sent.setter
    def sent(self, count: int) -> None:
        self._words[0] = count

    @property
    def step(self) -> int:
        """The newest report that the plan has seen."""
        return self._words[1]

    @step.setter
    def step(self, step: int) -> None:
        self._words[1] = step

    @property
    def seq(self) -> int:
        """Number of the plan that counts: the last one sent, or one that is as good."""
        return self._words[2]

    @seq.setter
    def seq(self, seq: int) -> None:
        self._words[2] = seq


class Pipe:
    """One end. Sending and receiving raise EOFError when the other end is gone."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._unsent = bytearray()
        self._received = bytearray()

    @property
    def unsent(self) -> int:
        """Bytes that the other end has not had room for."""
        return len(self._unsent)

    def send(self, value: Any) -> None:
        """Hand `value` over. What finds no room waits for `flush`."""
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._unsent += _LENGTH.pack(len(data)) + data
        self.flush()

    def flush(self) -> None:
        """Send on what waits."""
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                return
            except OSError as error:
                raise EOFError from error
            del self._unsent[:sent]

    def receive(self) -> list[Any]:
        """Return the values that have come whole, in order; perhaps none."""
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return []
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        self._received += data
        values = []
        begin = 0
        while len(self._received) - begin >= _LENGTH.size:
            body = begin + _LENGTH.size
            end = body + _LENGTH.unpack_from(self._received, begin)[0]
            if end > len(self._received):
                break
            with memoryview(self._received) as view:
                values.append(pickle.loads(view[body:end]))
            begin = end
        del self._received[:begin]
        return values

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
