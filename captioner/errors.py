"""Every error this package raises on purpose.

    CaptionerError
    ├── OptionError       an option has a value it cannot have, or options do not go together
    ├── ImageError        a picture cannot be read
    ├── ArchiveError      a zip of pictures, or an entry of it, cannot be used
    ├── VideoError        a clip cannot be read, or not to its end
    ├── DataError         a data set cannot be recognised, or has problems
    ├── ModelFileError    a model file or a resume file cannot be used
    ├── TrainingError     training cannot go on
    └── BusyError         too much is waiting already

A message says what was wrong, with the value, and what to do next, in one sentence that a user can act on. The
doors (`app.py`, `train.py`, the command line, the page) print it without a traceback.
"""


class CaptionerError(Exception):
    """The root: whatever can be explained to the user in one sentence."""


class OptionError(CaptionerError):
    """An option has a value it cannot have, or options do not go together."""


class ImageError(CaptionerError):
    """A picture cannot be read."""


class ArchiveError(CaptionerError):
    """A zip of pictures, or an entry of it, cannot be used."""


class VideoError(CaptionerError):
    """A clip cannot be read, or not to its end."""


class DataError(CaptionerError):
    """A data set cannot be recognised, or has problems."""


class ModelFileError(CaptionerError):
    """A model file or a resume file cannot be used."""


class TrainingError(CaptionerError):
    """Training cannot go on."""


class BusyError(CaptionerError):
    """Too much is waiting already."""
