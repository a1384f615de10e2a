"""The files of a run, and of a recipe's runs: every name once; and who may write them.

Whoever plans a run holds its folder until the run ends: another one is refused meanwhile. The hold is a lock that the
system takes back from a process that dies, so a killed run leaves nothing that stands in the way of the next one.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from captioner.card import read_header
from captioner.errors import ModelFileError, OptionError
from captioner.files import check_folder, remove_parts, take_lock
from captioner.telling import Telling

FEATURE_PARTS = ("*.f16*.part", "checked-*.json*.part")
"""What killed runs leave half-written in the folder of features."""

_LOCK = "lock"
_PARTS = (
    "*.safetensors*.part",
    "log.jsonl*.part",
    "resume.pt*.part",
    "preset.json*.part",
    "report.html*.part",
    ".tmp??????",
)
"""The same in their own folders; the last is safetensors', in earlier versions."""


class RunFolder:
    """Where one run lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"  # the model with the best validation score
        self.last = path / "last.safetensors"  # the model after the last epoch
        self.log = path / "log.jsonl"  # a line an epoch
        self.resume = path / "resume.pt"  # all that the run needs to go on
        self.report = path / "report.html"  # the run so far, to look at
        self.events = path / "tensorboard"  # the same as TensorBoard wants it, where that is installed

    @property
    def unsaved(self) -> bool:
        """A run began here, and was killed before it saved itself for the first time."""
        return self.path.is_dir() and not _kept(self.path)

    def check_new(self) -> None:
        """Raises OptionError where a new run could lose something."""
        if self.path.exists() and not self.unsaved:
            raise _taken(self.path, self.resume)

    def check_resumable(self) -> None:
        """Raises OptionError where there is no run to go on with."""
        if not self.resume.is_file():
            raise _missing(self.path, "nothing to resume", unsaved=self.unsaved)

    def has_models_of(self, epoch: int) -> bool:
        """What an epoch ends with is there: the last model is written last."""
        try:
            return bool(read_header(self.last)["provenance"]["epoch"] == epoch)
        except (ModelFileError, KeyError, TypeError):
            return False

    def clear(self) -> None:
        """Deletes what was written without a resume file to go on from."""
        for file in (self.best, self.last, self.log, self.report):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.events, ignore_errors=True)


class RecipeFolder:
    """Where the runs of a recipe live, and the model of each stage beside its folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "preset.json"  # what was started here
        self.rounded = self.model("rounded")  # the last stage's with 8-bit weights, until its search is chosen
        self.finished = self.model("captioner")  # ready to ship

    def run(self, name: str) -> RunFolder:
        """The run of that name."""
        return RunFolder(self.path / name)

    def model(self, name: str) -> Path:
        """The model of a run or stage that is done."""
        return self.path / f"{name}.safetensors"

    @property
    def unsaved(self) -> bool:
        """A recipe began here, and was killed before its first run saved itself for the first time."""
        return self.path.is_dir() and all(
            entry == self.record or RunFolder(entry).unsaved for entry in _kept(self.path)
        )

    def check_new(self) -> None:
        """Raises OptionError where a new recipe could lose something."""
        if self.path.exists() and not self.unsaved:
            raise _taken(self.path, self.record)

    def check_resumable(self) -> None:
        """Raises OptionError where there is no recipe to go on with."""
        if not self.record.is_file():
            raise _missing(self.path, "no preset to resume", unsaved=self.unsaved)


@contextlib.contextmanager
def held(path: Path, telling: Telling) -> Iterator[None]:
    """Keeps other runs out of a folder, which is made, until it is left or the process dies.

    Removes what killed runs left half-written. Raises OptionError where another run is in it, or where nothing can be
    written.
    """
    made = not path.exists()
    check_folder(path, "--output")
    lock = path / _LOCK
    with _opened(lock) as file:
        free = take_lock(file.fileno())
        if free is False or not _is_still(lock, file.fileno()):
            raise OptionError(f"Another run is at work in {path}: wait until it ends, or choose another --output.")
        if free is None:
            telling.say(f"This system locks no files: see to it yourself that no second run is started in {path}.")
        remove_parts(path, *_PARTS)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()
                if made and not any(path.iterdir()):
                    path.rmdir()


def _opened(lock: Path) -> IO[str]:
    try:
        return lock.open("a")
    except OSError as error:
        said = f"{lock} cannot be opened ({error.strerror}): delete it, or choose another --output."
        raise OptionError(said) from None


def _is_still(lock: Path, descriptor: int) -> bool:
    """Whether an open file is still there: who had the lock may have deleted it between our opening and locking it."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _kept(path: Path) -> list[Path]:
    """What is in a folder, but for the traces of a run that saved nothing."""
    return [
        entry for entry in path.iterdir() if entry.name != _LOCK and not any(fnmatch(entry.name, p) for p in _PARTS)
    ]


def _taken(path: Path, state: Path) -> OptionError:
    if state.is_file():
        return OptionError(f"{path} already holds a run: continue it with --resume, or choose another --output.")
    return OptionError(
        f"{path} already holds {_some(path)}, and no run to continue with --resume: choose another --output."
    )


def _missing(path: Path, what: str, *, unsaved: bool) -> OptionError:
    if path.is_dir() and not unsaved:
        return OptionError(f"There is {what} in {path}, which holds {_some(path)}: choose another --output.")
    return OptionError(f"There is {what} in {path}: start without --resume.")


def _some(path: Path) -> str:
    names = sorted(entry.name for entry in _kept(path)) if path.is_dir() else ["a file"]
    return ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")
