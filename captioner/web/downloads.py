"""The captions of a gallery as files, for download: as they stand on the page, where they were edited.

It knows the formats, and nothing of models.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from captioner.archives import write_zip
from captioner.captions import Caption
from captioner.formats import CaptionedFile, coco_results, csv_lines, json_lines, text_sidecars, xmp_sidecars
from captioner.video import Scene, to_srt, to_webvtt

MOST = 2000
"""Most captions of a gallery: more make a page that a phone cannot hold; the command line has no such limit."""


class Captioned(BaseModel):
    """A picture of a gallery, with its caption as it stands there; a scene of a clip has its times, in seconds."""

    name: str = Field(max_length=4096)
    caption: str = Field(max_length=10_000)
    probability: float | None = None
    alternatives: list[str] = Field(default=[], max_length=100)
    start: float = Field(default=0.0, ge=0, le=1e7)
    end: float = Field(default=0.0, ge=0, le=1e7)


class Export(BaseModel):
    """What a gallery asks to be made a file of."""

    format: str
    captions: list[Captioned] = Field(min_length=1, max_length=MOST)


@dataclass(frozen=True)
class Format:
    """What captions can be downloaded as."""

    title: str
    file: str
    kind: str
    """The media type."""
    write: Callable[[list[Captioned]], bytes]


def buttons(formats: dict[str, Format], gallery: str) -> str:
    """A row of buttons as HTML, which download what the gallery with that id shows; page.js brings them to life."""
    row = "".join(
        f"<button type='button' class='download' data-format='{form}' data-gallery='{gallery}'>{known.title}</button>"
        for form, known in formats.items()
    )
    return f"<p class='actions'>Download the captions, as they are edited: {row}</p>"


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


def _files(captions: list[Captioned]) -> list[CaptionedFile]:
    return [CaptionedFile(one.name, one.caption, one.probability, tuple(one.alternatives)) for one in captions]


def _scenes(captions: list[Captioned]) -> list[Scene]:
    return [Scene(one.start, one.end, Caption(one.caption, 0.0, (), 1.0), b"") for one in captions]


def _csv(captions: list[Captioned]) -> bytes:
    return "".join(f"{line}\r\n" for line in csv_lines(_files(captions))).encode("utf-8-sig")  # for Excel


def _jsonl(captions: list[Captioned]) -> bytes:
    return "".join(f"{line}\n" for line in json_lines(_files(captions))).encode()


def _coco(captions: list[Captioned]) -> bytes:
    return coco_results(_files(captions)).encode()


def _text(captions: list[Captioned]) -> bytes:
    return _zip(text_sidecars(_files(captions)))


def _xmp(captions: list[Captioned]) -> bytes:
    return _zip(xmp_sidecars(_files(captions)))


def _vtt(captions: list[Captioned]) -> bytes:
    return to_webvtt(_scenes(captions)).encode()


def _srt(captions: list[Captioned]) -> bytes:
    return to_srt(_scenes(captions)).encode()


def _zip(entries: Iterable[tuple[str, str]]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "captions.zip")
        write_zip(path, entries)
        return path.read_bytes()


PHOTOS = {
    "csv": Format("CSV", "captions.csv", "text/csv", _csv),
    "jsonl": Format("JSON lines", "captions.jsonl", "application/jsonl", _jsonl),
    "coco": Format("COCO results", "captions.json", "application/json", _coco),
    "txt": Format("Text files", "captions-txt.zip", "application/zip", _text),
    "xmp": Format("XMP sidecars", "captions-xmp.zip", "application/zip", _xmp),
}
"""For many photos."""

CLIP = {
    "vtt": Format("WebVTT", "captions.vtt", "text/vtt", _vtt),
    "srt": Format("SRT", "captions.srt", "application/x-subrip", _srt),
}
"""For a clip."""
