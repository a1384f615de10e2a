"""One FastAPI application: the Gradio page at /, the API at /api/caption with its description at /docs.

Promises: the browser is told to ask nobody but this server for anything, and this server never fetches an address
that a visitor gives. Uploads are deleted after an hour at the latest, and all of them when the server stops. With a
password, everything wants it but /health and /ready.
"""

import contextlib
import logging
import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import gradio as gr
import jinja2
import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from gradio.routes import App as GradioApp
from gradio.routes import templates
from gradio.utils import get_upload_folder
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

import captioner
from captioner.captioner import Captioner
from captioner.options import WebOptions, wrong
from captioner.pictures import MAX_BYTES
from captioner.web.api import add_api
from captioner.web.bodies import limited_bodies
from captioner.web.connections import limits_here, protocol
from captioner.web.downloads import add_downloads
from captioner.web.inside import add_inside
from captioner.web.origins import known_hosts, own_names, own_origin
from captioner.web.page import CSS, HEAD, build_page, model_line, theme
from captioner.web.passwords import asks_password, read_names
from captioner.web.problems import add_problems, in_json
from captioner.web.queue import ModelQueue
from captioner.web.routes import below, open_routes
from captioner.web.status import Measures, add_status, observed, write_line

_EVENTS = 256
"""Most calls of the page that wait in Gradio's own queue."""


def create_app(captioners: Mapping[str, Captioner], options: WebOptions, queue: ModelQueue | None = None) -> FastAPI:
    """The application: the page of these models at /, their API at /api/caption, both through one queue.

    `captioners` are named as visitors choose them, and the page begins with the first. Whoever made the queue closes
    it. Raises ImageError where `options.examples` is no folder, OptionError where an option makes no sense.
    """
    queue = queue or ModelQueue(most_work=options.most_work)
    # FastAPI's own page of the API loads its scripts from a public server.
    app = FastAPIOffline(title="captioner", version=captioner.__version__, docs_url="/docs", redoc_url=None)
    add_api(app, captioners, queue)
    measures = Measures()
    add_status(app, captioners, queue, measures)
    add_problems(app)
    uploads = _mount_page(app, captioners, options, queue) if options.page else set()
    _guard(app, options, uploads)
    app.add_middleware(observed, measures=measures, log=write_line if options.access_log else None)
    app.state.queue = queue
    app.state.model_line = model_line(next(iter(captioners.values())))
    return app


def _mount_page(app: FastAPI, captioners: Mapping[str, Captioner], options: WebOptions, queue: ModelQueue) -> set[str]:
    """Adds the page at /, and gives Gradio's list of uploads to delete."""
    add_downloads(app)
    add_inside(app)
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
        root_path=_root(options.root_path).path or None,
        theme=theme(),
        css=CSS,
        head=HEAD,
    )
    add_problems(next(_mounted(app)))
    return page.upload_file_set


def _guard(app: FastAPI, options: WebOptions, uploads: set[str]) -> None:
    """Puts what keeps the application safe around it; the last is asked first."""
    address = _root(options.root_path)
    origins = [*_parts(options.allow_origin), *([f"{address.scheme}://{address.netloc}"] if address.netloc else [])]
    names = own_names(options.host) | {*_parts(options.allow_host), address.hostname or "localhost"}
    folder = get_upload_folder()
    app.add_middleware(in_json)
    app.add_middleware(_forgets_halves, uploads=uploads)
    app.add_middleware(
        limited_bodies,
        request=options.most_request,
        upload=options.most_upload,
        uploads=options.most_uploads,
        folder=folder,
    )
    app.add_middleware(open_routes, page=options.page, folder=folder)
    if pairs := read_names(options.auth, options.auth_file):
        app.add_middleware(asks_password, names=pairs)
    if options.root_path:
        app.add_middleware(below, address=address)
    app.add_middleware(own_origin, allowed=origins, embedded=_parts(options.embed))
    app.add_middleware(known_hosts, names=names)
    app.add_middleware(_no_sockets)


def _root(root_path: str | None) -> SplitResult:
    """Where a proxy shows the server: its address, as far as it was given, and the path, without a slash at the end."""
    address = urlsplit((root_path or "").rstrip("/"))
    whole = address.scheme in ("http", "https") and address.netloc
    if root_path and not whole and not re.fullmatch(r"/[^/?#].*", root_path):
        remedy = "give a path that begins with /, or a whole http(s) address"
        raise wrong(WebOptions, "root_path", f"is {root_path!r}", remedy)
    return address


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

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own, and SIGHUP: a terminal that is closed ends the server as Ctrl-C does."""
        hangup = getattr(signal, "SIGHUP", None)
        before = hangup and signal.getsignal(hangup)
        with super().capture_signals():
            if hangup and before is not signal.SIG_IGN:  # nohup's way
                signal.signal(hangup, self.handle_exit)
            try:
                yield
            finally:
                if hangup and before is not signal.SIG_IGN:
                    signal.signal(hangup, before)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"captioner is at {self.address} ({self.config.app.state.model_line})", flush=True)  # type: ignore[union-attr]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # whom it cuts off in the middle is no error
        for gradio in _mounted(self.config.app):  # type: ignore[arg-type]
            gradio.stop_event.set()
        await super().shutdown(sockets)


def _mounted(app: FastAPI) -> Iterator[GradioApp]:
    """Gradio's own application, where there is a page."""
    return (route.app for route in app.routes if isinstance(getattr(route, "app", None), GradioApp))  # type: ignore[attr-defined]


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


def _forgets_halves(app: ASGIApp, *, uploads: set[str]) -> ASGIApp:
    """Has Gradio delete, in time, what came of uploads that ended in the middle; `uploads` is its list."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except ClientDisconnect:
            uploads.update(map(str, Path(get_upload_folder()).glob("tmp*")))

    return guard


def _no_sockets(app: ASGIApp) -> ASGIApp:
    """Closes web sockets: the page uses none."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await app(scope, receive, send)

    return guard


def _strip_template() -> None:
    """Takes Gradio's own preview cards out of its page template, and addresses that lead out of a prefix.

    They name gradio.app, twitter and a picture on GitHub, describe Gradio instead of this page, and no option of
    mount_gradio_app removes them.
    """
    environment: Any = templates.env
    if isinstance(environment.loader, jinja2.ChoiceLoader):
        return  # done for an earlier application of this process
    name = "frontend/index.html"
    source, _, _ = environment.loader.get_source(environment, name)
    stripped = re.sub(r"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>\s*", "", source)
    # Below a prefix a browser would ask above it for these.
    stripped = stripped.replace('href="/manifest.json"', 'href="manifest.json"')
    stripped = stripped.replace("<head>", '<head><link rel="icon" href="favicon.ico" />', 1)
    environment.loader = jinja2.ChoiceLoader([jinja2.DictLoader({name: stripped}), environment.loader])
