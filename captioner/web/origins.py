"""Who may ask, seen from the page that makes a browser ask: the Host header, foreign origins, frames.

Promises: a request under a name that is not this server's is refused (DNS rebinding); a foreign page can neither read
an answer nor send a form, unless its origin was allowed; and whatever is answered, the browser is told to trust only
this server. It knows headers, and nothing of what lies behind them.
"""

import fnmatch
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Content-Security-Policy: everything from this server, and what Gradio's frontend needs to run at all."""

_HARMLESS = ("GET", "HEAD", "OPTIONS")

_WILDCARDS = ("0.0.0.0", "::", "")


def own_names(host: str) -> set[str]:
    """The names by which a server that is bound to `host` is known without anybody's naming them.

    An address in numbers is in no name server, so that nobody can lead a browser astray by one; where every address is
    served, "#" stands for all of them.
    """
    names = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host.lower()}
    if host in _WILDCARDS:
        machine = socket.gethostname().lower()
        names |= {"#", machine, f"{machine}.local", socket.getfqdn().lower()}
    return names


def known_hosts(app: ASGIApp, *, names: Iterable[str]) -> ASGIApp:
    """Refuses a request whose Host, or X-Forwarded-Host, is none of the names; * stands for any letters of a name.

    What Gradio would believe of itself from other headers of the visitor is taken away.
    """
    patterns = [name.lower() for name in names]

    def known(host: str) -> bool:
        name = urlsplit("//" + host).hostname or "" if host.isprintable() and " " not in host else ""
        name = f"[{name}]" if ":" in name else name
        if name in patterns or ("#" in patterns and _in_numbers(name)):
            return True
        return any("*" in pattern and fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            hosts = headers.getlist("host") + headers.getlist("x-forwarded-host")
            try:
                wrong = [host for host in hosts if not all(known(one.strip()) for one in host.split(","))]
            except ValueError:  # no port, no address
                wrong = hosts
            if wrong or not headers.get("host"):
                error = f"{wrong[0][:100]!r} is no name of this server: " if wrong else "The Host header is missing: "
                answer = JSONResponse({"error": error + "its owner adds one with --allow-host NAME."}, 421)
                await answer(scope, receive, send)
                return
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"x-gradio-server"]}
        await app(scope, receive, send)

    return guard


def _in_numbers(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def own_origin(app: ASGIApp, *, allowed: Iterable[str], embedded: Iterable[str] = ()) -> ASGIApp:
    """Keeps foreign pages out, but for those of the `allowed` origins, which may call what is open here and read it.

    `embedded`: origins whose pages may show this one in a frame.
    """
    origins = {origin.lower().rstrip("/") for origin in allowed}
    policy = " ".join([_POLICY, *embedded])

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "").lower()
        welcome = origin in origins or "*" in origins

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name in [name for name in sent if name.lower().startswith("access-control-")]:
                    del sent[name]  # Gradio's, which let any origin in
                if origin and welcome:
                    sent["Access-Control-Allow-Origin"] = headers["origin"]
                    sent["Access-Control-Expose-Headers"] = "Retry-After, Content-Disposition"
                if origins:
                    sent.add_vary_header("Origin")
                sent["Content-Security-Policy"] = policy
                sent["Referrer-Policy"] = "same-origin"
                sent["X-Content-Type-Options"] = "nosniff"
            await send(message)

        if scope["method"] == "OPTIONS" and origin and welcome:
            asked = headers.get("access-control-request-headers", "")
            answer: Response = Response(
                status_code=204,
                headers={
                    "Access-Control-Allow-Methods": "GET, HEAD, POST",
                    "Access-Control-Allow-Headers": asked,
                    "Access-Control-Max-Age": "600",
                },
            )
            await answer(scope, receive, _with_preflight(send, headers["origin"]))
        elif scope["method"] not in _HARMLESS and not welcome and _is_foreign(headers, origin):
            error = "Another site's page sent this: its owner's origin has to be allowed with --allow-origin."
            await JSONResponse({"error": error}, 403)(scope, receive, send_marked)
        else:
            await app(scope, receive, send_marked)

    return guard


def _is_foreign(headers: Headers, origin: str) -> bool:
    """A browser says where a request comes from; a program says nothing, and may."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    if not origin:
        return False
    host = urlsplit(origin).netloc
    return not host or host not in (headers["host"].lower(), headers.get("x-forwarded-host", "").lower())


def _with_preflight(send: Send, origin: str) -> Send:
    async def send_marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            sent = MutableHeaders(scope=message)
            sent["Access-Control-Allow-Origin"] = origin
            sent.add_vary_header("Origin")
        await send(message)

    return send_marked
