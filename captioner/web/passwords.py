"""Names and passwords (HTTP's basic authentication, RFC 7617), and patience with whoever guesses them.

Promises: without a right name and password nothing is answered but /health and /ready; wrong ones are looked at more
and more slowly of the one who sends them, and at a steady pace of all; whoever was let in before is not kept out by
strangers. It knows headers and a clock, and nothing of what is guarded.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captioner.errors import OptionError
from captioner.web.bodies import visitor_of

VARIABLE = "CAPTIONER_AUTH"
"""The environment variable with names and passwords, as a file has them."""

_FREE = 5
"""Wrong guesses of a visitor before they cost time."""

_LONGEST = 60.0
"""Most seconds between two guesses of a visitor."""

_A_SECOND = 5.0
"""Wrong guesses a second of all strangers together, after `_AT_ONCE` of them."""

_AT_ONCE = 50

_REMEMBERED = 10_000
"""Visitors whose wrong guesses are remembered."""

_COOKIE = "captioner-known"


def read_names(auth: str | None, auth_file: str | None) -> list[bytes]:
    """Every NAME:PASSWORD of the option, the file and the environment; none where nobody is asked.

    Raises OptionError where one is no name and password, or the file cannot be read, or holds none.
    """
    found: list[tuple[str, str]] = [] if auth is None else [("--auth", auth)]
    for source, text in (("--auth-file", _read(auth_file)), (VARIABLE, os.environ.get(VARIABLE))):
        if text is not None:
            lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
            found += [(source, line) for line in lines or [""]]
    for source, pair in found:
        if not all(pair.partition(":")):
            raise OptionError(f"{source} has no NAME:PASSWORD: give both, with a colon between them.")
    return [pair.encode() for _, pair in found]


def _read(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise OptionError(
            f"--auth-file {path} cannot be read ({reason}): name a file of NAME:PASSWORD lines."
        ) from error


class Patience:
    """Who has to wait how long before the next guess; in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Wrong guesses of each visitor, and until when the next has to wait."""
        self.tried: OrderedDict[str, None] = OrderedDict()
        """What visitors tried: a browser that holds an old password sends it with everything, which is one guess."""
        self.good: OrderedDict[str, None] = OrderedDict()
        """Who was let in before: no stranger."""
        self.left, self.since = float(_AT_ONCE), clock()
        """Guesses that strangers have left, and when that was counted."""

    def wait(self, visitor: str) -> float:
        """How long, before a guess of this visitor is looked at; 0: now."""
        now = self.clock()
        self.left, self.since = min(_AT_ONCE, self.left + (now - self.since) * _A_SECOND), now
        _, until = self.wrong.get(visitor, (0, 0.0))
        return max(until - now, 0.0 if visitor in self.good or self.left >= 1 else (1 - self.left) / _A_SECOND)

    def count(self, visitor: str, guess: str) -> None:
        """A guess was wrong; `guess` stands for it."""
        count = self.wrong.pop(visitor, (0, 0.0))[0] + 1
        delay = 0.0 if count < _FREE else min(_LONGEST, 2.0 ** min(count - _FREE, 20))
        self.wrong[visitor] = count, self.clock() + delay
        if len(self.wrong) > _REMEMBERED:
            self.wrong.popitem(last=False)
        if visitor not in self.good:
            self.left -= 1
        self.tried[f"{visitor} {guess}"] = None
        if len(self.tried) > _REMEMBERED:
            self.tried.popitem(last=False)

    def forgive(self, visitor: str) -> None:
        """A guess was right."""
        self.wrong.pop(visitor, None)
        self.good[visitor] = None
        self.good.move_to_end(visitor)
        if len(self.good) > _REMEMBERED:
            self.good.popitem(last=False)


def asks_password(app: ASGIApp, *, names: Iterable[bytes], clock: Callable[[], float] = time.monotonic) -> ASGIApp:
    """Lets in who sends one of the NAME:PASSWORDs.

    Whoever was let in gets a cookie, by which the next request, still with its password, is told from a stranger's at
    the same address: guesses from there slow only strangers down.
    """
    pairs, key, patience = list(names), secrets.token_bytes(32), Patience(clock)

    def mark(pair: bytes) -> str:
        return hmac.new(key, pair, hashlib.sha256).hexdigest()

    marks = {mark(pair) for pair in pairs}

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or path in ("/health", "/ready"):
            await app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = _given(headers)
        cookie = _cookie(headers)
        known = cookie in marks
        visitor = f"cookie {cookie}" if known else visitor_of(scope)
        stale = given is not None and (
            not given or f"{visitor} {mark(given)}" in patience.tried
        )  # it tells nothing new
        if given is not None and not stale and (wait := patience.wait(visitor)) > 0:
            answer = JSONResponse(
                {"error": "Too many wrong passwords came: try again after the seconds that Retry-After says."},
                429,
                {"Retry-After": str(int(wait) + 1)},
            )
            await answer(scope, receive, send)
        elif given is None or not sum([secrets.compare_digest(given, pair) for pair in pairs]):  # all, in equal time
            if given is not None and not stale:
                patience.count(visitor, mark(given))
            answer = JSONResponse(
                {"error": "Name and password are wanted: send them as HTTP's basic authentication."},
                401,
                {"WWW-Authenticate": 'Basic realm="captioner", charset="UTF-8"'},
            )
            await answer(scope, receive, send)
        else:
            for each in (visitor, f"cookie {mark(given)}"):
                patience.forgive(each)
            scope.setdefault("state", {})["name"] = given.partition(b":")[0].decode()  # for the log
            await app(scope, receive, send if known else _with_cookie(send, scope, mark(given)))

    return guard


def _given(headers: Headers) -> bytes | None:
    """What was sent as NAME:PASSWORD; empty where it cannot be read."""
    if "authorization" not in headers:
        return None
    kind, _, sent = headers["authorization"].partition(" ")
    try:
        return base64.b64decode(sent, validate=True) if kind.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        return b""


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _with_cookie(send: Send, scope: Scope, value: str) -> Send:
    async def send_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            path = scope.get("root_path") or "/"
            secure = "; Secure" if scope.get("scheme") == "https" else ""
            cookie = f"{_COOKIE}={value}; Path={path}; Max-Age=31536000; HttpOnly; SameSite=Strict{secure}"
            MutableHeaders(scope=message).append("Set-Cookie", cookie)
        await send(message)

    return send_cookie
