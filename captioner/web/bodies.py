"""How much a visitor may send: every body is counted as it comes, on every route.

Promises: a body is refused once it is longer than its route takes, whatever its length was said to be, and no more of
it is kept; what is in memory, and what lies on the disk, is limited for each visitor and in all; a body that is packed
(Content-Encoding) is refused by name. It knows bytes, and nothing of what they mean.
"""

import ipaddress
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captioner.web.problems import FULL, Refused

_MB = 1_000_000

SMALL = 8 * _MB
"""Most bytes of a request that brings no pictures: a gallery of the most captions, with its alternatives."""

JSON = 64 * _MB
"""Most bytes of a JSON request with pictures, which is held in memory as a whole; files go to disk as they come."""

MEMORY = 1000 * _MB
"""Most bytes of bodies that are worked on at a time, of all visitors; half of it of one."""

_KEPT = 3600.0
"""Seconds after which an upload is surely deleted (page.py)."""

_FREE = 500 * _MB
"""What stays free on the disk."""


@dataclass
class Ledger:
    """Bytes that lie somewhere, by whose they are; `seconds` after they came they are gone, if that is given."""

    most: int
    most_of_one: int
    seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    held: Counter[str] = field(default_factory=Counter)
    _leaving: deque[tuple[float, str, int]] = field(default_factory=deque)

    def take(self, visitor: str, count: int) -> str | None:
        """Enters so many bytes more, or says whose limit they would be beyond: "you" or "all"."""
        while self._leaving and self._leaving[0][0] <= self.clock():
            _, whose, gone = self._leaving.popleft()
            self.give_back(whose, gone)
        if self.held[visitor] + count > self.most_of_one:
            return "you"
        if self.held.total() + count > self.most:
            return "all"
        self.held[visitor] += count
        if self.seconds is not None:
            self._leaving.append((self.clock() + self.seconds, visitor, count))
        return None

    def give_back(self, visitor: str, count: int) -> None:
        """The bytes are gone."""
        self.held[visitor] -= count
        if self.held[visitor] <= 0:
            del self.held[visitor]


def limited_bodies(app: ASGIApp, *, request: int, upload: int, uploads: int, folder: str) -> ASGIApp:
    """Counts bodies. In megabytes: `request` for one of the API, `upload` of a visitor in an hour, `uploads` in all.

    `folder` is where uploads lie, on a disk that is not to be filled.
    """
    memory = Ledger(MEMORY, MEMORY // 2)
    disk = Ledger(uploads * _MB, upload * _MB, _KEPT)

    def limit(scope: Scope, headers: Headers) -> int:
        if scope["path"].endswith("/gradio_api/upload"):
            return upload * _MB
        if scope["path"].rstrip("/").endswith("/api/caption"):
            return min(request * _MB, JSON) if "json" in headers.get("content-type", "") else request * _MB
        return SMALL

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers, visitor = Headers(scope=scope), visitor_of(scope)
        most, ledger = limit(scope, headers), disk if scope["path"].endswith("/gradio_api/upload") else memory
        received = 0
        refused: Refused | None = None
        started = False

        def check(count: int) -> None:
            nonlocal refused, received
            if received + count > most:
                said = f"The body is bigger than {most // _MB:,} MB, the most that is taken here: send less at a time."
                refused = Refused(413, said)
            elif ledger is disk and shutil.disk_usage(folder).free - count < _FREE:
                refused = Refused(507, FULL, {"Retry-After": "600"})
            elif beyond := ledger.take(visitor, count):
                refused = _beyond(beyond, ledger is disk, upload)
            if refused:
                raise refused
            received += count

        async def receive_counted() -> Message:
            message = await receive()
            if count := len(message.get("body", b"")):
                check(count)
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal started
            if refused is None:  # else what the application makes of a broken body is not what there is to say
                started = started or message["type"] == "http.response.start"
                await send(message)

        try:
            _check_head(headers, most)
            await app(scope, receive_counted, send_unless_refused)
        except Refused as refusal:
            refused = refusal
        finally:
            if ledger is memory:
                memory.give_back(visitor, received)
        if refused is not None and not started:
            await refused.response(scope, receive, send)

    return guard


def _check_head(headers: Headers, most: int) -> None:
    """Raises Refused for what is known before the body comes."""
    packed = headers.get("content-encoding", "identity").strip().lower()
    if packed not in ("identity", ""):
        raise Refused(415, f"The body is packed ({packed[:40]}): send it as it is, without Content-Encoding.")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or int(length) > most:
        said = f"The body is bigger than {most // _MB:,} MB, the most that is taken here: send less at a time."
        raise Refused(413, said)


def _beyond(whose: str, on_disk: bool, upload: int) -> Refused:
    if whose == "you" and on_disk:
        return Refused(429, f"You uploaded {upload:,} MB within the hour: try again later.", {"Retry-After": "600"})
    if on_disk:
        return Refused(507, "There is no room for more uploads: try again later.", {"Retry-After": "600"})
    return Refused(503, "Too much is being sent at the same time: try again in a moment.", {"Retry-After": "1"})


def visitor_of(scope: Scope) -> str:
    """Whose request it is: an address, or the network that one household has of the longer ones."""
    host = (scope.get("client") or ("nobody", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
