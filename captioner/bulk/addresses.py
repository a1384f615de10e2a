"""Files at addresses (http, https, s3, gs and what else fsspec knows): listed, read, or copied to this machine.

fsspec does the work, with the package that a protocol needs beside it (aiohttp, s3fs, gcsfs); where that is missing, S3
and Google's storage are pyarrow's, which needs none. Local files are nobody's business here.
"""

import contextlib
import importlib
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from captioner.errors import CaptionerError, DataError, ImageError
from captioner.files import is_address

TRIES = 3
"""Times that an address is asked before it is given up."""

_PATIENCE = 1.0  # seconds before the second try, twice as many before the third
_PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
_PYARROW = ("s3", "gs", "gcs")


class Found(NamedTuple):
    """A file at an address."""

    address: str
    size: int | None
    """Bytes, where the listing says so."""
    modified: int | None
    """When it changed, in nanoseconds since 1970, where the listing says so."""


def has_pattern(path: str) -> bool:
    """Whether a name is a pattern, as a shell has them."""
    return any(sign in path for sign in "*?[")


def found(address: str) -> list[Found]:
    """The files below an address, or those that fit it where it has a pattern's * or ?, sorted.

    Raises DataError where it cannot be listed, as no web server can.
    """
    protocol = _protocol(address)
    if protocol in ("http", "https"):
        raise DataError(
            address, "is a folder or a pattern on a web server, which lists none", "name the files in a text file"
        )
    with _explained(address, DataError):
        system, path = _system(address)
        details = system.glob(path, detail=True) if has_pattern(path) else system.find(path, detail=True)
        files = [(name, entry) for name, entry in details.items() if entry.get("type") == "file"]
        return sorted(Found(_named(protocol, name), entry.get("size"), _modified(entry)) for name, entry in files)


def read(address: str, *, most: int) -> bytes:
    """The bytes of a picture at an address, `most` of them and one more at most. Raises ImageError."""
    with _explained(address, ImageError):
        return _patiently(lambda: _read(address, most))


def copy(address: str, path: Path) -> None:
    """Copies what is at an address into a file. Raises DataError."""
    with _explained(address, DataError):
        system, source = _system(address)
        _patiently(lambda: system.get_file(source, str(path)))


def _read(address: str, most: int) -> bytes:
    system, path = _system(address)
    # Of a web server in one request, as it comes: fsspec would ask for the size first, which is not needed here.
    how = {"block_size": 0, "size": 1} if _protocol(address) in ("http", "https") else {}
    with system.open(path, "rb", **how) as file:
        parts: list[bytes] = []
        left = most + 1
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


def _patiently(work: Any) -> Any:
    """What `work` returns, tried again after a failure that may pass."""
    for number in range(TRIES):
        try:
            return work()
        except (FileNotFoundError, PermissionError, ImportError, ValueError):
            raise
        except Exception:
            if number == TRIES - 1:
                raise
            time.sleep(_PATIENCE * 2**number)
    raise AssertionError


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, as fsspec has them, and the path in it."""
    core = importlib.import_module("fsspec.core")
    try:
        return core.url_to_fs(address)
    except ImportError:
        if _protocol(address) not in _PYARROW:
            raise
    systems = importlib.import_module("pyarrow.fs")
    wrapper = importlib.import_module("fsspec.implementations.arrow").ArrowFSWrapper
    system, path = systems.FileSystem.from_uri(re.sub("^gcs:", "gs:", address))
    return wrapper(system), path


@contextlib.contextmanager
def _explained(address: str, error: type[CaptionerError]) -> Iterator[None]:
    """Turns whatever a file system raises into one sentence of the class `error`."""
    try:
        yield
    except CaptionerError:
        raise
    except ImportError as reason:
        package = _PACKAGES.get(_protocol(address), "the package of its protocol")
        remedy = f"pip install fsspec {package}"
        raise error(address, f"needs a package that is not installed ({reason})", remedy) from reason
    except FileNotFoundError as reason:
        raise error(address, "does not exist", "check the address") from reason
    except PermissionError as reason:
        raise error(address, "may not be read", "check the credentials that its protocol takes") from reason
    except Exception as reason:  # each protocol's package has its own
        said = " ".join(str(reason).split())[:200] or type(reason).__name__
        raise error(address, f"could not be fetched ({said})", "check the address and the network") from reason


def _named(protocol: str, path: str) -> str:
    """The address of a path that a file system listed."""
    return path if is_address(path) else f"{protocol}://{path.lstrip('/') if protocol != 'file' else path}"


def _modified(entry: dict[str, Any]) -> int | None:
    """When a listed file changed; each protocol calls it by another name."""
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = entry.get(key)
        if isinstance(value, datetime):
            return round(value.timestamp() * 1000) * 10**6  # none has finer ones
        if isinstance(value, int | float):
            return round(value * 1000) * 10**6
    return None


def _protocol(address: str) -> str:
    return address.partition("://")[0].lower()
