"""One FastAPI application: the Gradio page at /, the API at /api/caption with its description at /docs.

Promises: the browser is told to ask nobody but this server for anything, and this server never fetches an address
that a visitor gives. Uploads are deleted after an hour at the latest, and all of them when the server stops. With a
password, everything wants it but /health.
"""

import base64
import binascii
import logging
import os
import re
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import jinja2
import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from gradio.routes import App as GradioApp
from gradio.routes import templates
from gradio.utils import get_upload_folder
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

import captioner
from captioner.captioner import Captioner
from captioner.options import WebOptions, wrong
from captioner.pictures import MAX_BYTES
from captioner.web.api import add_api
from captioner.web.bodies import limited_bodies
from captioner.web.connections import limits_here, protocol
from captioner.web.downloads import add_downloads
from captioner.web.origins import known_hosts, own_names, own_origin
from captioner.web.page import CSS, HEAD, build_page, model_line, theme
from captioner.web.problems import add_problems
from captioner.web.queue import ModelQueue
from captioner.web.routes import open_routes
from captioner.web.status import add_status

_EVENTS = 256
"""Most calls of the page that wait in Gradio's own queue."""


def create_app(captioners: Mapping[str, Captioner], options: WebOptions, queue: ModelQueue | None = None) -> FastAPI:
    """The application: the page of these models at /, their API at /api/caption, both through one queue.

    `captioners` are named as visitors choose them, and the page begins with the first. Whoever made the queue closes
    it. Raises ImageError where `options.examples` is no folder, OptionError where `options.auth` is no name and
    password.
    """
    queue = queue or ModelQueue(most_work=options.most_work)
    # FastAPI's own page of the API loads its scripts from a public server.
    app = FastAPIOffline(title="captioner", version=captioner.__version__, docs_url="/docs", redoc_url=None)
    add_api(app, captioners, queue)
    add_status(app, queue)
    add_downloads(app)
    _strip_template()
    page = build_page(captioners, options, queue)
    page.queue(api_open=False, max_size=_EVENTS)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        max_file_size=MAX_BYTES,
        theme=theme(),
        css=CSS,
        head=HEAD,
    )
    for one in (app, _mounted(app)):
        add_problems(one)
    folder = get_upload_folder()
    app.add_middleware(
        limited_bodies,
        request=options.most_request,
        upload=options.most_upload,
        uploads=options.most_uploads,
        folder=folder,
    )
    app.add_middleware(open_routes, page=True, folder=folder)
    app.add_middleware(_Guard, password=_password(options.auth), uploads=page.upload_file_set)
    app.add_middleware(own_origin, allowed=_parts(options.allow_origin), embedded=_parts(options.embed))
    app.add_middleware(known_hosts, names=own_names(options.host) | set(_parts(options.allow_host)))
    app.state.queue = queue
    app.state.model_line = model_line(next(iter(captioners.values())))
    return app


def _parts(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def serve(app: FastAPI, host: str, port: int) -> None:
    """Serves until it is stopped, and prints one line with the address once it listens.

    Raises OptionError where the address is unknown or the port is taken, and KeyboardInterrupt on Ctrl-C.
    """
    with _bind(host, port) as listener:
        # Gradio's open event streams end only when they are told to, so a stop would wait for every open page.
        limits = limits_here()
        config = uvicorn.Config(
            app,
            http=protocol(limits),
            log_level="error",  # what is refused is no news: a line for each would fill a disk
            timeout_graceful_shutdown=2,
            timeout_keep_alive=3600,  # the protocol has its own
            backlog=min(128, limits.most // 4),  # so many are accepted at a time
            server_header=False,
        )
        _Server(config, _address(host, listener)).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says when it is ready, and ends Gradio's event streams when it stops."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self.address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"captioner is at {self.address} ({self.config.app.state.model_line})", flush=True)  # type: ignore[union-attr]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # whom it cuts off in the middle is no error
        _mounted(self.config.app).stop_event.set()  # type: ignore[arg-type]
        await super().shutdown(sockets)


def _mounted(app: FastAPI) -> GradioApp:
    """Gradio's own application, behind the page."""
    return next(route.app for route in app.routes if isinstance(getattr(route, "app", None), GradioApp))  # type: ignore[attr-defined]


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise wrong(WebOptions, "host", f"is {host!r}, an address that is not known here", "try 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it lets two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # now: two that are only bound would not notice each other
    except OSError as error:
        listener.close()
        reason = f"is {port}, which cannot be served on {host} ({error.strerror})"
        raise wrong(WebOptions, "port", reason, "stop what uses it, or choose another") from error
    return listener


def _address(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def _password(auth: str | None) -> bytes | None:
    """What a browser has to send: name and password as one."""
    if auth is not None and not all(auth.partition(":")):
        raise wrong(WebOptions, "auth", "is no NAME:PASSWORD", "give both, with a colon between them")
    return None if auth is None else auth.encode()


class _Guard:
    """Asks for the password."""

    def __init__(self, app: ASGIApp, password: bytes | None, uploads: set[str]) -> None:
        """`uploads`: the files that Gradio deletes in time."""
        self.app = app
        self.password = password
        self.uploads = uploads

    def _admits(self, scope: Scope) -> bool:
        """HTTP's basic authentication (RFC 7617), which browsers, curl and every client library know."""
        if self.password is None or scope["path"] == "/health":
            return True
        kind, _, sent = Headers(scope=scope).get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(sent, validate=True)
        except (binascii.Error, ValueError):
            return False
        return kind.lower() == "basic" and secrets.compare_digest(given, self.password)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":  # Gradio's page uses no web sockets
            await send({"type": "websocket.close", "code": 1008})
        elif not self._admits(scope):
            refusal = JSONResponse(
                {"error": "Name and password are wanted: send them as HTTP's basic authentication."},
                401,
                {"WWW-Authenticate": 'Basic realm="captioner", charset="UTF-8"'},
            )
            await refusal(scope, receive, send)
        else:
            try:
                await self.app(scope, receive, send)
            except ClientDisconnect:  # in the middle of an upload; Gradio would keep for good what came of it
                self.uploads.update(map(str, Path(get_upload_folder()).glob("tmp*")))


def _strip_template() -> None:
    """Takes Gradio's own preview cards out of its page template.

    They name gradio.app, twitter and a picture on GitHub, describe Gradio instead of this page, and no option of
    mount_gradio_app removes them.
    """
    environment: Any = templates.env
    if isinstance(environment.loader, jinja2.ChoiceLoader):
        return  # done for an earlier application of this process
    name = "frontend/index.html"
    source, _, _ = environment.loader.get_source(environment, name)
    stripped = re.sub(r"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>\s*", "", source)
    environment.loader = jinja2.ChoiceLoader([jinja2.DictLoader({name: stripped}), environment.loader])
