"""An album's photos with their captions inside, as a zip: copies, made by ExifTool of what the server still has.

Promises: no photo and no caption is left out. Where a format holds none, or ExifTool cannot write into a file, the
photo comes as it is, with the caption in an XMP sidecar beside it.
"""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse, Response
from gradio.utils import get_upload_folder, is_in_or_equal
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from captioner.archives import ZippedPictures, write_zip
from captioner.errors import ArchiveError, ImageError
from captioner.formats import xmp_sidecars
from captioner.formats.embedded import ExifTool
from captioner.web.gallery import MOST, Card


class Photos(BaseModel):
    """The photos that an album wants with their captions inside."""

    captions: list[Card] = Field(min_length=1, max_length=MOST)


def can_write_inside() -> bool:
    """Whether this server has what it takes."""
    return shutil.which("exiftool") is not None


def add_inside(app: FastAPI) -> None:
    """Adds the route that makes the zip, for the page alone."""
    at_work = threading.Lock()  # a big album keeps a core for a minute

    @app.post("/inside", include_in_schema=False)
    def inside(wanted: Photos) -> Response:
        missing = sorted({card.source for card in wanted.captions if not _is_here(card.source)})
        if missing:
            said = "The server keeps photos for an hour, and some are gone: send them again, or take XMP sidecars."
            return JSONResponse({"error": said, "missing": missing}, 410)
        if not at_work.acquire(blocking=False):
            return JSONResponse({"error": "The server is making another album: try again in a minute."}, 503)
        folder = Path(tempfile.mkdtemp())
        try:
            with ExifTool() as exiftool:
                write_zip(folder / "photos.zip", _files(wanted.captions, exiftool, folder))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            at_work.release()
        done = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        return FileResponse(folder / "photos.zip", filename="photos.zip", background=done)


def _is_here(source: str) -> bool:
    """Whether an upload is still there; nothing else on this machine is."""
    return bool(source) and is_in_or_equal(source, get_upload_folder()) and Path(source).is_file()


def _files(cards: list[Card], exiftool: ExifTool, folder: Path) -> Iterator[tuple[str, str | bytes]]:
    """The photos, each with its caption inside or beside it."""
    for source, group in groupby(sorted(cards, key=attrgetter("source")), attrgetter("source")):
        of_it = {card.member: card for card in group}
        for member, photo in _photos(source, set(of_it)):
            card = of_it[member]
            try:
                yield card.name, _captioned(photo, card, exiftool, folder)
            except ImageError:
                yield card.name, photo
                yield from xmp_sidecars([(card.name, card.caption)])


def _photos(source: str, members: set[str]) -> Iterator[tuple[str, bytes]]:
    """An upload's photos: the bytes of a file, or of those in a zip."""
    if Path(source).suffix.lower() != ".zip":
        yield from ((member, Path(source).read_bytes()) for member in members)
        return
    for member, photo in ZippedPictures(source):
        if member in members:
            members.remove(member)
            yield member, photo
    if members:
        raise ArchiveError(f"{Path(source).name} does not hold {min(members)}: send it again.")


def _captioned(photo: bytes, card: Card, exiftool: ExifTool, folder: Path) -> bytes:
    before, after = folder / "before", folder / "after"
    before.write_bytes(photo)
    exiftool.embed(before, card.caption, after)
    return after.read_bytes()
