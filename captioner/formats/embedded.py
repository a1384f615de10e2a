"""A caption in a photo's own metadata: IPTC's Caption-Abstract, XMP's dc:description and the XMP alt text.

ExifTool (https://exiftool.org) writes it, which knows what cameras and editors leave there, and is kept running: its
start takes 110 ms, a photo 10. `sidecars` says why it is no library and not our own hand.

Promises: the coded picture and all other tags stay as they are (but for XMP's note of the last program that wrote it).
A photo is replaced when its successor lies whole on the disk beside it, or not at all. No name, caption or content of a
file can give ExifTool an order: it sees links of ours in a folder of ours, and the caption as a file. One thread at a
time.

    with ExifTool() as exiftool:
        if not exiftool.look("photo.jpg").description:
            exiftool.embed("photo.jpg", "A dog runs.", "captioned.jpg")
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.errors import ImageError, OptionError
from captioner.files import open_ordinary, printable
from captioner.formats.rows import writable

PATIENCE = 60.0
"""Seconds that ExifTool may take for one photo; a hostile one could keep it for ever."""

HOLDING = frozenset(
    {"APNG", "AVIF", "Extended WEBP", "GIF", "HEIC", "HEIF", "JP2", "JPEG", "JPX", "MPO", "PNG", "PSD", "TIFF", "WEBP"}
)
"""Kinds of pictures, in ExifTool's words, that hold XMP; BMP, TGA, PPM and the like have no place for it."""

_HOLDING_IPTC = frozenset({"JPEG", "MPO", "PSD", "TIFF"})

_DESCRIPTIONS = (
    "XMP-dc:Description",
    "XMP-iptcCore:AltTextAccessibility",
    "IPTC:Caption-Abstract",
    "IFD0:ImageDescription",
    "PNG:Description",
)
"""What counts as a description that is there already. We write the first three."""

# What cameras put into EXIF's ImageDescription by themselves, and nobody wrote.
_FACTORY = re.compile(r"(.* )?DIGITAL CAMERA|SONY DSC|DCIM[\\/].*|default|untitled", re.IGNORECASE)

_WEB = "https://exiftool.org"


@dataclass(frozen=True)
class Metadata:
    """What a photo says of itself."""

    description: str
    """The description that somebody gave it, or ""."""
    holds: bool
    """Whether its format has a place for a description."""
    kind: str
    """Its format, in ExifTool's words."""
    tags: dict[str, Any]
    """What else the writer must know."""


class ExifTool:
    """ExifTool, kept running until the end of a `with`, and started anew where a photo was its end."""

    def __init__(self) -> None:
        """Raises OptionError where ExifTool is missing, or too old to know the alt text."""
        program = shutil.which("exiftool")
        if program is None or shutil.which("sh") is None:
            raise OptionError(
                "ExifTool, which writes captions into photos, is not installed: get it with `apt install "
                f"libimage-exiftool-perl`, `brew install exiftool`, or from {_WEB}."
            )
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="captioner-exiftool-")
        try:
            if "AltTextAccessibility" not in " ".join(self._ask("-listw", "-XMP-iptcCore:all")).split():
                version = self._ask("-ver")[0]
                raise OptionError(f"ExifTool {version} is too old to know the alt text: get a newer one from {_WEB}.")
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "ExifTool":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._folder.cleanup()

    def look(self, photo: str | os.PathLike[str]) -> Metadata:
        """What a photo says of itself. Raises ImageError where it cannot be read."""
        open_ordinary(photo, "picture", ImageError).close()
        self._link("in", photo)
        wanted = [f"-{tag}*" for tag in _DESCRIPTIONS]  # in other languages too
        wanted += ["-FileType", "-IPTC:all", "-IPTCDigest", "-CurrentIPTCDigest"]
        lines = self._said(photo, "-j", "-G1", *wanted, "in")
        try:
            tags = json.loads("\n".join(lines[lines.index("[{") :]))[0]
        except ValueError:
            raise _unusable(photo, "read", lines) from None
        found = [str(tags[name]).strip() for start in _DESCRIPTIONS for name in tags if name.startswith(start)]
        written = [text for text in found if text and not _FACTORY.fullmatch(text)]
        kind = tags.get("File:FileType", "")
        return Metadata(next(iter(written), ""), kind in HOLDING or kind == "XMP", kind, tags)

    def embed(self, photo: str | os.PathLike[str], caption: str, target: str | os.PathLike[str] | None = None) -> None:
        """Writes a copy of a photo with the caption inside to `target`, or puts it in the photo's place.

        Descriptions that are there in the three places are replaced. `photo` may be an XMP sidecar, too. Where it is a
        link, the file that it leads to is replaced, which keeps its permissions, owner and extended attributes.

        Raises ImageError, and leaves everything as it was, where the photo cannot be read, may not be written to or
        has no place for a caption, and where the disk is full.
        """
        found = self.look(photo)
        if not found.holds:
            raise ImageError(
                printable(photo), f"is {found.kind or 'of a kind'}, which holds no captions", "write beside it instead"
            )
        source = Path(os.path.realpath(photo))
        place = source if target is None else Path(os.path.realpath(target))
        status = source.stat()
        if target is None and not (status.st_mode & 0o222 and os.access(source, os.W_OK)):
            raise ImageError(printable(photo), "may not be written to by this user", "change its permissions")
        part = place.parent / f".captioner-{secrets.token_hex(8)}.part"
        try:
            self._link("in", source)
            self._link("out", part)
            Path(self._folder.name, "caption").write_text(writable(caption), encoding="utf-8", newline="")
            lines = self._said(photo, "-o", "out", *_orders(found, caption), "in")
            if not any("1 image files created" in line for line in lines):
                raise _unusable(photo, "written to", lines)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            if target is None:
                _dress(part, source, status)
            part.replace(place)
        except OSError as error:
            raise ImageError(
                printable(photo), f"could not be written ({error.strerror or error})", "check its folder and the disk"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _link(self, name: str, place: str | os.PathLike[str]) -> None:
        link = Path(self._folder.name, name)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.realpath(place))

    def _said(self, photo: str | os.PathLike[str], *arguments: str) -> list[str]:
        """What ExifTool says to an order about a photo."""
        try:
            return self._ask(*arguments)
        except OSError as error:
            raise ImageError(
                printable(photo), f"was too much for ExifTool ({error})", "open it in an editor and save it anew"
            ) from error

    def _ask(self, *arguments: str) -> list[str]:
        """The lines that ExifTool says to an order. Raises OSError where that is its end, or takes too long."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        number = secrets.randbelow(10**9)  # no file can say it
        alarm = threading.Timer(PATIENCE, self._kill, [process])
        alarm.start()
        try:
            process.stdin.write("\n".join([*arguments, f"-execute{number}", ""]).encode())
            process.stdin.flush()
            lines = []
            while (line := process.stdout.readline().decode(errors="replace").rstrip("\r\n")) != f"{{ready{number}}}":
                if not line and process.poll() is not None:
                    raise OSError("it ended, or took too long")
                lines.append(line)
            return lines
        except BaseException:  # Ctrl-C too: it may be in the middle of a file
            self._end()
            raise
        finally:
            alarm.cancel()

    def _start(self) -> "subprocess.Popen[bytes]":
        """A new one, which knows no settings of the user's, gets no Ctrl-C of ours, and ends when we do, however."""
        # ExifTool waits for ever on a pipe that nobody writes to any more; the shell tells it that this is the end.
        script = "{ cat; printf '%s\\n' -stay_open False; } | exec \"$0\" -config '' -stay_open True -@ - 2>&1"
        return subprocess.Popen(
            ["sh", "-c", script, self._program],
            cwd=self._folder.name,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def _kill(self, process: "subprocess.Popen[bytes]") -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._kill(process)
            with process:  # closes its pipes
                pass


def _orders(found: Metadata, caption: str) -> list[str]:
    """What to write where: the caption, from the file of that name."""
    orders = ["-XMP-dc:Description<=caption", "-XMP-iptcCore:AltTextAccessibility<=caption"]
    if found.kind not in _HOLDING_IPTC:
        return orders
    iptc = {name for name in found.tags if name.startswith("IPTC:")}
    if not iptc:
        # Before 1991's standard knew of UTF-8 there was one alphabet a program; this record says which one it is in.
        orders.append("-IPTC:CodedCharacterSet=UTF8")
    elif found.tags.get("IPTC:CodedCharacterSet") != "UTF8" and not caption.isascii():
        return orders  # another alphabet for this record would spoil what stands in the others
    orders.append("-IPTC:Caption-Abstract<=caption")
    digest = found.tags.get("Photoshop:IPTCDigest")
    if digest and digest == found.tags.get("File:CurrentIPTCDigest"):
        # Whoever finds another digest than the noted one takes IPTC for newer than XMP (Metadata Working Group, 2010).
        orders.append("-Photoshop:IPTCDigest=new")
    return orders


def _dress(part: Path, source: Path, status: os.stat_result) -> None:
    """Gives the successor what the photo has besides its content; but it is new, for whoever makes copies."""
    with contextlib.suppress(OSError):  # only root can give files away
        os.chown(part, status.st_uid, status.st_gid)
    with contextlib.suppress(OSError):  # a file system may know less than the one before
        shutil.copystat(source, part)
    os.utime(part)


def _unusable(photo: str | os.PathLike[str], what: str, lines: list[str]) -> ImageError:
    """The error of what ExifTool said."""
    said = [match[1] for line in lines if (match := re.match(r"Error: (.*?)( - (in|out))?$", line))]
    reason = printable(said[0]) if said else "it does not say why"
    if reason.startswith(("Error writing", "Error creating")):
        return ImageError(printable(photo), f"could not be written ({reason})", "check its folder and the disk")
    return ImageError(
        printable(photo), f"cannot be {what} by ExifTool ({reason})", "open it in an editor and save it anew"
    )
