"""The addresses that are open: what the page, /docs and the documented clients ask for, and nothing else.

Promises: a request that is not listed here is answered with 404 before any route sees it, whatever routes a newer
Gradio brings and however an address is spelt. It knows addresses, and nothing of what lies behind them.
"""

import os
import re
from urllib.parse import SplitResult

from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_READ, _STREAM, _SEND = ("GET", "HEAD"), ("GET",), ("POST",)

API: tuple[tuple[tuple[str, ...], str], ...] = (
    (_READ, r"/(health|ready|metrics|docs|openapi\.json|api/models)"),
    (_READ, r"/static-offline-docs/[\w.-]+"),
    (("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"), r"/api/caption"),  # it says itself that it wants POST
)
"""Methods and addresses for programs; the addresses are regular expressions for the whole path, as it is routed."""

PAGE: tuple[tuple[tuple[str, ...], str], ...] = (
    (_READ, r"/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)?"),
    (_READ, r"/(assets|static|svelte)/(?!.*\.\.)[\w./@-]+"),
    (_READ, r"/gradio_api/(info|startup-events)"),
    (_READ, r"/gradio_api/file=(?P<file>.+)"),
    (_STREAM, r"/gradio_api/(heartbeat/\w+|queue/data|upload_progress)"),
    (_SEND, r"/gradio_api/(upload|queue/join|run/predict|cancel|reset)"),
    (_SEND, r"/(download|inside)"),
)
"""The same for the page in a browser, and for Gradio's own client."""


def open_routes(app: ASGIApp, *, page: bool, folder: str) -> ASGIApp:
    """Lets through what is listed above, without PAGE where there is no `page`; `folder` holds the visitors' files.

    A HEAD is answered as its GET is, without the body, though not every route behind this knows the method.
    """
    table = [(methods, re.compile(path)) for methods, path in (API + PAGE if page else API)]

    folders = {os.path.abspath(folder), os.path.realpath(folder)}  # noqa: PTH100 - pathlib takes no .. away

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        root = scope.get("root_path", "")
        path = _without_slash(scope["path"].removeprefix(root))
        for methods, address in table:
            if scope["method"] in methods and (found := address.fullmatch(path)):
                if (file := found.groupdict().get("file")) and not any(_lies_in(file, each) for each in folders):
                    await _refuse(403, "No such file can be seen from here.", scope, receive, send)
                elif scope["method"] == "HEAD" and path != "/api/caption":
                    await app({**scope, "path": root + path, "method": "GET"}, receive, _bodiless(send))
                else:
                    await app({**scope, "path": root + path}, receive, send)
                return
        await _refuse(404, "There is nothing at this address: /docs describes what there is.", scope, receive, send)

    return guard


def below(app: ASGIApp, *, address: SplitResult) -> ASGIApp:
    """Serves the application where a proxy shows it: below the path of an address, whether the proxy takes it off the
    paths or leaves it on; under the name and scheme of the address, where it has them.
    """
    prefix = address.path
    told = {b"host", b"x-forwarded-host", b"x-forwarded-proto"}

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
        elif prefix and scope["path"] == prefix:  # the page's addresses are relative to the folder that it is in
            await RedirectResponse(prefix + "/")(scope, receive, send)
        else:
            path = scope["path"]
            path = path if path.startswith(prefix + "/") else prefix + path
            scope.setdefault("state", {})["root_path"] = prefix  # for the log
            scope = {**scope, "path": path, "root_path": prefix}
            if address.netloc:
                others = [pair for pair in scope["headers"] if pair[0] not in told]
                scope |= {"scheme": address.scheme, "headers": [(b"host", address.netloc.encode()), *others]}
            await app(scope, receive, send)

    return guard


def _without_slash(path: str) -> str:
    """/api/caption/ is /api/caption."""
    return path[:-1] if len(path) > 1 and path.endswith("/") and not path.endswith("//") else path


def _lies_in(file: str, folder: str) -> bool:
    """An absolute path that leads into the folder without a detour. An address (http://...) never does."""
    return os.path.normpath(file) == file and file.startswith(os.path.join(folder, ""))  # noqa: PTH118


def _bodiless(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head


async def _refuse(status: int, error: str, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"error": error}, status)(scope, receive, send)
