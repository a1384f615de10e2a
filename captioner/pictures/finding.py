"""The pictures in a folder, by the endings of their names."""

import os
from collections.abc import Callable
from pathlib import Path

from captioner.errors import ImageError
from captioner.files import printable

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif", ".heic", ".heif", ".hif",
    ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi", ".tga", ".psd",
})  # fmt: skip
"""File name endings of pictures, in lower case."""


def find_images(
    folder: str | os.PathLike[str], *, unreadable: Callable[[ImageError], object] | None = None
) -> list[Path]:
    """The picture files (by SUFFIXES) in a folder and its subfolders, sorted.

    Hidden files and folders are skipped, and links to folders are not followed, so that none is visited twice; links
    to files count as files. A folder in it that cannot be listed is told to `unreadable`, and the others are listed.

    Raises ImageError where the folder itself is missing or cannot be listed, and without `unreadable` for those in it.
    """

    def refuse(error: OSError) -> None:
        # os.walk passes over such a folder by default, and nobody would miss its pictures.
        what = "is not a folder" if isinstance(error, FileNotFoundError | NotADirectoryError) else "cannot be listed"
        refusal = ImageError(printable(error.filename), f"{what} ({error.strerror})", "give a folder that you may read")
        if unreadable is None or os.fspath(error.filename) == os.fspath(folder):
            raise refusal from error
        unreadable(refusal)

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(place, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)
