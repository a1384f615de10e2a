"""One file from an address, whatever the network does; what is there already is kept.

Promises: bytes that came once are not asked for again, after a dropped connection or a killed process, unless the
server cannot give a part of a file or the file changed meanwhile (its ETag or Last-Modified says so). A file that grows
is not given up; one that does not is, after a few attempts, with the reason.

Knows nothing of zips and checksums: what came is for the caller to check.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from captioner.download.sources import Archive
from captioner.errors import DataError
from captioner.files import write_atomically

_BUSY = frozenset({408, 425, 429, *range(500, 600)})  # a later request may be answered


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, in seconds, and how often to ask again while nothing more comes."""

    attempts: int = 6
    pause: float = 1.0
    longest: float = 600.0
    timeout: float = 30.0


class _Again(Exception):  # noqa: N818  # not an error of ours
    """A request that gave no whole file; the next one may. `wait`: seconds that the server asked for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


async def fetch(
    client: httpx.AsyncClient,
    archive: Archive,
    part: Path,
    *,
    patience: Patience,
    advance: Callable[[int], object],
    report: Callable[[str], object],
) -> None:
    """Makes `part` the whole file at the archive's address.

    `part` may hold its beginning, and a file beside it what to know about that. `advance` is told how many bytes came,
    in negative numbers how many were thrown away. Raises DataError where the file cannot be had, and OSError.
    """
    address = archive.address
    furthest, failures = length(part), 0
    while True:
        wait = None
        try:
            await _request(client, archive, part, advance)
            return
        except _Again as error:
            reason, wait = str(error), error.wait
        except httpx.TransportError as error:
            reason = _plain(error)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DataError(f"{address} cannot be fetched: {_plain(error)}.") from error
        # A server that always starts over makes no progress, however many bytes it sends.
        failures = 0 if length(part) > furthest else failures + 1
        furthest = max(furthest, length(part))
        if failures >= patience.attempts:
            raise DataError(
                f"{address} could not be fetched ({reason}; {failures} attempts without progress): check the network, "
                "and run the same command again, which continues."
            )
        if wait is None:
            wait = patience.pause * 2 ** max(0, failures - 1)
        if wait > patience.longest:
            raise DataError(
                f"{address} could not be fetched ({reason}; the server asks to wait for {wait / 60:,.0f} minutes): run "
                "the same command again after that, which continues."
            )
        report(f"{part.stem}: {reason}; asking again in {wait:.0f} s.")
        await asyncio.sleep(wait)


def length(file: Path) -> int:
    """The bytes of a file, 0 where there is none."""
    try:
        return file.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def is_whole(part: Path, archive: Archive) -> bool:
    """Whether all bytes came, as far as the archive or its server say how many there are."""
    size = archive.size if archive.size is not None else _read_state(part, archive.address).get("size")
    return size is not None and 0 < size == length(part)


def forget(part: Path) -> None:
    """Deletes what came, and what was noted of it."""
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)


async def _request(client: httpx.AsyncClient, archive: Archive, part: Path, advance: Callable[[int], object]) -> None:
    """Asks once for what is missing, and writes what comes."""
    if is_whole(part, archive):
        return
    address, size = archive.address, archive.size
    state, have = _read_state(part, address), length(part)
    known = size if size is not None else state.get("size")
    if not state or (known is not None and have > known):
        have = _start_over(part, advance)
    version = state.get("version")
    headers = {"Accept-Encoding": "identity"}  # the file's own bytes, to count and to check
    if have:
        headers["Range"] = f"bytes={have}-"
        if version and not version.startswith("W/"):  # RFC 9110, 13.1.5: a weak ETag does not go there
            headers["If-Range"] = version
    async with client.stream("GET", address, headers=headers) as response:
        if response.status_code == 416 and have:
            _start_over(part, advance)
            raise _Again("the server has no more of the file than there is here, so it starts over")
        total = _total(response, address, size)
        now = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if response.status_code == 206:
            if _content_range(response)[0] != have or (version and now and version != now):
                _start_over(part, advance)
                raise _Again("the server gives a part of another file, so it starts over")
        else:
            have = _start_over(part, advance)
        noted = json.dumps({"address": address, "size": total, "version": now})
        write_atomically(_state_file(part), lambda file: file.write_text(noted, encoding="utf-8"))
        with part.open("ab") as file:
            async for chunk in response.aiter_raw():
                have += len(chunk)
                if total is not None and have > total:
                    raise DataError(f"{address} gives more than its {total:,} bytes: {_OTHER}.")
                file.write(chunk)
                advance(len(chunk))
    if total is not None and have < total:
        raise _Again(f"the connection ended after {have:,} of {total:,} bytes")


_OTHER = "it is another file by now, or the network answers in its place (a login page, a proxy)"


def _total(response: httpx.Response, address: str, size: int | None) -> int | None:
    """The bytes of the whole file, where the answer or `size` says so; raises where this is not the file."""
    status = response.status_code
    said = f"the server answers {status} {response.reason_phrase}".strip()
    if status in _BUSY:
        raise _Again(said, _retry_after(response))
    if status not in (200, 206):
        raise DataError(f"{address} is not to be had ({said}): see whether it moved, on the page of the data set.")
    if status == 206:
        total = _content_range(response)[1]
    else:
        declared = response.headers.get("Content-Length", "")
        total = int(declared) if declared.isdecimal() else None
    if size is not None and total is not None and total != size:
        raise DataError(f"{address} should have {size:,} bytes, and its server says {total:,}: {_OTHER}.")
    return size if total is None else total


def _content_range(response: httpx.Response) -> tuple[int, int | None]:
    """Where the part that comes begins (-1: not said), and the bytes of the whole file (None: not said)."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not match:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait, from a header that gives them or a date (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _state_file(part: Path) -> Path:
    return part.with_suffix(".json")


def _read_state(part: Path, address: str) -> dict[str, Any]:
    """What was noted when the first bytes came; empty where nothing was, or for another address."""
    try:
        state = json.loads(_state_file(part).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) and state.get("address") == address else {}


def _start_over(part: Path, advance: Callable[[int], object]) -> int:
    advance(-length(part))
    part.unlink(missing_ok=True)
    return 0


def _plain(error: Exception) -> str:
    """An error of httpx in words; some of them have none of their own."""
    text = str(error).strip().rstrip(".")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{words}: {text}" if text else words
