"""What a program sends to `/api/caption`: pictures as a form's files or as base64 in JSON, and settings.

Promises: whatever is sent is read, or refused with a fitting status and one sentence; what is wrong with one picture
stays with it. It knows requests, and nothing of models at work.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from anyio import to_thread
from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError, create_model
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from captioner.captioner import Captioner, pick_captioner
from captioner.errors import ImageError, OptionError
from captioner.options import SearchOptions

Pictures = list[tuple[str, bytes | ImageError]]
"""Each by its name, or why it cannot be one."""

MAX_FILES = 64
"""Most pictures of one request: beyond, a program does better with several requests, and sees how far it has come."""


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


_SETTINGS = Settings.model_json_schema()["properties"]
_FORM = {name: {**field, "example": ""} for name, field in _SETTINGS.items()}  # else /docs fills in what is wrong
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "additionalProperties": False,
                "properties": {
                    "files": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "minItems": 1,
                        "maxItems": MAX_FILES,
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
                "additionalProperties": False,
                "properties": {
                    "images": {
                        "type": "array",
                        "items": {"type": "string", "format": "byte"},
                        "minItems": 1,
                        "maxItems": MAX_FILES,
                        "description": f"pictures as base64, {MAX_FILES} at most",
                    },
                    **_SETTINGS,
                },
            },
        },
    },
}


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A request that gets no captions, with the status and the sentence it gets instead."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.response = JSONResponse({"error": error}, status, {"Retry-After": "1"} if status == 503 else None)


async def read_request(request: Request) -> tuple[Pictures, dict[str, Any]]:
    """The named pictures of a request, at least one, and its settings as they were sent. Raises Refusal."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/json":
        pictures, values = await to_thread.run_sync(_read_json, await request.body())
    elif kind == "multipart/form-data":
        pictures, values = await _read_form(request)
    else:
        sent = f"The body is {kind}" if kind else "The body has no content type"
        raise Refusal(415, f"{sent}: send multipart/form-data with files, or application/json with images.")
    if not pictures:
        raise Refusal(400, "There is no picture: send at least one, as files of a form or as images in JSON.")
    if len(pictures) > MAX_FILES:
        raise Refusal(413, f"There are {len(pictures)} pictures: send {MAX_FILES} at most in one request.")
    return pictures, values


def _read_json(body: bytes) -> tuple[Pictures, dict[str, Any]]:
    try:
        values = json.loads(body)
        images = values.pop("images", [])
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise Refusal(400, 'The body is not the JSON that is wanted: {"images": ["<base64>", ...]}.') from error
    images = images if isinstance(images, list) else [images]
    pictures = [(f"image {number}", _from_base64(image)) for number, image in enumerate(images, 1)]
    errors = [data for _, data in pictures if isinstance(data, ImageError)]
    if errors and len(errors) == len(pictures):
        raise Refusal(400, f"images: {errors[0]}")
    return pictures, values


def _from_base64(image: Any) -> bytes | ImageError:
    """Base64 as people make it: in lines, with - and _ for + and /, without padding, with a data URL's head."""
    if not isinstance(image, str):
        return ImageError("the picture", "is no string", "send it as base64")
    try:
        letters = "".join(re.sub(r"^\s*data:[^,]{0,100},", "", image).split()).rstrip("=")
        plain = letters.translate({ord("-"): "+", ord("_"): "/"})
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return ImageError("the picture", "is no base64, or not the whole of it", "send the whole file as base64")


async def _read_form(request: Request) -> tuple[Pictures, dict[str, Any]]:
    try:
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FILES) as form:
            pictures: Pictures = []
            values: dict[str, Any] = {}
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    pictures.append((value.filename or f"image {len(pictures) + 1}", await value.read()))
                elif value != "":
                    values[name] = value
            return pictures, values
    except HTTPException as error:
        raise Refusal(400, f"The form cannot be read ({error.detail.rstrip('.')}): send it anew.") from error


def read_settings(captioners: Mapping[str, Captioner], values: dict[str, Any]) -> tuple[str, SearchOptions]:
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
        raise Refusal(422, f"{place} is wrong: {first['msg']}{hint}.") from error
    except OptionError as error:
        raise Refusal(422, str(error)) from error
    return name, search
