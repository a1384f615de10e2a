"""`POST /api/caption`, for programs: pictures in, captions out, as JSON.

Promises: whatever is sent, the answer is JSON with a fitting status, and what is wrong stands in `error`, in one
sentence; one bad picture costs the others nothing; nothing that was sent is kept; no work is done for a client that
has left. It knows answers, and the queue.
"""

import asyncio
import os
from collections.abc import Coroutine, Mapping
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from captioner.captioner import Captioner
from captioner.captions import to_dict
from captioner.errors import BusyError, CaptionerError, OptionError
from captioner.options import SearchOptions
from captioner.web.queue import ModelQueue, Party
from captioner.web.requests import BODY, Pictures, Refusal, read_request, read_settings


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
    unsure: bool | None = Field(
        None, description="it may well be wrong, by the model's own threshold; null without one"
    )
    alternatives: list[Sentence] | None = Field(None, description="other sentences that the search found, best first")


class Answer(BaseModel):
    """The pictures in the order they were sent."""

    model: str
    captions: list[Result]


class Model(BaseModel):
    """A model that can be asked for, and how it searches unless told otherwise."""

    name: str
    encoder: str
    decoder: str
    device: str
    search: dict[str, Any]


class Problem(BaseModel):
    """Why there is no answer."""

    error: str


_STATUSES = {
    400: "the body cannot be read",
    413: "the body is too big",
    415: "the body is neither multipart/form-data nor application/json",
    422: "a setting is wrong, or none of the pictures can be read",
    503: "too many pictures are waiting: try again after the seconds that Retry-After says",
}


def add_api(app: FastAPI, captioners: Mapping[str, Captioner], queue: ModelQueue) -> None:
    """Adds `/api/caption` and `/api/models`."""
    reading = CapacityLimiter(os.cpu_count() or 1)  # decoding a large photo takes 300 MB

    @app.get("/api/models", summary="The models there are, the first of which is the default")
    def models() -> dict[str, list[Model]]:
        return {"models": [_describe(name, captioner) for name, captioner in captioners.items()]}

    @app.post(
        "/api/caption",
        summary="Captions pictures",
        response_model=Answer,
        response_model_exclude_none=True,
        responses={status: {"model": Problem, "description": text} for status, text in _STATUSES.items()},
        openapi_extra={"requestBody": BODY},
    )
    async def caption(request: Request) -> Any:
        try:
            pictures, values = await read_request(request)
            name, search = read_settings(captioners, values)
            request.state.model = name  # for the log and the metrics
            work = _captions(captioners[name], search, pictures, queue, reading)
            results = await _unless_left(request, work)
        except Refusal as refusal:
            return refusal.response
        if results is None:
            return Response(status_code=499)  # nobody reads it
        answer = {"model": name, "captions": results}
        failed = all("error" in result for result in results)
        return JSONResponse({"error": results[0]["error"], **answer}, 422) if failed else answer

    @app.api_route("/api/caption", methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    def other_methods() -> JSONResponse:
        # Else Gradio, which is mounted at /, would say that there is no such page.
        error = "This address takes pictures: send them with POST, as /docs describes."
        return JSONResponse({"error": error}, 405, {"Allow": "POST"})


def _describe(name: str, captioner: Captioner) -> "Model":
    card = captioner.card
    search = vars(captioner.search)
    return Model(
        name=name, encoder=card.encoder.name, decoder=card.decoder.cell, device=captioner.device, search=search
    )


async def _unless_left(
    request: Request, work: Coroutine[Any, Any, list[dict[str, Any]]]
) -> list[dict[str, Any]] | None:
    """What the work gives; None where the client leaves before, and the work ends there."""

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(leave())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


async def _captions(
    captioner: Captioner, search: SearchOptions, pictures: Pictures, queue: ModelQueue, reading: CapacityLimiter
) -> list[dict[str, Any]]:
    """What became of each picture, in their order."""

    async def result(name: str, data: Any, party: Party) -> dict[str, Any]:
        try:
            if isinstance(data, CaptionerError):
                raise data
            pixels = await to_thread.run_sync(captioner.read, data, limiter=reading)
            found = await asyncio.wrap_future(queue.caption(captioner, pixels, search, party))
        except BusyError:
            raise  # the server stops
        except CaptionerError as error:
            return {"name": name, "error": str(error)}
        return {"name": name, **to_dict(found), "unsure": captioner.is_unsure(found)}

    try:
        with queue.places(len(pictures), search) as party:
            tasks = [asyncio.ensure_future(result(name, data, party)) for name, data in pictures]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()
    except BusyError as error:
        raise Refusal(503, str(error)) from error
    except OptionError as error:
        raise Refusal(422, str(error)) from error
