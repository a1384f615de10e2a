"""What the server says of itself: whether it lives, whether it is ready, what it did, and who asked for what.

Promises: nothing that a visitor sent is in it: no picture, caption, file's name or rest of an address. It knows
statuses and times, and nothing of what was asked.
"""

import platform
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import captioner
from captioner.web.bodies import visitor_of
from captioner.web.queue import ModelQueue

_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram's columns, in seconds."""

_ROUTE = re.compile(
    r"/gradio_api/(info|upload|queue/join|queue/data|run/predict|cancel|heartbeat|file)(?=[/=]|$)|"
    r"/(health|ready|metrics|docs|openapi\.json|api/models|api/caption|config|download)?"
)
"""Addresses by which requests are told apart; the others are one."""


class Measures:
    """What became of requests since the server began."""

    def __init__(self) -> None:
        self.statuses: Counter[tuple[str, str, int]] = Counter()
        """By route, model and status."""
        self.columns: dict[tuple[str, str], list[int]] = {}
        """By route and model: how many took no longer than each bound, and all."""
        self.seconds: dict[tuple[str, str], float] = {}

    def count(self, route: str, model: str, status: int, seconds: float) -> None:
        """Enters a request."""
        self.statuses[route, model, status] += 1
        columns = self.columns.setdefault((route, model), [0] * (len(_BOUNDS) + 1))
        for place, bound in enumerate((*_BOUNDS, float("inf"))):
            columns[place] += seconds <= bound
        self.seconds[route, model] = self.seconds.get((route, model), 0.0) + seconds


def observed(app: ASGIApp, *, measures: Measures, log: Callable[[str], Any] | None = None) -> ASGIApp:
    """Counts every request, and writes a line for each where there is a `log`."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        began, status = time.monotonic(), 0

        async def send_counted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await app(scope, receive, send_counted)
        finally:
            seconds = time.monotonic() - began
            route, model = route_of(scope, state), state.get("model", "")
            measures.count(route, model, status or 499, seconds)
            if log is not None:
                now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
                who = f"{visitor_of(scope)} {state.get('name', '-')}"
                log(f"{now} {who} {scope['method']} {route} {status or 499} {seconds:.3f}s {model or '-'}")

    return guard


def route_of(scope: Scope, state: Mapping[str, Any]) -> str:
    """Which address was asked for, without what a visitor put into it."""
    path = scope["path"].removeprefix(state.get("root_path", ""))
    found = _ROUTE.match(path)
    return found[0] if found and (found[0] == path or path.startswith("/gradio_api/")) else "other"


def add_status(app: FastAPI, models: Iterable[str], queue: ModelQueue, measures: Measures) -> None:
    """Adds `/health`, `/ready` and `/metrics`."""
    names = list(models)

    @app.get("/health", summary="Is the server alive?")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Are the models loaded and warm, and does the queue work? 503 where not")
    def ready() -> JSONResponse:
        said, status = ("ready", 200) if queue.ready else ("not ready", 503)
        return JSONResponse({"status": said, "models": names}, status)

    @app.get(
        "/metrics",
        summary="What was done since the server began, for Prometheus",
        response_class=PlainTextResponse,
    )
    def metrics() -> PlainTextResponse:
        lines = [*_of_queue(queue), *_of_requests(measures), *_of_build()]
        return PlainTextResponse("\n".join([*lines, ""]), media_type="text/plain; version=0.0.4")


def _of_queue(queue: ModelQueue) -> Iterable[str]:
    counts = queue.counts
    rows = [
        ("pictures_total", "counter", "Pictures that the models took.", counts.pictures),
        ("batches_total", "counter", "Passes of a model; several pictures may share one.", counts.batches),
        ("failures_total", "counter", "Pictures that a model failed on.", counts.failures),
        ("refusals_total", "counter", "Pictures refused because the queue was full.", counts.refusals),
        ("model_seconds_total", "counter", "Time that the models worked.", round(counts.seconds, 3)),
        ("waiting", "gauge", "Pictures that wait for a model.", queue.waiting),
    ]
    for name, kind, text, value in rows:
        yield from (*_head(name, kind, text), f"captioner_{name} {value}")


def _of_requests(measures: Measures) -> Iterable[str]:
    yield from _head("requests_total", "counter", "Requests, by address, model and status.")
    for (route, model, status), count in sorted(measures.statuses.items()):
        yield f'captioner_requests_total{{route="{route}",model="{_safe(model)}",status="{status}"}} {count}'
    yield from _head("request_seconds", "histogram", "Time from a request's head to the end of its answer.")
    for (route, model), columns in sorted(measures.columns.items()):
        labels = f'route="{route}",model="{_safe(model)}"'
        for bound, count in zip((*_BOUNDS, "+Inf"), columns, strict=True):
            yield f'captioner_request_seconds_bucket{{{labels},le="{bound}"}} {count}'
        yield f"captioner_request_seconds_sum{{{labels}}} {measures.seconds[route, model]:.3f}"
        yield f"captioner_request_seconds_count{{{labels}}} {columns[-1]}"


def _of_build() -> Iterable[str]:
    yield from _head("build_info", "gauge", "What runs here; always 1.")
    parts = {"version": captioner.__version__, "python": platform.python_version()}
    for name in ("torch", "onnxruntime"):
        with suppress(PackageNotFoundError):
            parts[name] = version(name)
    labels = ",".join(f'{name}="{_safe(value)}"' for name, value in parts.items())
    yield f"captioner_build_info{{{labels}}} 1"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP captioner_{name} {text}", f"# TYPE captioner_{name} {kind}"


def _safe(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def write_line(line: str) -> None:
    """To the standard errors' stream, at once."""
    print(line, file=sys.stderr, flush=True)
