"""Every error this package raises on purpose.

    CaptionerError
    ├── OptionError       an option has a value it cannot have, or options do not go together
    ├── ImageError        a picture cannot be read
    ├── VideoError        a clip cannot be read, or not to its end
    ├── DataError         a data set cannot be recognised, or has problems
    ├── ModelFileError    a model file or a resume file cannot be used
    └── TrainingError     training cannot go on

A message says what was wrong, with the value, and what to do next, in one sentence that a user can act on. The
doors (`app.py`, `train.py`, the command line, the page) print it without a traceback.
"""


class CaptionerError(Exception):
    """The root: whatever can be explained to the user in one sentence."""


class OptionError(CaptionerError):
    """An option has a value it cannot have, or options do not go together."""


class ImageError(CaptionerError):
    """A picture cannot be read."""


class VideoError(CaptionerError):
    """A clip cannot be read, or not to its end."""


class DataError(CaptionerError):
    """A data set cannot be recognised, or has problems."""


class ModelFileError(CaptionerError):
    """A model file or a resume file cannot be used."""


class TrainingError(CaptionerError):
    """Training cannot go on."""
