"""Every error this package raises on purpose.

    CaptionerError
    ├── OptionError       an option has a value it cannot have, or options do not go together
    ├── ImageError        a picture cannot be read, or not written to
    ├── ArchiveError      a zip of pictures, or an entry of it, cannot be used
    ├── VideoError        a clip cannot be read, or not to its end
    ├── DataError         a data set cannot be recognised, or has problems
    ├── ModelFileError    a model file or a resume file cannot be used
    ├── TrainingError     training cannot go on
    ├── ClusterError      the cluster cannot be used, or lost what it needs
    ├── WritingError      a file cannot be written
    └── BusyError         too much is waiting already

A message says what was wrong, with the value, and what to do next, in one sentence that a user can act on. It is made
of parts, so that each door (`app.py`, `train.py`, the command line, the page, the API) can call the subject by the name
that its own users know: an option by its flag, an upload by its file's name. No door shows a traceback.
"""


class CaptionerError(Exception):
    """The root: whatever can be explained to the user in one sentence."""

    def __init__(self, *parts: str, field: str | None = None, flag: str | None = None) -> None:
        """The subject, what is wrong with it and, where something can be done, what; or the whole sentence alone.

        `field` is the option that it depends on, by its name in Python; `flag` the one on the command line, where it is
        another word.
        """
        super().__init__(*parts)
        self.subject, self.reason, self.remedy = ("", *parts, "") if len(parts) == 1 else (*parts, "")[:3]
        self.field = field
        self.flag = flag or (f"--{field.replace('_', '-')}" if field else None)

    def told(self, subject: str | None = None) -> str:
        """The sentence, about the same thing by another name; one without parts stays as it is."""
        if not self.subject:
            return self.reason
        remedy = f": {self.remedy}" if self.remedy else ""
        return f"{self.subject if subject is None else subject} {self.reason}{remedy}."

    def told_with_flags(self) -> str:
        """The sentence as the command line says it."""
        if self.flag is None:
            return str(self)
        return self.told(self.flag) if self.subject == self.field else f"{str(self).removesuffix('.')} ({self.flag})."

    def __str__(self) -> str:
        return self.told()


class OptionError(CaptionerError):
    """An option has a value it cannot have, or options do not go together."""


class ImageError(CaptionerError):
    """A picture cannot be read, or not written to."""


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


class ClusterError(CaptionerError):
    """The cluster cannot be used, or lost what it needs."""


class WritingError(CaptionerError, OSError):
    """A file cannot be written. An OSError too, with its number, for whoever expects that of a disk."""

    def __init__(self, subject: str, cause: OSError) -> None:
        reason = f"could not be written ({cause.strerror or cause})"
        super().__init__(subject, reason, "make room, or write elsewhere; what was there before is kept")
        self.errno, self.strerror = cause.errno, cause.strerror


class BusyError(CaptionerError):
    """Too much is waiting already."""
