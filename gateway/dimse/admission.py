# SPDX-License-Identifier: Apache-2.0
"""Who gets a thread: connections counted before any is started for them.

A connection is *half-open* until its association is accepted. Half-open ones never keep
an honest peer out: where they fill their allowance the oldest is closed for the new one.
Established associations are limited per address and in all; who comes too late is told
so by an A-ASSOCIATE-RJ (local limit exceeded), which needs its connection. A closed
connection counts until its threads have ended: in a flood that outruns them newcomers
wait in the listener's queue.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

_MIN_HALF_OPEN = 4
_WAIT_S = 5.0  # for the threads of closed connections to end


@dataclass(eq=False, slots=True)
class Connection:
    """One TCP connection; ``close`` ends it from any thread."""

    address: str
    close: Callable[[], None]
    established: bool = field(default=False)


class Admission:
    """Counts connections per address and in all. Safe to call from any thread."""

    def __init__(self, limit: int, limit_per_address: int) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._half_open_limit = max(_MIN_HALF_OPEN, limit)
        self._half_open_per_address = max(_MIN_HALF_OPEN, limit_per_address)
        self._connections: list[Connection] = []  # oldest first
        self._closing: set[Connection] = set()
        self._changed = threading.Condition()

    @property
    def most(self) -> int:
        """The most connections that may have threads at one time."""
        return self._limit + 2 * self._half_open_limit

    def admit(self, address: str, close: Callable[[], None], *, wait_s: float = _WAIT_S) -> Connection | None:
        """Count a new connection; closes the oldest half-open one where too many are.

        Waits for room up to ``wait_s``; None where there is none even then.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.count < self.most, wait_s):
                return None
            waiting = [known for known in self._connections if not known.established]
            same = [known for known in waiting if known.address == address]
            victim: Connection | None = None
            if len(same) >= self._half_open_per_address:
                victim = same[0]
            elif len(waiting) >= self._half_open_limit:
                victim = waiting[0]
            if victim is not None:
                self._connections.remove(victim)
                self._closing.add(victim)
            connection = Connection(address, close)
            self._connections.append(connection)
        if victim is not None:
            victim.close()
        return connection

    def establish(self, connection: Connection) -> bool:
        """Whether the association may be accepted; from then on it counts as one."""
        with self._changed:
            if connection not in self._connections:
                return False  # it was closed for a newer one meanwhile
            established = [known for known in self._connections if known.established]
            same = sum(1 for known in established if known.address == connection.address)
            if len(established) >= self._limit or same >= self._limit_per_address:
                return False
            connection.established = True
            return True

    def leave(self, connection: Connection) -> None:
        """The connection and its threads have ended; harmless when called twice."""
        with self._changed:
            if connection in self._connections:
                self._connections.remove(connection)
            self._closing.discard(connection)
            self._changed.notify_all()

    @property
    def count(self) -> int:
        """Connections that have threads, of all kinds."""
        return len(self._connections) + len(self._closing)
