"""What is answered where something went wrong: JSON with a fitting status and one sentence, whoever failed."""

import errno
import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FULL = "The server's disk is full: try again later."

_NAMES = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY)
"""What a system says of a file whose name it does not take."""


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is not worked on any further, with what it is answered."""

    def __init__(self, status: int, error: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.response = JSONResponse({"error": error}, status, headers)


def add_problems(app: FastAPI) -> None:
    """Has a body that is not what a route wants answered without an echo of it: it may be bytes, or no number."""

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> JSONResponse:
        sentence = f"{str(error.detail)[:200].rstrip('.')}."
        return JSONResponse({"error": sentence, "detail": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    def wrong_body(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part)[:100] for part in first["loc"])
        sentence = f"{place} is not what this address takes: {str(first['msg'])[:200].rstrip('.')}."
        return JSONResponse({"error": sentence, "detail": sentence}, 422)


def in_json(app: ASGIApp) -> ASGIApp:
    """Answers what nobody caught: a full disk, a name that no file can have, a fault of ours, which goes to the log.

    A plain text that the application inside answers in place of JSON is held back until it is known why.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        started, held = False, 0

        async def send_unless_failed(message: Message) -> None:
            nonlocal started, held
            if message.get("status", 0) >= 400 and b"text/plain" in dict(message["headers"]).get(b"content-type", b""):
                held = message["status"]
            if not held:
                started = True
                await send(message)

        answer = None
        try:
            await app(scope, receive, send_unless_failed)
        except (ClientDisconnect, Refused):
            raise
        except Exception as error:
            answer = _answer(error)
            if started or answer is None:
                logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=error)
        if not started:
            await (answer or _said(held or 500))(scope, receive, send)

    return guard


def _answer(error: Exception) -> JSONResponse | None:
    """What the visitor is told of an error that is no fault of ours."""
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT):
        return JSONResponse({"error": FULL}, 507, {"Retry-After": "600"})
    if code in _NAMES:
        return JSONResponse({"error": "The file's name cannot be kept here: give it a shorter or plainer one."}, 400)
    return None


def _said(status: int) -> JSONResponse:
    if status < 500:
        return JSONResponse({"error": "The request cannot be read: send it anew."}, status)
    return JSONResponse({"error": "Something went wrong here, and its owner finds it in the log: try again."}, status)
