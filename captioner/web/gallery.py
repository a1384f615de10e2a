"""The gallery that albums and clips fill: pictures with captions that can be edited in place (page.js draws it)."""

import secrets
from pathlib import Path

import gradio as gr


def build_gallery(elem_id: str) -> gr.HTML:
    """An empty gallery; its value is a list of {"name", "path", "caption", ...}."""
    return gr.HTML(
        [],
        html_template="<ol class='gallery'></ol>",
        js_on_load="captioner.gallery(element, props, watch)",
        elem_id=elem_id,
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
