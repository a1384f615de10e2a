"""The pictures in a folder, by the endings of their names."""

import os
from pathlib import Path

from captioner.errors import ImageError
from captioner.files import printable

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif", ".heic", ".heif", ".hif",
    ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi", ".tga", ".psd",
})  # fmt: skip
"""File name endings of pictures, in lower case."""


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The picture files (by SUFFIXES) in a folder and its subfolders, sorted.

    Hidden files and folders are skipped, and links to folders are not followed, so that none is visited twice; links
    to files count as files. Raises ImageError where the folder, or one in it, is missing or cannot be listed.
    """

    def refuse(error: OSError) -> None:
        # os.walk passes over such a folder by default, and nobody would miss its pictures.
        what = "is not a folder" if isinstance(error, FileNotFoundError | NotADirectoryError) else "cannot be listed"
        raise ImageError(
            f"{printable(error.filename)} {what} ({error.strerror}): give a folder that you may read."
        ) from error

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(place, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)
