"""How long a connection may take, and how many there are: uvicorn's protocol with limits that it does not have.

Promises: a connection that sends no whole request, or drips a body, or does not read its answer, ends in time; where
there are as many as may be, the one that has been idle longest makes room, so that idle ones keep nobody out; none of
it writes a line into the log. It knows bytes on a wire, and nothing of what is asked.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_ERROR = b'{"error": "Too many are connected: try again in a moment."}'
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_ERROR), _ERROR)
)


@dataclass(frozen=True)
class Limits:
    """Of connections. Times in seconds."""

    most: int = 1000
    """Connections at a time."""
    head: float = 20.0
    """Until a request's head is there, from the connection's start or the head's first byte."""
    idle: float = 15.0
    """Between an answer and the next request."""
    body: float = 20.0
    """In which `least` bytes of a body have to come; and in which an answer that is not read stands still."""
    least: int = 20_000


def limits_here(most: int = 1000) -> Limits:
    """As many connections as there are file descriptors for, and no more: a server without any answers nobody.

    The soft limit is raised to the hard one. A half stays for uploads, models and what is accepted at a time.
    """
    try:
        import resource
    except ImportError:  # not a Unix: no such limit
        return Limits(most)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * most if hard == resource.RLIM_INFINITY else min(4 * most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return Limits(most if soft == resource.RLIM_INFINITY else max(8, min(most, soft // 2)))


def protocol(limits: Limits) -> type[H11Protocol]:
    """uvicorn's protocol class with these limits."""
    return type("LimitedProtocol", (_Limited,), {"limits": limits})


class _Limited(H11Protocol):
    """One connection. Its clock runs while the client owes a head, a body's bytes, or the reading of an answer."""

    limits: Limits
    since = 0.0
    """When the client began to owe what it owes now."""
    received = 0
    """Bytes since then."""
    begun = False
    """The first byte of a head is there."""
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.limits.most and not self._make_room():
            transport.write(_BUSY)
            transport.close()
            return
        self._owe(self.limits.head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        awaited = self.awaits_head
        self.received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            self._rest()
        elif not self.awaits_head:
            if not self.cycle.more_body:
                self._rest()
            elif awaited or self._clock is None:
                self._owe(self.limits.body)
        elif not self.begun:
            self.begun = True
            self._owe(self.limits.head)

    def on_response_complete(self) -> None:
        self.begun = False
        super().on_response_complete()
        if not self.transport.is_closing():
            self._owe(self.limits.idle if self.awaits_head else self.limits.body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._owe(self.limits.body)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._rest()

    @property
    def awaits_head(self) -> bool:
        """No request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> bool:
        """Ends the connection that has owed a head for longest, else the one that has owed a body."""
        others: list[_Limited] = [one for one in self.connections if one is not self and isinstance(one, _Limited)]
        owing = [one for one in others if one._clock is not None and not one.transport.is_closing()]
        if not owing:
            return False
        min(owing, key=lambda one: (not one.awaits_head, one.since)).transport.abort()
        return True

    def _owe(self, seconds: float) -> None:
        self._rest()
        self.since, self.received = self.loop.time(), 0
        self._clock = self.loop.call_later(seconds, self._late)

    def _rest(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _late(self) -> None:
        """The time is up: the end, unless a body comes at a fair pace, or it is we who do not take it."""
        self._clock = None
        reading = self.awaits_head or not self.cycle.more_body or not self.flow.read_paused
        if not reading or (not self.awaits_head and self.received >= self.limits.least):
            self._owe(self.limits.body)
        else:
            self.transport.abort()
