"""The captions of a gallery as files, for download: as they stand on the page, where they were edited.

It knows the formats, and nothing of models.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from captioner.archives import write_zip
from captioner.formats import (
    coco_results,
    csv_lines,
    json_lines,
    text_sidecars,
    to_srt,
    to_webvtt,
    xmp_sidecars,
)
from captioner.web.gallery import MOST, Card


class Export(BaseModel):
    """What a gallery asks to be made a file of."""

    format: str
    captions: list[Card] = Field(min_length=1, max_length=MOST)


@dataclass(frozen=True)
class Format:
    """What captions can be downloaded as."""

    title: str
    file: str
    kind: str
    """The media type."""
    write: Callable[[list[Card]], str | bytes]


def buttons(titles: Mapping[str, str]) -> str:
    """A row of buttons as HTML, by their formats, which download the captions of the gallery that they are in."""
    row = "".join(
        f"<button type='button' class='download' data-format='{form}'>{title}</button>"
        for form, title in titles.items()
    )
    return (
        f"<p class='actions'>Download the captions, as they are edited: {row}</p>"
        "<p class='problem downloading' role='alert'></p>"
    )


def add_downloads(app: FastAPI) -> None:
    """Adds the route that makes the files, for the page alone."""
    formats = PHOTOS | CLIP

    @app.post("/download", include_in_schema=False)
    def download(wanted: Export) -> Response:
        if wanted.format not in formats:
            return JSONResponse({"error": f"format is {wanted.format!r}: choose {', '.join(formats)}."}, 422)
        form = formats[wanted.format]
        headers = {"Content-Disposition": f'attachment; filename="{form.file}"'}
        return Response(form.write(wanted.captions), media_type=form.kind, headers=headers)


def _texts(cards: list[Card]) -> list[tuple[str, str]]:
    return [(one.name, one.caption) for one in cards]


def _csv(cards: list[Card]) -> bytes:
    return "".join(f"{line}\r\n" for line in csv_lines(_texts(cards))).encode("utf-8-sig")  # for Excel


def _jsonl(cards: list[Card]) -> str:
    return "".join(f"{line}\n" for line in json_lines(map(_known, cards)))


def _known(card: Card) -> dict[str, Any]:
    """What is known of a caption; where a person wrote it, nothing more than that."""
    fields: dict[str, Any] = {"image": card.name, "caption": card.caption}
    if card.probability is not None:
        fields["word_probability"] = round(card.probability, 4)
    if card.alternatives:
        fields["alternatives"] = card.alternatives
    return fields


def _zip(sidecars: Callable[[list[tuple[str, str]]], Iterable[tuple[str, str]]], cards: list[Card]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "captions.zip")
        write_zip(path, sidecars(_texts(cards)))
        return path.read_bytes()


def titles(formats: Mapping[str, Format]) -> dict[str, str]:
    """What the formats' buttons say."""
    return {form: known.title for form, known in formats.items()}


PHOTOS = {
    "txt": Format("Text files", "captions-txt.zip", "application/zip", lambda cards: _zip(text_sidecars, cards)),
    "xmp": Format("XMP sidecars", "captions-xmp.zip", "application/zip", lambda cards: _zip(xmp_sidecars, cards)),
    "csv": Format("CSV", "captions.csv", "text/csv", _csv),
    "jsonl": Format("JSON lines", "captions.jsonl", "application/jsonl", _jsonl),
    "coco": Format("COCO results", "captions.json", "application/json", lambda cards: coco_results(_texts(cards))),
}
"""For many photos, in the order that people want them: into the photos or beside them first."""

CLIP = {
    "vtt": Format("WebVTT", "captions.vtt", "text/vtt", to_webvtt),
    "srt": Format("SRT", "captions.srt", "application/x-subrip", to_srt),
}
"""For a clip."""
