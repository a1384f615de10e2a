"""Where albums and clips show their pictures, with captions that can be edited in place: album.js and scenes.js."""

import secrets
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import BaseModel, Field

MOST = 2000
"""Most captions of a gallery: more make a page that a phone cannot hold; the command line has no such limit."""


class Card(BaseModel):
    """A picture of a gallery with its caption, as the page shows it and, edited perhaps, sends it back."""

    name: str = Field(max_length=4096)
    path: str = ""
    """Where its small picture lies, for the page alone."""
    caption: str = Field(default="", max_length=10_000)
    probability: float | None = None
    """How sure the model is of its words, 0..1; None where a person wrote them."""
    alternatives: list[str] = Field(default=[], max_length=100)
    unsure: bool | None = None
    """The caption may well be wrong, by the model's own threshold; None without one."""
    error: str | None = None
    """Why there is no caption."""
    id: str = ""
    """Of a photo of an album: no other has it."""
    source: str = ""
    """The upload that the photo came from, as the server calls it."""
    member: str = Field(default="", max_length=4096)
    """What the photo is called there, which is its name in a zip."""
    file: str | None = None
    """The clip that it is a scene of."""
    start: float = Field(default=0.0, ge=0, le=1e7)
    """Of a scene, in seconds."""
    end: float = Field(default=0.0, ge=0, le=1e7)

    @property
    def text(self) -> str:
        """What the scene's subtitle says."""
        return self.caption


def build_gallery(elem_id: str, title: str, content: str, script: str, **props: Any) -> gr.HTML:
    """An empty gallery; its value is a list of cards, as plain values.

    `content` is the HTML between its title and its pictures; `script` the function that brings it to life, which finds
    `props` beside the value.
    """
    heading = f"{elem_id}-title"
    return gr.HTML(
        [],
        html_template=(
            f"<section aria-labelledby='{heading}' hidden><h2 id='{heading}'>{title}</h2>{content}"
            "<ol class='gallery'></ol></section>"
        ),
        js_on_load=f"captioner.{script}(element, props, watch)",
        elem_id=elem_id,
        elem_classes="result",
        **props,
    )


def keep_picture(gallery: gr.HTML, jpeg: bytes) -> str:
    """A picture as a file that the page may show; Gradio deletes it within the hour, like uploads.

    Each is a file of its own. Gradio's own helpers name files by their content: two alike would be one file, which is
    written while it is read, and deleted with the first of its visitors.
    """
    path = Path(gallery.GRADIO_CACHE, secrets.token_hex(16), "picture.jpg")
    path.parent.mkdir(parents=True)
    path.write_bytes(jpeg)
    gallery.temp_files.add(str(path))
    return str(path)
