"""captioner: a photo in, a sentence out.

    from captioner import Captioner

    captioner = Captioner.load()
    print(captioner("photo.jpg").text)

The names below are imported when they are first used, so that `import captioner` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioner.captioner import Captioner
    from captioner.captions import Caption, Word
    from captioner.errors import (
        ArchiveError,
        CaptionerError,
        DataError,
        ImageError,
        ModelFileError,
        OptionError,
        TrainingError,
        VideoError,
    )
    from captioner.options import SearchOptions

__version__ = "0.1.0"

_HOMES = {
    "Captioner": "captioner.captioner",
    "Caption": "captioner.captions",
    "Word": "captioner.captions",
    "SearchOptions": "captioner.options",
    "ArchiveError": "captioner.errors",
    "CaptionerError": "captioner.errors",
    "DataError": "captioner.errors",
    "ImageError": "captioner.errors",
    "ModelFileError": "captioner.errors",
    "OptionError": "captioner.errors",
    "TrainingError": "captioner.errors",
    "VideoError": "captioner.errors",
}

__all__ = [
    "ArchiveError",
    "Caption",
    "Captioner",
    "CaptionerError",
    "DataError",
    "ImageError",
    "ModelFileError",
    "OptionError",
    "SearchOptions",
    "TrainingError",
    "VideoError",
    "Word",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'captioner' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
