"""The promises of captioner.web.routes: what is not listed is closed, over every route that the installed Gradio has."""

import asyncio
import itertools
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from fastapi.testclient import TestClient
from starlette.routing import Mount

from captioner.options import WebOptions
from tests.hostile import encoded, noise
from tests.web.test_web import elsewhere  # noqa: F401 - another server, as a fixture
from tests.web.visitors import ADDRESS, Visitor, made, small_captioner

OPEN = {
    *("GET /", "GET /config", "GET /theme.css", "GET /favicon.ico", "GET /robots.txt", "GET /manifest.json"),
    *(
        "GET /assets/x",
        "GET /static/x",
        "GET /svelte/x",
        "GET /docs",
        "GET /openapi.json",
        "GET /static-offline-docs/x",
    ),
    *(
        "GET /health",
        "GET /ready",
        "GET /metrics",
        "GET /api/models",
        "POST /download",
        "POST /inside",
        "POST /api/caption",
        "GET /api/caption",
        "PUT /api/caption",
    ),
    *("PATCH /api/caption", "DELETE /api/caption", "HEAD /api/caption", "HEAD /", "HEAD /openapi.json"),
    *("GET /gradio_api/info", "GET /gradio_api/file=x", "HEAD /gradio_api/file=x", "GET /gradio_api/startup-events"),
    *("GET /gradio_api/heartbeat/x", "GET /gradio_api/queue/data", "GET /gradio_api/upload_progress"),
    *(
        "POST /gradio_api/upload",
        "POST /gradio_api/queue/join",
        "POST /gradio_api/run/predict",
        "POST /gradio_api/cancel",
        "POST /gradio_api/reset",
    ),
}
"""Every route of the whole table that may answer, with x for its parameters."""

CLOSED = "There is nothing at this address: /docs describes what there is."


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        with TestClient(made(small_captioner(), WebOptions()), base_url=ADDRESS) as client:
            yield Visitor(client)


def table(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of mounted applications and included routers too."""
    for route in routes:
        path = prefix + (getattr(route, "path", None) or "")
        if inner := getattr(route, "original_router", None):
            yield from table(inner.routes, prefix)
        elif isinstance(route, Mount) and route.routes:
            yield from table(route.routes, path)
        else:
            for method in getattr(route, "methods", None) or {"GET"}:
                yield method, path + ("/x" if isinstance(route, Mount) else "")


def test_what_is_not_listed_is_closed(visitor: Visitor) -> None:
    """Every route of the application and of the installed Gradio: the listed ones are reached, all others are 404."""
    routes = set(table(visitor.client.app.routes))  # type: ignore[attr-defined]
    assert len(routes) > 80, "Gradio's routes were not found"
    reached = set()
    for method, path in routes:
        path = re.sub(r"\{[^}]*\}", "x", path)
        if path.rstrip("/") in ("/gradio_api/queue/data", "/gradio_api/heartbeat/x", "/gradio_api/upload_progress"):
            reached.add(
                f"{method} {path.rstrip('/')}"
            )  # these streams end only with their client: see the page's tests
            continue
        answer = visitor.client.request(method, path)
        if answer.status_code != 404 or (CLOSED not in answer.text and method != "HEAD"):
            reached.add(f"{method} {path.rstrip('/') or '/'}")
    assert reached <= OPEN, reached - OPEN


def test_a_route_that_a_newer_gradio_brings_is_closed(visitor: Visitor) -> None:
    """Whatever it is called, unless it is listed."""
    called: list[str] = []
    gradio = visitor.client.app.routes[-1].app  # type: ignore[attr-defined]
    for path in ("/gradio_api/fetch", "/gradio_api/file2={url:path}", "/new", "/gradio_api/upload/{url:path}"):
        gradio.router.add_api_route(path, lambda: called.append("!"), methods=["GET", "POST"])
        for method in ("GET", "POST", "HEAD", "OPTIONS"):
            address = path.replace("{url:path}", "http://127.0.0.1:9/")
            assert visitor.client.request(method, address).status_code in (404, 405)
    assert called == []


def spellings(url: str) -> Iterator[str]:
    """The fetching addresses of Gradio, in every way to write them that comes to mind."""
    heads = ["/gradio_api/file=", "/gradio_api/file/", "/gradio_api/proxy=", "/file=", "/file/", "/gradio_api/file%3D"]
    heads += ["/gradio_api/stream/", "/gradio_api/custom_component/", "/gradio_api/./file=", "/gradio_api/x/../file="]
    heads += [
        "/GRADIO_API/FILE=",
        "//gradio_api/file/",
        "/gradio_api//file/",
        "/gradio_api/%66ile/",
        "/gradio_api%2Ffile/",
    ]
    heads += [
        "/gradio_api/file=/../",
        "/gradio_api/file=%20",
        "/gradio_api/file=\\",
        "/gradio_api;x/file/",
        "/./gradio_api/file/",
    ]
    urls = [
        url,
        url.replace("http", "HTTP"),
        "%20" + url,
        "%09" + url,
        url.replace("//", "/"),
        "\\\\" + url[7:],
        url[5:],
    ]
    urls += [
        quote(url, safe=""),
        quote(quote(url, safe=""), safe=""),
        "/" + url,
        "." + url,
        url + "%00",
        url + "#x",
        "a:" + url,
    ]
    yield from (head + one + tail for head, one, tail in itertools.product(heads, urls, ("", "/", "?x=1")))


async def status_of(app: Any, method: str, target: str) -> int:
    """What is answered to a request line, with the path decoded as uvicorn does it and nothing tidied on the way."""
    path, _, query = target.partition("?")
    scope = {"type": "http", "method": method, "path": unquote(path), "raw_path": path.encode(), "root_path": ""}
    scope |= {"query_string": query.encode(), "headers": [(b"host", b"127.0.0.1:7860")], "http_version": "1.1"}
    scope |= {
        "scheme": "http",
        "server": ("127.0.0.1", 7860),
        "client": ("127.0.0.1", 50000),
        "asgi": {"version": "3.0"},
    }
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    await app(scope, receive, send)
    return statuses[0]


def test_no_spelling_fetches_an_address(visitor: Visitor, elsewhere: tuple[str, list[str]]) -> None:  # noqa: F811
    """Case, percent signs, slashes, dots: nothing reaches the other server, and nothing leads there."""
    url, asked = elsewhere
    tried = 0
    for path in spellings(url):
        for method in ("GET", "HEAD", "POST"):
            assert asyncio.run(status_of(visitor.client.app, method, path)) in (403, 404, 405), path
            tried += 1
    assert asked == []
    assert tried > 2000


def test_an_upload_is_seen_and_other_files_are_not(visitor: Visitor, tmp_path: Any) -> None:
    """What is in the folder of uploads; no detour leads out of it."""
    photo = encoded(noise(), "JPEG")
    path = visitor.upload(photo)["path"]
    assert visitor.client.get("/gradio_api/file=" + path).content == photo
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(photo)
    folder = path.rsplit("/", 2)[0]
    for other in (
        secret,
        f"{folder}/../secret.jpg",
        f"{folder}/%2e%2e/secret.jpg",
        f"/{folder}",
        folder,
        "/etc/passwd",
    ):
        assert visitor.client.get(f"/gradio_api/file={other}").status_code in (403, 404), other


def test_head_is_answered_like_get(visitor: Visitor) -> None:
    """By whoever asks only whether it lives: 200, without a body."""
    for path in ("/health", "/docs", "/metrics", "/config", "/"):
        answer = visitor.client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
