"""The promises of captioner.web.connections, on loopback with small numbers: time and room for every connection."""

import logging
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from starlette.requests import ClientDisconnect

from captioner.web.connections import Limits, limits_here
from tests.web.visitors import listening

SHORT = Limits(most=8, head=0.5, idle=0.5, body=0.5, least=1000)
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"


def small_app() -> FastAPI:
    app = FastAPI()

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.post("/count")
    async def count(request: Request) -> int:
        try:
            return len(await request.body())
        except ClientDisconnect:
            return 0

    @app.get("/large")
    def large() -> PlainTextResponse:
        return PlainTextResponse("x" * 50_000_000)

    return app


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listening(small_app(), SHORT) as found:
        yield found


def connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.settimeout(10)
    return connection


def ended(connection: socket.socket) -> bool:
    """The server ends it, within the ten seconds that a read waits."""
    try:
        while connection.recv(100_000):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def healthy(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
        return answer.status == 200


def drip(connection: socket.socket, data: bytes) -> bool:
    """Sends a byte every tenth of a second until the server ends it; False where it takes them all."""
    try:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
    except ConnectionError:
        return True
    return False


def test_an_idle_connection_ends(port: int) -> None:
    """Before its first request, and after it."""
    with connected(port) as silent, connected(port) as answered:
        answered.sendall(GET)
        assert answered.recv(1000).startswith(b"HTTP/1.1 200")
        assert ended(silent)
        assert ended(answered)


def test_a_dripping_head_ends(port: int) -> None:
    """Bytes that come and come make no request."""
    with connected(port) as slow:
        assert drip(slow, GET[:-2] + b"X-A: " + b"a" * 60)


def test_a_dripping_body_ends_and_a_slow_one_is_taken(port: int) -> None:
    """By its pace, not by its length: what comes at a fair pace may take as long as it takes."""
    with connected(port) as slow:
        slow.sendall(POST)
        assert drip(slow, b"a" * 60)
    with connected(port) as fair:
        fair.sendall(POST)
        for _ in range(20):  # twice a second's limit in all
            fair.sendall(b"a" * 5000)
            time.sleep(0.1)
        assert fair.recv(1000).startswith(b"HTTP/1.1 200")


def test_an_answer_that_is_not_read_ends(port: int) -> None:
    """It would keep its bytes in memory."""
    with connected(port) as deaf:
        deaf.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(2)
        total = 0
        try:
            while data := deaf.recv(1_000_000):
                total += len(data)
        except ConnectionError:
            pass
        assert total < 50_000_000


def test_idle_connections_keep_nobody_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Many more than may be: each new visitor is served at once, and no line is written for any of them."""
    patient = Limits(most=8, head=60, idle=60, body=60)
    with listening(small_app(), patient) as port, ExitStack() as stack:
        for number in range(60):
            one = stack.enter_context(connected(port))
            one.sendall((b"", b"GET / HT", POST, GET)[number % 4])
            if number % 6 == 0:
                assert healthy(port)
        assert healthy(port)
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_busy_ones_are_not_thrown_out() -> None:
    """Where all that may be are being answered, the next is told so."""
    app = small_app()

    @app.get("/slow")
    def slow() -> str:
        time.sleep(1.5)
        return "done"

    with listening(app, Limits(most=4)) as port, ExitStack() as stack:
        busy = [stack.enter_context(connected(port)) for _ in range(4)]
        for one in busy:
            one.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.5)
        with connected(port) as refused:
            answer = refused.recv(1000)
            assert b"503" in answer.splitlines()[0]
            assert b"Retry-After" in answer
        for one in busy:
            answer = b""
            while b"done" not in answer:
                answer += one.recv(1000)


def test_nonsense_is_answered_and_not_written_down(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever bytes are sent; the next is served."""
    for sent in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"A" * 100_000,
        GET.replace(b"\r\n\r\n", b"\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    ):
        with connected(port) as one:
            one.sendall(sent)
            one.shutdown(socket.SHUT_WR)
            assert ended(one)
    assert healthy(port)
    assert capfd.readouterr().err == ""
    assert logging.getLogger("uvicorn.error").level >= logging.ERROR


def test_there_are_fewer_connections_than_descriptors() -> None:
    """Whatever the system allows."""
    resource = pytest.importorskip("resource")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 8 <= limits_here(10**9).most <= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 or soft == -1
