"""A video file as frames, each with its time: the one place where FFmpeg, through PyAV, meets a stranger's bytes.

Promises: a clip is read as one local file and nothing else is opened, whatever it or its name says; a file that is no
clip, or one that is not allowed, is one `VideoError` that says what is wrong and what to do next. A damaged clip gives
every frame that can be decoded, and `Clip.damage` says afterwards what is missing. Times begin at 0 and rise, whatever
the file's own clock does.

Knows nothing of scenes and captions. Colours are taken as they are: the bright tones of HDR clips come out pale.
"""

import contextlib
import errno
import io
import math
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, NoReturn

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from PIL import Image

from captioner import pictures
from captioner.errors import VideoError
from captioner.files import explained, open_ordinary, printable
from captioner.options import VideoOptions

MAX_PIXELS = 40_000_000
"""A clip with bigger frames is refused. 8K has 33 million; a decoder holds a dozen frames and more, so that the pixels
allowed for one photo (`pictures.MAX_PIXELS`) would be gigabytes here, which a file of a few kilobytes can claim."""

SMALL = 16
"""Side of the small copies by which frames are compared, in pixels."""

# FFmpeg's names for the formats that people keep clips in: MP4, MOV and 3GP are "mov", MKV and WebM "matroska", MPEG
# "mpeg" and "mpegts", WMV "asf". All others stay shut, above all those that name further files or addresses to be
# opened (HLS and DASH playlists, concat scripts, image sequences, SDP) and those that read devices.
_LOCKS = {"format_whitelist": "mov,matroska,avi,mpegts,mpeg,asf,flv,ogg,gif", "protocol_whitelist": "none"}

_KNOWN = "MP4, MOV, MKV, WebM, AVI, MPEG, WMV, FLV, Ogg or GIF"

_DAMAGED = ("is damaged or cut short, so that nothing of it can be shown", "fetch it again")

_FORGIVEN = 1.0
"""Seconds that a clip may end before the length its header gives, or go back in time, before it means something."""

# The display matrix (ISO/IEC 14496-12, 6.2.2) maps x, y to a*x + c*y, b*x + d*y, with y downwards: signs of a, b, c, d.
_UPRIGHT = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Moment:
    """A frame of a clip."""

    time: float
    """Seconds from the clip's start."""
    end: float
    """When the next frame follows or, after the last one, the clip ends."""
    small: np.ndarray
    """The frame as (SMALL, SMALL, 3) uint8, for comparing; not turned upright."""
    picture: Callable[[], Image.Image]
    """Makes the frame's picture: RGB, upright, pixels square."""


@contextlib.contextmanager
def open_clip(
    path: str | os.PathLike[str], options: VideoOptions | None = None, *, check: Callable[[], object] | None = None
) -> Iterator["Clip"]:
    """The clip at a path, open for as long as the context lasts.

    `check` is called before each packet of the clip, and each piece of its file; what it raises ends the reading,
    however little of the clip has been shown by then.

    Raises VideoError where the path leads to no file, or the file is no clip, has no video, is longer than
    `options.max_minutes` or has frames of more than MAX_PIXELS.
    """
    name = printable(path)
    with _File(open_ordinary(path, "clip", VideoError)) as file:
        file.check = check
        with explained(path, "clip", VideoError):
            start = file.read(64)
        if not start:
            raise VideoError(name, "is empty (0 bytes)", "fetch it again")
        file.seek(0)
        if found := _no_clip(start):
            raise VideoError(name, *found)
        try:
            # A file object, not a name: FFmpeg has nothing to take for an address. What the file itself may name is
            # shut out three times: by the list of formats, by a list of protocols with none on it, and by `_refuse`.
            container = av.open(
                file,
                "r",
                container_options=_LOCKS,
                options={"max_pixels": str(pictures.MAX_PIXELS)},  # for what is decoded while opening
                metadata_errors="ignore",
                io_open=_refuse,
            )
        except Exception as error:  # FFmpegError, and whatever else reading goes wrong with
            unknown = (f"is not a clip in a format known here ({_KNOWN})", "save it as MP4")
            raise VideoError(name, *(_DAMAGED if _is_clip(start) else unknown)) from error
        with container:
            clip = Clip(container, file, name, options or VideoOptions())
            clip.check = check
            try:
                yield clip
            finally:
                clip.closed = True


class Clip:
    """An open clip; `open_clip` makes it."""

    name: str
    duration: float | None
    """Seconds, as the header says, or None where it does not."""
    damage: VideoError | None = None
    """What could not be read; to be asked when there are no more frames."""
    share: float = 0.0
    """How much of the clip has been read, 0..1: by time or, where the header gives no duration, by bytes."""

    closed: bool = False
    check: Callable[[], object] | None = None

    def __init__(self, container: Any, file: BinaryIO, name: str, options: VideoOptions) -> None:
        self.name = name
        self._container, self._file = container, file
        self._limit = 60 * options.max_minutes
        reason = f"lasts longer than the {options.max_minutes:g} minutes allowed"
        self._too_long = VideoError(name, reason, "cut it, or allow more", field="max_minutes")
        videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not videos:
            raise VideoError(name, "has no moving pictures, only sound or a cover", "give a clip that has")
        self._stream = videos[0]
        decoder = self._stream.codec_context
        if decoder is None:
            raise VideoError(name, "is coded in a way that is not known here", "save it as MP4 with H.264 first")
        if decoder.width * decoder.height > MAX_PIXELS:
            size = f"{decoder.width} x {decoder.height} pixels"
            reason = f"has frames of {size}, more than the {MAX_PIXELS // 10**6} million allowed"
            raise VideoError(name, reason, "save a smaller copy")
        decoder.options = {"max_pixels": str(MAX_PIXELS)}  # a clip may change its size on the way
        decoder.thread_type = "AUTO"
        self.duration = container.duration / av.time_base if container.duration and container.duration > 0 else None
        if self.duration is not None and self.duration > self._limit:
            raise self._too_long
        # Pixels of old cameras and discs are not square.
        self._aspect = float(self._stream.sample_aspect_ratio or 1)
        self._turn: Image.Transpose | None = None
        self._start = (container.start_time or 0) / av.time_base
        self._reached = 0.0  # where the packets that were read end, of all streams, seconds from the start
        self._lost = False
        self._size = os.fstat(file.fileno()).st_size
        self._reformatter = VideoReformatter()

    def frames(self, *, at_least: int | None = None) -> Iterator[Moment]:
        """The frames in order, one at a time; `damage` says afterwards what was missing.

        With `at_least`, the pictures of larger frames come smaller, their shorter side at that many pixels. Raises
        VideoError where not a single frame can be decoded.
        """
        waiting: tuple[float, np.ndarray, Callable[[], Image.Image]] | None = None
        end = 0.0
        for time, until, frame, small in self._timed():
            if waiting:
                yield Moment(waiting[0], time, *waiting[1:])
            waiting, end = (time, small, partial(self._picture, frame, at_least)), until
        if not waiting:
            raise VideoError(self.name, *_DAMAGED)
        if not self.damage and self.duration:
            end = max(end, self.duration)  # the last picture stands until the sound is over
        self.share = 1.0
        yield Moment(waiting[0], end, *waiting[1:])

    def _timed(self) -> Iterator[tuple[float, float, av.VideoFrame, np.ndarray]]:
        """Each frame with the time it comes, the time it has gone, and its small copy."""
        usual = 1 / float(self._stream.average_rate or 25)
        last, end, shift = -math.inf, 0.0, -self._start
        for frame in self._decoded():
            base = frame.time_base or self._stream.time_base
            time = end if frame.pts is None or not base else max(float(frame.pts * base) + shift, 0.0)
            if time < last - _FORGIVEN:  # the clock starts anew, as where two recordings were joined
                shift += end - time
                time = end
            if time <= last:  # out of order, or twice
                continue
            if time >= self._limit:
                self.damage = self._too_long
                return
            length = frame.duration * base if frame.duration and base else usual
            last, end = time, time + float(length)
            if self.duration:
                self.share = min(1.0, end / self.duration)
            else:
                self.share = self._file.tell() / self._size
            try:
                small = self._reformatter.reformat(frame, SMALL, SMALL, "rgb24", interpolation="AREA", threads=1)
            except av.FFmpegError:  # pixels in a layout that cannot be converted
                self._lost = True
                continue
            yield time, end, frame, small.to_ndarray()
        self._reached = max(self._reached, end)
        if self.duration and self._reached < self.duration - _FORGIVEN:
            reason = f"breaks off after {self._reached:.1f} of {self.duration:.1f} seconds"
            self.damage = VideoError(self.name, reason, "what comes before can be shown; fetch it again for the rest")
        elif self._lost:
            remedy = "what could be decoded can be shown; fetch it again for the rest"
            self.damage = VideoError(self.name, "is damaged in places", remedy)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Whatever frames the decoder makes of the packets, damaged ones left out."""
        seen = False
        for packet in self._packets():
            try:
                frames = self._stream.decode(packet)
            except Exception:  # as in `_packets`
                # Before the first frame it is no damage: a recording may begin in the middle of a group of pictures.
                self._lost |= seen
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._lost |= seen
                    continue
                if not seen:  # once: asked for its side data, a frame stays in memory until the garbage is collected
                    self._turn = _turn(frame)
                seen = True
                yield frame

    def _packets(self) -> Iterator["av.Packet[Any] | None"]:
        """The packets of the video, and at the end one that makes the decoder give what it still holds."""
        packets = self._container.demux()
        while True:
            if self.check:
                self.check()
            if self.closed:  # reading on would bring the whole process down
                raise ValueError(f"{self.name} is closed: read its frames inside of open_clip.")
            try:
                packet = next(packets)
            except StopIteration:
                return
            except Exception:  # FFmpegError where the format's structure is damaged, OSError, and PyAV's own slips
                if self.check:  # which may have ended it in the middle
                    self.check()
                self._lost = True
                yield None
                return
            if packet.pts is not None and packet.time_base:
                until = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self._start
                self._reached = max(self._reached, until)
            if packet.stream is self._stream:
                yield packet

    def _picture(self, frame: av.VideoFrame, at_least: int | None) -> Image.Image:
        # One side shrinks to make the pixels square: then no file can ask for more of them than it has.
        width, height = frame.width * min(1.0, self._aspect), frame.height / max(1.0, self._aspect)
        shrink = max(1.0, min(width, height) / at_least) if at_least else 1.0
        picture: Image.Image = frame.to_image(  # type: ignore[no-untyped-call]
            width=max(1, round(width / shrink)), height=max(1, round(height / shrink)), interpolation="AREA"
        )
        return picture if self._turn is None else picture.transpose(self._turn)


def _turn(frame: av.VideoFrame) -> Image.Transpose | None:
    """How a frame's picture becomes upright, by its display matrix; None where it is, or where it is tilted."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    return _UPRIGHT.get(((a > 0) - (a < 0), (b > 0) - (b < 0), (c > 0) - (c < 0), (d > 0) - (d < 0)))


class _File(io.BufferedReader):
    check: Callable[[], object] | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file does, unless `check` raises: the way to the next packet may be long."""
        if self.check:
            self.check()
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Answers a place that is not there as FFmpeg understands it; PyAV would print the exception."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return -errno.EINVAL


def _no_clip(start: bytes) -> tuple[str, str] | None:
    """What a file is that begins so, if it is something else that FFmpeg would make a clip of."""
    if (
        start.startswith((b"\xff\xd8\xff", b"\x89PNG", b"II*\x00", b"MM\x00*"))
        or (start.startswith(b"RIFF") and start[8:12] == b"WEBP")
        or (start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif"))
    ):
        return "is a picture, not a clip", "caption it as a photo"
    if start.lstrip(b"\xef\xbb\xbf\r\n\t ").startswith((b"#EXTM3U", b"ffconcat")):
        return "is a list of other files, not a clip", "give the clips themselves"
    return None


def _is_clip(start: bytes) -> bool:
    """Whether a file that begins so means to be a clip."""
    boxes = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    signatures = (b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"GIF8", b"0&\xb2u", b"\x00\x00\x01\xba")
    return start[4:8] in boxes or start[8:12] == b"AVI " or start.startswith(signatures)


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:  # noqa: ARG001 - PyAV's io_open
    raise PermissionError(f"a clip may not open {url}")
