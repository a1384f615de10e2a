"""`POST /api/caption`, for programs: pictures in, captions out, as JSON.

Promises: whatever is sent, the answer is JSON with a fitting status, and what is wrong stands in `error`, in one
sentence; one bad picture costs the others nothing; nothing that was sent is kept. It knows requests, and the queue.
"""

import asyncio
import base64
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field, ValidationError, create_model
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message

from captioner.captioner import Captioner, pick_captioner
from captioner.captions import Caption, to_dict
from captioner.errors import BusyError, CaptionerError, ImageError, OptionError
from captioner.options import SearchOptions
from captioner.pictures import MAX_BYTES
from captioner.web.queue import ModelQueue

MAX_FILES = 64
"""Most pictures of one request: beyond, a program does better with several requests, and sees how far it has come."""

MAX_JSON = 64_000_000
"""Most bytes of a JSON request, which is held in memory as a whole; files go to disk as they come."""


def _search_field(name: str) -> Any:
    """A field of SearchOptions as an optional field of a request."""
    rule = next(field for field in fields(SearchOptions) if field.name == name).metadata
    limits = {"ge": rule["minimum"], "le": rule["maximum"]}
    choices = f" ({', '.join(rule['choices'])})" if rule["choices"] else ""
    description = rule["help"] + choices + "; default: what the model file says"
    return get_type_hints(SearchOptions)[name] | None, Field(None, description=description, **limits)


Settings: type[BaseModel] = create_model(
    "Settings",
    __config__={"extra": "forbid", "title": "Settings"},
    model=(str | None, Field(None, description="which of the models that the page offers; default: its first")),
    **{field.name: _search_field(field.name) for field in fields(SearchOptions)},
)


class Sentence(BaseModel):
    """A caption."""

    caption: str
    log_probability: float = Field(description="natural logarithm of the probability of the whole sentence")
    word_probability: float = Field(description="geometric mean of the probabilities of its words and its end")


class Result(BaseModel):
    """What became of one picture: a caption, or an error."""

    name: str = Field(description="the file's name, or its place in the request")
    error: str | None = Field(None, description="why there is no caption")
    caption: str | None = None
    log_probability: float | None = None
    word_probability: float | None = None
    alternatives: list[Sentence] | None = Field(None, description="other sentences that the search found, best first")


class Answer(BaseModel):
    """The pictures in the order they were sent."""

    model: str
    captions: list[Result]


class Problem(BaseModel):
    """Why there is no answer."""

    error: str


class _Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A request that gets no captions, with the status and the sentence it gets instead."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.response = JSONResponse({"error": error}, status, {"Retry-After": "1"} if status == 503 else None)


_STATUSES = {
    400: "the body cannot be read",
    413: "the body is too big",
    415: "the body is neither multipart/form-data nor application/json",
    422: "a setting is wrong, or none of the pictures can be read",
    503: "too many pictures are waiting: try again after the seconds that Retry-After says",
}

_SETTINGS = Settings.model_json_schema()["properties"]
_FORM = {name: {**field, "example": ""} for name, field in _SETTINGS.items()}  # else /docs fills in what is wrong
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "description": f"pictures, {MAX_FILES} at most",
                    },
                    **_FORM,
                },
            }
        },
        "application/json": {
            "example": {"images": ["<base64>"]},
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {
                        "type": "array",
                        "items": {"type": "string", "format": "byte"},
                        "description": f"pictures as base64, {MAX_FILES} at most, {MAX_JSON // 10**6} MB in all",
                    },
                    **_SETTINGS,
                },
            },
        },
    },
}


def add_api(app: FastAPI, captioners: Mapping[str, Captioner], queue: ModelQueue) -> None:
    """Adds `/api/caption`, `/health` and `/metrics`."""
    reading = CapacityLimiter(os.cpu_count() or 1)  # decoding a large photo takes 300 MB

    @app.get("/health", summary="Is the server alive?")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", summary="What the models did since the server began, for Prometheus")
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(_metrics(queue), media_type="text/plain; version=0.0.4")

    @app.post(
        "/api/caption",
        summary="Captions pictures",
        response_model=Answer,
        response_model_exclude_none=True,
        responses={status: {"model": Problem, "description": text} for status, text in _STATUSES.items()},
        openapi_extra={"requestBody": _BODY},
    )
    async def caption(request: Request) -> Any:
        try:
            pictures, values = await _read_request(request)
            name, search = _settings(captioners, values)
            results = await _captions(captioners[name], search, pictures, queue, reading)
        except _Refusal as refusal:
            return refusal.response
        answer = {"model": name, "captions": results}
        failed = all("error" in result for result in results)
        return JSONResponse({"error": results[0]["error"], **answer}, 422) if failed else answer

    @app.api_route("/api/caption", methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    def other_methods() -> JSONResponse:
        # Else Gradio, which is mounted at /, would say that there is no such page.
        error = "This address takes pictures: send them with POST, as /docs describes."
        return JSONResponse({"error": error}, 405, {"Allow": "POST"})


async def _read_request(request: Request) -> tuple[list[tuple[str, bytes]], dict[str, Any]]:
    """The named pictures of a request, at least one, and its settings as they were sent."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/json":
        pictures, values = await _read_json(_limited(request, MAX_JSON))
    elif kind == "multipart/form-data":
        pictures, values = await _read_form(_limited(request, MAX_BYTES))
    else:
        sent = f"The body is {kind}" if kind else "The body has no content type"
        raise _Refusal(415, f"{sent}: send multipart/form-data with files, or application/json with images.")
    if not pictures:
        raise _Refusal(400, "There is no picture: send at least one, as files of a form or as images in JSON.")
    if len(pictures) > MAX_FILES:
        raise _Refusal(413, f"There are {len(pictures)} pictures: send {MAX_FILES} at most in one request.")
    return pictures, values


def _limited(request: Request, limit: int) -> Request:
    """The same request, which is refused once its body is longer than `limit` bytes."""
    too_big = _Refusal(413, f"The body is bigger than {limit // 10**6} MB: send fewer or smaller pictures.")
    if int(request.headers.get("content-length") or 0) > limit:
        raise too_big
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_big
        return message

    return Request(request.scope, receive)


async def _read_json(request: Request) -> tuple[list[tuple[str, bytes]], dict[str, Any]]:
    try:
        values = await request.json()
        images = values.pop("images", [])
        if not isinstance(images, list):
            images = [images]
        return [(f"image {number}", _bytes(image)) for number, image in enumerate(images, 1)], values
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise _Refusal(400, 'The body is not the JSON that is wanted: {"images": ["<base64>", ...]}.') from error


def _bytes(image: str) -> bytes:
    """Base64, with or without a data URL's head, as bytes; raises ValueError or TypeError for anything else."""
    return base64.b64decode(re.sub(r"^data:[^,]{0,100},", "", image), validate=True)


async def _read_form(request: Request) -> tuple[list[tuple[str, bytes]], dict[str, Any]]:
    try:
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FILES) as form:
            pictures: list[tuple[str, bytes]] = []
            values: dict[str, Any] = {}
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    pictures.append((value.filename or f"image {len(pictures) + 1}", await value.read()))
                elif value != "":
                    values[name] = value
            return pictures, values
    except HTTPException as error:
        raise _Refusal(400, f"The form cannot be read ({error.detail.rstrip('.')}): send it anew.") from error


def _settings(captioners: Mapping[str, Captioner], values: dict[str, Any]) -> tuple[str, SearchOptions]:
    """The model's name and its search."""
    try:
        given = Settings.model_validate(values).model_dump(exclude_none=True)
        name = given.pop("model", next(iter(captioners)))
        search = pick_captioner(captioners, name).search_with(**given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        known = ", ".join(_SETTINGS)
        hint = f" (settings: {known})" if first["type"] == "extra_forbidden" else ""
        raise _Refusal(422, f"{place} is wrong: {first['msg']}{hint}.") from error
    except OptionError as error:
        raise _Refusal(422, str(error)) from error
    return name, search


async def _captions(
    captioner: Captioner,
    search: SearchOptions,
    pictures: list[tuple[str, bytes]],
    queue: ModelQueue,
    reading: CapacityLimiter,
) -> list[dict[str, Any]]:
    """What became of each picture, in their order."""
    futures: dict[int, asyncio.Future[Caption]] = {}
    results: list[dict[str, Any]] = [{"name": name} for name, _ in pictures]
    try:
        for place, (_, data) in enumerate(pictures):
            try:
                pixels = await to_thread.run_sync(captioner.read, data, limiter=reading)
            except ImageError as error:
                results[place]["error"] = str(error)
                continue
            futures[place] = asyncio.wrap_future(queue.caption(captioner, pixels, search))
        for place, future in futures.items():
            try:
                caption = await future
            except CaptionerError as error:
                results[place]["error"] = str(error)
            else:
                results[place] |= to_dict(caption)
    except BusyError as error:
        raise _Refusal(503, str(error)) from error
    finally:
        for future in futures.values():
            future.cancel()  # whose turn has not come when the request ends before it
    return results


def _metrics(queue: ModelQueue) -> str:
    """In Prometheus' text format."""
    counts = queue.counts
    rows = [
        ("pictures_total", "counter", "Pictures that the models took.", counts.pictures),
        ("batches_total", "counter", "Passes of a model; several pictures may share one.", counts.batches),
        ("failures_total", "counter", "Pictures that a model failed on.", counts.failures),
        ("refusals_total", "counter", "Pictures refused because the queue was full.", counts.refusals),
        ("model_seconds_total", "counter", "Time that the models worked.", round(counts.seconds, 3)),
        ("waiting", "gauge", "Pictures that wait for a model.", queue.waiting),
    ]
    return "".join(
        f"# HELP captioner_{name} {text}\n# TYPE captioner_{name} {kind}\ncaptioner_{name} {value}\n"
        for name, kind, text, value in rows
    )
