"""JPEG files that lack their end (ITU-T T.81).

Where the line is: a JPEG is whole when every block of every scan that its header promises is in the file. Then only the
end marker can be missing, which says nothing about the picture, and viewers show such a file without a word. Where as
little as the last bit of the last block is missing, pixels would have to be made up: a picture with a grey foot gets a
wrong caption in silence, so it stays refused, as a download that broke off should be.
"""

import io
import random
import re

from PIL import Image

_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_NEXT = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # behind the blocks of a scan: restart markers are inside
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


_RESTART = re.compile(rb"\xff([\xd0-\xd7])")


def completed(data: bytes) -> bytes | None:
    """The file with the end marker that it lacks, or None where it lacks a part of its picture too.

    The blocks are not counted, which takes a decoder. Instead the file is decoded with several endings: whoever needs
    nothing of them makes the same picture of all. May raise anything that decoding raises.
    """
    if not _has_all_scans(data):
        return None
    body = data.rstrip(b"\xff")
    restarts = _RESTART.findall(body)  # some may be of a thumbnail or of earlier scans: the last one counts
    following = restarts[-1][0] - 0xD0 + 1 if restarts else 0
    pictures = set()
    for tail in (b"", *(_made_up(first, following) for first in (0x00, 0xFE, 0x55))):
        with Image.open(io.BytesIO(body + tail + _END), formats=["JPEG"]) as image:
            pictures.add(image.tobytes())
        if len(pictures) > 1:
            return None
    return body + _END


def _made_up(first: int, restart: int) -> bytes:
    """Bytes that a decoder which wants more would take for blocks, with the restart markers from `restart` on."""
    chance = random.Random(first)
    marks = (b"\xff" + bytes([0xD0 + (restart + step) % 8]) for step in range(16))
    return b"".join(mark + bytes([first] * 8 + chance.choices(range(255), k=40)) for mark in (b"", *marks))


def _has_all_scans(data: bytes) -> bool:
    """Whether there is a scan, whole or not, for every coefficient of every component, down to its last bit."""
    missing: set[tuple[int, int]] = set()  # component, coefficient
    framed = progressive = False
    place = 2
    while found := _MARKER.search(data, place):
        marker, place = found[1][0], found.end()
        if marker in _ALONE:
            continue
        if marker == _END[1]:
            break
        length = int.from_bytes(data[place : place + 2], "big")
        segment = data[place + 2 : place + length]
        place += length
        if marker in _FRAMES and not framed:
            framed, progressive = True, marker in _PROGRESSIVE
            components = segment[6 : 6 + 3 * segment[5] : 3]
            missing = {(component, number) for component in components for number in range(64)}
        elif marker == 0xDA:
            count = segment[0]
            first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
            if not (progressive and bits & 15):
                done = range(first, last + 1) if progressive else range(64)
                missing -= {(component, number) for component in segment[1 : 1 + 2 * count : 2] for number in done}
            following = _NEXT.search(data, place)
            place = following.start() if following else len(data)
    return framed and not missing
