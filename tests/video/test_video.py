"""The promises of captioner.video and of `python -m captioner video`, kept on clips that are drawn here."""

import contextlib
import gc
import http.server
import io
import itertools
import json
import os
import random
import re
import struct
import threading
import weakref
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captioner import Captioner, cli, pictures
from captioner.captions import Caption
from captioner.errors import CaptionerError, OptionError, VideoError
from captioner.options import VideoOptions
from captioner.video import (
    Moment,
    Scene,
    caption_video,
    find_shots,
    merge_repeats,
    open_clip,
    timestamp,
    to_records,
    to_srt,
    to_webvtt,
)
from captioner.video import clip as clip_module
from tests.video.clips import RATE, SIZE, moving, scenery, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Ten seconds with cuts at 2, 5 and 6.5."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving(2, 3, 1.5, 3.5))


def shots_of(path, **chosen):
    options = VideoOptions(**chosen)
    with open_clip(path, options) as opened:
        return [(round(shot.start, 2), round(shot.end, 2)) for shot in find_shots(opened.frames(), options)]


def moments(changes, *, rate=25.0, brightness=0):
    """Frames whose small copies differ from the one before by so much each; a picture is the frame's own time."""
    level = brightness
    for number, change in enumerate(changes):
        level = level + change if level + change <= 255 else level - change
        small = np.full((16, 16, 3), level, np.uint8)
        time = number / rate
        yield Moment(time, time + 1 / rate, small, lambda time=time: time)


def starts(changes, *, rate=25.0, **options):
    return [round(shot.start * rate) for shot in find_shots(moments(changes, rate=rate), VideoOptions(**options))]


# Where the scene changes


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("clip.mp4", "libx264", {}),
        ("clip.mov", "mpeg4", {"movflags": "faststart"}),
        ("clip.mkv", "libx264", {}),
        ("clip.webm", "libvpx", {}),
        ("clip.avi", "mpeg4", {}),
        ("clip.ts", "libx264", {}),
        ("clip.mpg", "mpeg2video", {}),
        ("clip.wmv", "wmv2", {}),
        ("clip.flv", "libx264", {}),
        ("clip.gif", "gif", {}),
    ],
)
def test_cuts_are_found_at_their_frame_and_nowhere_else(name, codec, container, tmp_path):
    """In every format that is promised, though everything moves; the last scene ends with the clip."""
    rate = 24 if name == "clip.mpg" else 10 if name == "clip.gif" else RATE  # MPEG-2 knows few rates, GIF hundredths
    path = write_clip(tmp_path / name, moving(2, 3, 1.5, 3.5, rate=rate), codec=codec, rate=rate, container=container)
    found = shots_of(path, longest=60)
    assert [start for start, _ in found] == pytest.approx([0, 2, 5, 6.5], abs=0.011)
    assert [end for _, end in found] == pytest.approx([2, 5, 6.5, 10], abs=0.5 / rate)


@given(
    cuts=st.lists(st.integers(26, 200), max_size=8),
    motion=st.integers(0, 4),
    seed=st.integers(0, 1000),
    rate=st.sampled_from([10.0, 25.0, 50.0]),
)
@settings(deadline=None, max_examples=60)
def test_shots_begin_at_the_cuts_and_leave_no_gap(cuts, motion, seed, rate):
    """Whatever the cuts, a shortest scene or more apart: each begins a shot, and a picture is from its own shot."""
    noise = random.Random(seed)
    levels, begins = [], []
    for number, length in enumerate([*cuts, 60]):
        begins.append(len(levels))
        level = 60 * (number % 2) + noise.randint(0, 30)
        levels += [level + noise.randint(0, motion) for _ in range(max(length, int(rate) + 1))]
    total = len(levels)
    changes = [0, *(after - before for before, after in itertools.pairwise(levels))]
    shots = list(find_shots(moments(changes, rate=rate, brightness=levels[0]), VideoOptions(longest=3600)))
    assert [round(shot.start * rate) for shot in shots] == begins
    assert shots[-1].end == pytest.approx(total / rate)
    for shot, following in itertools.pairwise(shots):
        assert shot.end == following.start
    for shot in shots:
        assert shot.start <= shot.picture < shot.end
        assert shot.picture == pytest.approx(shot.start + 0.5, abs=1.01 / rate)


@given(
    changes=st.lists(st.sampled_from([0, 0, 0, 0, 1, 5, 30, 90]), min_size=1, max_size=400),
    rate=st.sampled_from([1.0, 8.0, 30.0]),
    shortest=st.sampled_from([0.1, 0.5, 1.0, 2.5]),
    longer=st.sampled_from([0.0, 0.3, 4.0]),
)
@settings(deadline=None, max_examples=100)
def test_shots_cover_any_clip_once(changes, rate, shortest, longer):
    """However wild: the shots follow each other from start to end, and none is too short or goes unseen too long."""
    options = VideoOptions(shortest=shortest, longest=shortest + longer)
    shots = list(find_shots(moments(changes, rate=rate), options))
    assert shots[0].start == 0
    assert shots[-1].end == pytest.approx(len(changes) / rate)
    for shot, following in itertools.pairwise(shots):
        assert shot.end == following.start
    for shot in shots:
        assert shot.end - shot.start >= shortest - 0.0011 or len(shots) == 1
        # A look that a cut follows at once is forgotten, and so is a cut that the end follows at once.
        assert shot.end - shot.picture <= options.longest + 2 * shortest + 2.01 / rate
        assert shot.start <= shot.picture < shot.end


def test_a_camera_that_swings_is_no_cut():
    """Great changes in a row are motion; one as great that stands alone is a cut."""
    swing = [0] * 40 + [19, 20, 18, 22, 19, 17, 20, 21, 18, 19] + [0] * 40
    assert starts(swing) == [0]
    assert starts([0] * 40 + [22] + [0] * 40) == [0, 40]
    assert starts(swing + [50] + [0] * 40, longest=60) == [0, len(swing)]


def test_small_changes_are_no_cuts():
    """Grain and codecs make jumps of a few levels in pictures that stand still, each much greater than those around it."""
    assert starts(([0] * 30 + [9]) * 3, longest=60) == [0]


def test_a_cut_beside_another_does_not_hide_it():
    """Two cuts a quarter of a second apart are one new scene, seen after both."""
    changes = [0] * 50 + [60] + [0] * 5 + [60] + [0] * 50
    shots = list(find_shots(moments(changes), VideoOptions(longest=60)))
    assert [round(25 * shot.start) for shot in shots] == [0, 50]
    assert shots[1].picture >= 56 / 25


def test_a_flash_is_no_cut():
    """The picture is afterwards as it was before; where it is not, the flash hid a cut."""
    assert starts([1] * 50 + [80, -80] + [1] * 50, longest=60) == [0]
    assert starts([1] * 50 + [80, 0, 0, -80] + [1] * 50, longest=60) == [0]
    assert starts([1] * 50 + [80, -30] + [1] * 50, longest=60) == [0, 50]


def test_a_scene_too_short_joins_what_follows_and_at_the_end_what_was_before():
    """Captions that flicker by cannot be read."""
    changes = [0] * 50 + [60] + [0] * 17 + [60] + [0] * 50
    shots = list(find_shots(moments(changes), VideoOptions()))
    assert [round(25 * shot.start) for shot in shots] == [0, 50]
    assert shots[1].picture > 68 / 25
    assert starts(changes, shortest=0.5) == [0, 50, 68]
    in_a_row = list(find_shots(moments([0] * 20 + [60] + [0] * 8 + [60] + [0] * 50), VideoOptions()))
    assert [shot.start for shot in in_a_row] == [0]
    assert in_a_row[0].picture > 29 / 25
    assert starts([0] * 50 + [60] + [0] * 10) == [0]


def test_a_long_shot_is_looked_at_again():
    """Every `longest` seconds, and a cut soon after such a look takes its place."""
    assert starts([0] * 25 * 12) == [0, 125, 250]
    assert starts([0] * 25 * 12, longest=3) == [0, 75, 150, 225]
    assert starts([0] * 135 + [60] + [0] * 60) == [0, 135]
    assert starts([0] * 20 + [60] + [0] * 80, longest=1) == [0, 45, 70]  # counted from what the picture shows
    assert starts([0] * 25 * 5 + [0] * 20) == [0]  # the rest is too short for a scene of its own


def test_darkness_has_no_cuts(tmp_path):
    """Hues of black are noise: a fade to black must not look like changes (in HSV it does)."""
    noise = np.random.default_rng(0)
    frames = [
        np.clip(scenery(0) * max(0.0, 1 - step / 30) + noise.normal(0, 1, (96, 160, 3)), 0, 255).astype(np.uint8)
        for step in range(60)
    ]
    assert shots_of(write_clip(tmp_path / "fade.mp4", frames)) == [(0, 5)]


def test_frames_are_read_as_they_are_asked_for_and_not_kept():
    """A clip of any length takes the memory of a few frames."""
    alive = weakref.WeakSet()
    most = 0

    def watched():
        nonlocal most
        for moment in moments(([0] * 40 + [60]) * 100, rate=40.0):
            alive.add(moment)
            most = max(most, len(alive))
            yield moment

    shots = find_shots(watched())
    next(shots)
    assert most <= 4
    assert sum(1 for _ in shots) == 99
    assert most <= 4


def test_a_clip_is_read_as_scenes_are_asked_for(clip):
    """The first shot comes before the clip is through."""
    with open_clip(clip) as opened:
        next(find_shots(opened.frames()))
        assert 0 < opened.share < 0.8


def test_decoded_frames_do_not_pile_up(clip):
    """Not even until the next collection of garbage: a frame of a large clip has megabytes."""
    gc.collect()
    gc.disable()
    try:
        with open_clip(clip) as opened:
            for _ in find_shots(opened.frames(), VideoOptions(longest=1)):
                whole = (type(thing) is av.VideoFrame and thing.width == SIZE[0] for thing in gc.get_objects())
                assert sum(whole) <= 5  # the small copies are frames too
    finally:
        gc.enable()


def test_a_scene_of_the_shortest_length_is_one(tmp_path):
    """Whatever the ticks of the clock: a second that begins at 0.083333 is a second."""
    path = write_clip(tmp_path / "clip.ts", moving(1, 1, 1, 2, rate=24), rate=24)
    assert shots_of(path) == [(0, 1), (1, 2), (2, 3), (3, 5)]


def test_a_clip_may_be_left_in_the_middle(clip, captioner):
    """And asked too late it is an error: FFmpeg would crash."""
    with open_clip(clip) as opened:
        frames = opened.frames()
        first = next(frames)
    with pytest.raises(ValueError, match="is closed"):
        list(frames)
    assert first.picture().size == SIZE
    scenes = caption_video(clip, captioner)
    next(scenes)
    scenes.close()


# Time


@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_frames_of_unequal_length_keep_their_times(form, tmp_path):
    """Variable frame rate: times are the file's, not the number of the frame."""
    times = [0, 0.1, 0.2, 1.5, 3.0, 3.1, 3.2, 3.3, 5.9, 6.0, 6.1, 8.0]
    frames = [scenery(time >= 3) for time in times]
    path = write_clip(tmp_path / "clip", frames, times=times, form=form)
    with open_clip(path) as opened:
        assert [moment.time for moment in opened.frames()] == pytest.approx(times, abs=0.002)
    found = shots_of(path, longest=60)
    assert [start for start, _ in found] == [0, 3]
    assert found[-1][1] >= 8


@pytest.mark.parametrize(("form", "first"), [("mpegts", 1000.0), ("matroska", 90.0)])
def test_times_begin_at_0(form, first, tmp_path):
    """Where the file's clock began long before."""
    times = [first + number / RATE for number in range(6 * RATE)]
    path = write_clip(tmp_path / "clip", moving(2, 4), times=times, form=form)
    with av.open(str(path)) as raw:
        assert raw.start_time > 50e6
    assert shots_of(path) == [(0, 2), (2, 6)]


def test_a_clock_that_starts_anew_goes_on(tmp_path):
    """Two recordings joined, as cameras and `cat` do: the second follows the first."""
    first = write_clip(tmp_path / "a.ts", moving(3, 2))
    second = write_clip(tmp_path / "b.ts", moving(0, 0, 2, 3))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    with open_clip(joined) as opened:
        times = [moment.time for moment in opened.frames()]
    assert times == sorted(set(times))
    assert times[-1] == pytest.approx(10, abs=0.2)
    assert [start for start, _ in shots_of(joined)] == pytest.approx([0, 3, 5, 7], abs=0.1)


def test_a_clip_without_a_duration(clip, tmp_path):
    """As browsers record them: the share of the clip is told by its bytes."""
    live = write_clip(tmp_path / "live.mkv", moving(2, 3, 1.5, 3.5), container={"live": "1"})
    assert shots_of(live) == shots_of(clip)
    with open_clip(live) as opened:
        assert opened.duration is None
        shares = [opened.share for _ in opened.frames()]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert opened.damage is None


def test_one_frame_is_a_clip(tmp_path):
    """One scene, longer than nothing."""
    ((start, end),) = shots_of(write_clip(tmp_path / "one.mp4", [scenery(0)]))
    assert start == 0 < end


def test_the_last_picture_stands_until_the_sound_is_over(tmp_path):
    """As players show it."""
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as file:
        video, audio = file.add_stream("libx264", rate=RATE), add_sound(file)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        for pixels in moving(1):
            file.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(video.encode())
        write_sound(file, audio, 4)
    assert shots_of(path) == [(0, pytest.approx(4, abs=0.05))]
    with open_clip(path) as opened:
        list(opened.frames())
        assert opened.damage is None


def add_sound(file):
    return file.add_stream("aac", rate=8000, layout="mono")


def write_sound(file, audio, seconds):
    for second in range(seconds):
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 8000, 8000 * second
        file.mux(audio.encode(silence))
    file.mux(audio.encode())


# Pictures


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((1, 0, 0, 1), None),
        ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
        ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
        ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
        ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
        ((1, 0, 0, -1), Image.Transpose.FLIP_TOP_BOTTOM),
        ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
        ((0, -1, -1, 0), Image.Transpose.TRANSVERSE),
    ],
)
def test_pictures_are_upright(matrix, turned, tmp_path):
    """Turned and mirrored as the display matrix of the file says, which is how phones mark how they were held."""
    pixels = np.zeros((96, 160, 3), np.uint8)
    pixels[:48, :80], pixels[:48, 80:], pixels[48:, :80] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = write_clip(tmp_path / "phone.mp4", [pixels] * 3)
    data = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    picture = picture_of(path)
    expected = Image.fromarray(pixels)
    expected = expected if turned is None else expected.transpose(turned)
    assert picture.mode == "RGB"
    assert picture.size == expected.size
    assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).mean() < 6


def test_pixels_become_square_and_large_pictures_small(tmp_path):
    """A disc's wide pixels are drawn wide; with `at_least` the shorter side comes down to it, and never below."""
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(scenery(0), format="rgb24")))
        file.mux(stream.encode())
    assert picture_of(path).size == (160, 48)
    plain = write_clip(tmp_path / "plain.mp4", [scenery(0)])
    assert picture_of(plain).size == (160, 96)
    assert picture_of(plain, at_least=48).size == (80, 48)
    assert picture_of(plain, at_least=500).size == (160, 96)


def picture_of(path, **how):
    with open_clip(path) as opened:
        return next(opened.frames(**how)).picture()


# What is no clip, or only part of one


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty.mp4", b"", "is empty (0 bytes): fetch it again"),
        ("text.mp4", b"Dear diary, today I filmed nothing.\n" * 50, "is not a clip in a format known here"),
        ("page.mp4", b"<!doctype html><html><body>Not found</body></html>", "is not a clip in a format known here"),
        ("zeros.mp4", bytes(50_000), "is not a clip in a format known here"),
        ("head.mp4", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "is damaged or cut short"),
        ("list.mp4", b"\xef\xbb\xbf\n#EXTM3U\n#EXTINF:9,\nother.ts\n", "is a list of other files"),
        ("list.txt", b"ffconcat version 1.0\nfile other.mp4\n", "is a list of other files"),
    ],
)
def test_a_file_that_is_no_clip_is_one_sentence(name, data, said, tmp_path):
    """What it is, and what to do next."""
    path = tmp_path / name
    path.write_bytes(data)
    assert said in refusal(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_a_picture_is_no_clip(kind, tmp_path):
    """It is sent to the command for pictures, even where FFmpeg would play it."""
    path = tmp_path / "photo.mp4"
    Image.fromarray(scenery(0)).save(path, kind)
    assert "caption it as a photo" in refusal(path)


def test_paths_that_lead_to_no_file(tmp_path):
    """Missing, a folder, a pipe, forbidden, an address."""
    assert "does not exist" in refusal(tmp_path / "missing.mp4")
    assert "is a folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is a device or a pipe" in refusal(tmp_path / "pipe")
    assert "is a web address" in refusal("http://127.0.0.1/clip.mp4")
    assert "cannot be read" in refusal("zero\0byte")
    assert "\n" not in refusal(tmp_path / "two\nlines.mp4")


def test_sound_alone_is_no_clip(tmp_path):
    """Even with a cover, which a player would show."""
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as file:
        audio, cover = add_sound(file), file.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = *SIZE, "yuvj420p"
        cover.disposition = int(Disposition.attached_pic)
        file.mux(cover.encode(av.VideoFrame.from_ndarray(scenery(0), format="rgb24")))
        file.mux(cover.encode())
        write_sound(file, audio, 1)
    assert "has no moving pictures" in refusal(path)


def test_an_unknown_coding_is_named_as_such(clip, tmp_path):
    """A file in order, of a codec that FFmpeg does not have."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip.read_bytes().replace(b"avc1", b"zzz9").replace(b"avcC", b"zzzC"))
    assert "coded in a way that is not known here" in refusal(path)


def refusal(path, options=None):
    with pytest.raises(VideoError) as caught, open_clip(path, options) as opened:
        list(opened.frames())
    return str(caught.value)


@pytest.mark.parametrize("form", ["matroska", "mpegts", "mov", "avi", "flv"])
def test_a_clip_cut_short_loses_nothing_of_its_beginning(form, tmp_path):
    """Wherever it is cut: the frames that are there have their times, and what is missing is said."""
    codec = "mpeg4" if form == "avi" else "libx264"
    path = write_clip(
        tmp_path / "whole",
        moving(2, 3, 1.5, 3.5),
        form=form,
        codec=codec,
        container={"movflags": "faststart"} if form == "mov" else None,
        options={"g": "24"},
    )
    with open_clip(path) as opened:
        whole = [(moment.time, moment.small) for moment in opened.frames()]
        assert opened.damage is None
    data, part = path.read_bytes(), tmp_path / "part"
    for share in (0.45, 0.6, 0.75, 0.9):
        part.write_bytes(data[: int(share * len(data))])
        with open_clip(part) as opened:
            found = [(moment.time, moment.small) for moment in opened.frames()]
        assert len(found) > (share - 0.35) * len(whole)
        for (time, small), (expected, same) in zip(found, whole, strict=False):
            assert time == pytest.approx(expected, abs=1e-6)
            assert np.array_equal(small, same)
        if form in ("matroska", "mov", "flv"):  # the others only say how long they are by how long they are
            assert re.search(r"breaks off after [\d.]+ of 10\.\d seconds", str(opened.damage))


def test_a_clip_damaged_in_the_middle_goes_on_after_it(clip, tmp_path):
    """Frames that cannot be decoded are left out, and it is said."""
    data = bytearray(clip.read_bytes())
    middle = data.index(b"mdat") + len(data) // 3
    data[middle : middle + 2000] = bytes(2000)
    path = tmp_path / "scratched.mp4"
    path.write_bytes(data)
    with open_clip(path) as opened:
        times = [moment.time for moment in opened.frames()]
    assert "is damaged in places" in str(opened.damage)
    assert times[0] == 0
    assert times[-1] > 9.5


def test_a_disk_that_fails_is_a_clip_cut_short(tmp_path, monkeypatch):
    """What was read before is decoded to the last frame."""
    path = write_clip(tmp_path / "clip.mp4", moving(2, 3, 1.5, 3.5), container={"movflags": "faststart"})
    limit = int(0.7 * path.stat().st_size)

    class Failing(clip_module._File):
        def read(self, amount=-1, /):
            if self.tell() >= limit:
                raise OSError(5, "Input/output error")
            return super().read(min(amount, limit - self.tell()))

    with monkeypatch.context() as patched:
        patched.setattr(clip_module, "_File", Failing)
        with open_clip(path) as opened:
            times = [moment.time for moment in opened.frames()]
    assert "breaks off" in str(opened.damage)
    path.write_bytes(path.read_bytes()[:limit])
    with open_clip(path) as opened:
        rest = [moment.time for moment in opened.frames()]
    assert times[: len(rest)] == rest[: len(times)]
    assert abs(len(times) - len(rest)) <= 1  # the frame that was cut in two
    assert 2 < times[-1] < 9


def test_odd_places_and_names_in_a_file_are_borne(tmp_path, capfd):
    """A part that claims to end beyond all bounds, and a title in no encoding: the frames come, and nothing is printed."""
    path = write_clip(tmp_path / "clip.wmv", moving(1), codec="wmv2")
    data = bytearray(path.read_bytes())
    data[46:54] = (1 << 62).to_bytes(8, "little")  # the length of the first object in the header
    path.write_bytes(data)
    with open_clip(path) as opened:
        assert len(list(opened.frames())) == RATE
    named = tmp_path / "named.mkv"
    with av.open(str(named), "w") as file:
        file.metadata["title"] = "a title"
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(scenery(0), format="rgb24")))
        file.mux(stream.encode())
    named.write_bytes(named.read_bytes().replace(b"a title", b"\xff\xfe\xfd\xfctle"))
    assert len(shots_of(named)) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("form", ["mp4", "matroska", "mpegts", "avi", "gif"])
def test_bytes_turned_at_random_are_never_more_than_an_error(form, tmp_path):
    """No exception but VideoError, no crash, no time that goes back."""
    codec = {"avi": "mpeg4", "gif": "gif"}.get(form, "libx264")
    path = write_clip(tmp_path / "whole", moving(1, 1), form=form, codec=codec, rate=10)
    data = path.read_bytes()
    broken = tmp_path / "broken"
    for seed in range(12):
        chance, spoilt = random.Random(seed), bytearray(data)
        for _ in range(chance.choice((1, 10, 100))):
            spoilt[chance.randrange(len(spoilt) if seed % 2 else 600)] = chance.randrange(256)
        broken.write_bytes(spoilt)
        try:
            with open_clip(broken) as opened:
                shots = list(find_shots(opened.frames(at_least=20)))
        except VideoError:
            continue
        assert all(shot.start < shot.end for shot in shots)
        assert all(shot.picture.mode == "RGB" for shot in shots)


def test_huge_frames_are_refused_before_they_are_decoded(clip, monkeypatch):
    """Below the limit for photos, since a decoder holds many of them."""
    assert clip_module.MAX_PIXELS <= pictures.MAX_PIXELS
    monkeypatch.setattr(clip_module, "MAX_PIXELS", 160 * 96 - 1)
    assert "has frames of 160 x 96 pixels" in refusal(clip)


def test_frames_that_grow_huge_on_the_way_are_left_out(tmp_path, monkeypatch):
    """A clip may change its size; the decoder keeps to the limit too."""
    small = write_clip(tmp_path / "small.ts", moving(2))
    large = write_clip(tmp_path / "large.ts", (np.tile(pixels, (2, 2, 1)) for pixels in moving(2)))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with open_clip(joined) as opened:
        assert {moment.picture().size for moment in opened.frames()} == {(160, 96), (320, 192)}
    monkeypatch.setattr(clip_module, "MAX_PIXELS", 25_000)
    with open_clip(joined) as opened:
        assert {moment.picture().size for moment in opened.frames()} == {(160, 96)}
    assert "is damaged in places" in str(opened.damage)


def test_a_clip_longer_than_allowed_is_refused(clip, tmp_path):
    """At once where the header says so; else what is allowed is read first. The error names the option."""
    options = VideoOptions(max_minutes=0.1)
    with (
        pytest.raises(VideoError, match=r"lasts longer than the 0\.1 minutes allowed") as caught,
        open_clip(clip, options),
    ):
        pass
    assert caught.value.field == "max_minutes"
    live = write_clip(tmp_path / "live.mkv", moving(10), container={"live": "1"})
    with open_clip(live, options) as opened:
        assert [moment.time for moment in opened.frames()][-1] == pytest.approx(6, abs=0.1)
    assert "lasts longer than the 0.1 minutes allowed" in str(opened.damage)


# Nothing but the file is opened


@pytest.fixture
def server(clip):
    """An address where the clip is, and what was asked of it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(clip.read_bytes())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/clip.mp4", asked
        running.shutdown()
        thread.join()


def naming(target):
    """Files of the kinds that make FFmpeg open another, by their names."""
    return {
        "hls.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
        "concat.txt": f"ffconcat version 1.0\nfile '{target}'\n",
        "bare.ffconcat": f"file '{target}'\n",
        "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="urn:mpeg:'
        'dash:profile:isoff-live:2011"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        f'bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    }


def test_formats_off_the_list_stay_shut(tmp_path):
    """Even one that only plays: each is one more parser for a stranger's bytes."""
    path = write_clip(tmp_path / "clip.mp4", moving(1), form="nut", codec="ffv1")
    assert "is not a clip in a format known here" in refusal(path)


@pytest.mark.parametrize(
    ("lock", "name"),
    [
        ("format_whitelist", "hls.m3u8"),
        ("format_whitelist", "concat.txt"),
        ("protocol_whitelist", "hls.m3u8"),
        ("protocol_whitelist", "concat.txt"),
        ("io_open", "hls.m3u8"),
    ],
)
def test_each_lock_holds_alone(lock, name, server, clip, tmp_path, monkeypatch):
    """Without the other two and our own look at the first bytes; without all, the other file would play."""
    address, asked = server
    monkeypatch.chdir(tmp_path)
    Path("other.ts").write_bytes(write_clip(tmp_path / "own.ts", moving(1)).read_bytes())
    everything = dict(clip_module._LOCKS) | {"io_open": clip_module._refuse}
    monkeypatch.setattr(clip_module, "_no_clip", lambda start: None)
    for held, locks in ((False, {}), (True, {lock: everything[lock]})):
        monkeypatch.setattr(clip_module, "_refuse", locks.pop("io_open", None))
        monkeypatch.setattr(clip_module, "_LOCKS", locks)
        Path(name).write_text(naming("other.ts")[name])
        with pytest.raises(VideoError) if held else contextlib.nullcontext(), open_clip(name) as opened:
            assert len(list(opened.frames())) == RATE
        Path(name).write_text(naming(address)[name])
        with contextlib.suppress(VideoError), open_clip(name) as opened:
            list(opened.frames())
        assert asked == [] or not held
        asked.clear()


@pytest.mark.parametrize("name", naming(""))
@pytest.mark.parametrize("sniffed", [True, False])
def test_files_that_name_others_open_nothing(name, sniffed, server, clip, tmp_path, monkeypatch):
    """No address and no other file, by our own look at their first bytes or, without it, by what FFmpeg is allowed."""
    if not sniffed:
        monkeypatch.setattr(clip_module, "_no_clip", lambda start: None)
    address, asked = server
    monkeypatch.chdir(tmp_path)
    Path("other.mp4").write_bytes(clip.read_bytes())
    for target in (address, "other.mp4", tmp_path / "other.mp4"):
        for disguised in (name, "clip.mp4"):
            Path(disguised).write_text(naming(target)[name])
            with pytest.raises(VideoError), open_clip(disguised) as opened:
                list(opened.frames())
    assert asked == []


def test_a_name_is_never_an_address(clip, tmp_path, monkeypatch, server):
    """A file whose name looks like one of FFmpeg's protocols is that file; an address is nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("concat:clip.mp4", "http:clip.mp4", "crypto:clip.mp4", "pipe:0", "-", "clip\udcff.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert shots_of(name) == shots_of(clip)
    address, asked = server
    assert "is a web address" in refusal(address)
    assert asked == []


# Captions


def caption(text, probability=0.5):
    return Caption(text, -1.5, (), probability, (Caption("another", -2.5, (), 0.25),))


def scenes_of(texts, *, step=1.5):
    return [
        Scene(number * step, (number + 1) * step, caption(text, 1 / (2 + number % 3)), str(number).encode())
        for number, text in enumerate(texts)
    ]


@given(st.lists(st.sampled_from(["a dog", "a cat", "a man"]), max_size=30))
def test_neighbours_with_one_caption_become_one(texts):
    """No caption follows itself, nothing is lost or out of order, and the surest of those joined is kept."""
    scenes = scenes_of(texts)
    merged = list(merge_repeats(scenes))
    assert [scene.caption.text for scene in merged] == [text for text, _ in itertools.groupby(texts)]
    for scene in merged:
        parts = [part for part in scenes if scene.start <= part.start < scene.end]
        assert (scene.start, scene.end) == (parts[0].start, parts[-1].end)
        assert scene.caption.word_probability == max(part.caption.word_probability for part in parts)
        assert any((part.caption, part.thumbnail) == (scene.caption, scene.thumbnail) for part in parts)
    assert list(merge_repeats(merged)) == merged
    for scene, following in itertools.pairwise(merged):
        assert scene.end == following.start


@pytest.fixture(scope="module")
def captioner():
    """The real bundled model."""
    return Captioner.load("fast", "cpu")


def test_a_clip_gets_the_captions_of_its_pictures(clip, captioner):
    """The real model, from the file to the scenes: as if the pictures had been captioned one by one."""
    shares = []
    scenes = list(caption_video(clip, captioner, progress=shares.append))
    with open_clip(clip) as opened:
        shots = list(find_shots(opened.frames()))
    texts = [captioner(shot.picture).text for shot in shots]
    assert [scene.caption.text for scene in scenes] == [text for text, _ in itertools.groupby(texts)]
    assert (scenes[0].start, scenes[-1].end) == (0, 10)
    assert len({scene.caption.text for scene in scenes}) > 1
    for scene in scenes:
        assert len(scene.thumbnail) < 20_000
        thumbnail = Image.open(io.BytesIO(scene.thumbnail))
        assert max(thumbnail.size) <= 320
        shot = next(shot for shot in shots if scene.start <= shot.start < scene.end)
        if scene.end == shot.end:
            assert np.abs(np.asarray(thumbnail, int) - np.asarray(shot.picture.resize(thumbnail.size), int)).mean() < 4
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.2
    assert shares[-1] == 1
    assert len(shares) <= 101


@pytest.mark.parametrize("form", ["mp4", "mkv", "avi", "gif"])
def test_work_on_a_clip_can_be_ended_at_any_packet(captioner, tmp_path, form):
    """`check` is asked before each one, also where no picture comes of it and no hundredth of the clip has passed."""
    codec = {"gif": "gif", "avi": "mjpeg"}.get(form, "libx264")
    path = write_clip(tmp_path / f"clip.{form}", moving(4, 4), codec=codec)
    with av.open(str(path)) as file:
        packets = sum(1 for packet in file.demux(video=0) if packet.size)
    asked = []
    whole = list(caption_video(path, captioner, check=lambda: asked.append(1)))
    assert len(asked) >= packets
    for last in (1, packets // 2, packets - 1):
        asked.clear()

        def check(last=last):
            asked.append(1)
            if len(asked) >= last:
                raise VideoError("long enough")

        with pytest.raises(VideoError, match="long enough"):
            list(caption_video(path, captioner, check=check))
        assert len(asked) <= last + 3
    assert whole


def test_thumbnails_are_small(captioner, tmp_path):
    """Whatever the size of the clip: a few kilobytes a scene."""
    path = write_clip(tmp_path / "large.mp4", [np.tile(scenery(0), (8, 8, 1))] * 2)
    (scene,) = caption_video(path, captioner)
    assert Image.open(io.BytesIO(scene.thumbnail)).size == (320, 192)
    assert len(scene.thumbnail) < 50_000


def test_scenes_of_a_damaged_clip_come_before_the_error(tmp_path, captioner):
    """Nothing that could be captioned is lost, and nobody takes the rest for the whole."""
    data = write_clip(tmp_path / "clip.mkv", moving(2, 3, 1.5, 3.5)).read_bytes()
    (tmp_path / "clip.mkv").write_bytes(data[: int(0.6 * len(data))])
    scenes = caption_video(tmp_path / "clip.mkv", captioner)
    found = []
    with pytest.raises(VideoError, match="breaks off"):
        found.extend(scene for scene in scenes)  # list.extend keeps what came before the error
    assert found[0].start == 0
    assert 2 < found[-1].end < 9


def test_records_are_plain_values(captioner, clip):
    """For JSON: times in seconds, the caption, its probabilities and the alternatives."""
    scenes = scenes_of(["a dog", "a cat"], step=1 / 3)
    records = json.loads(json.dumps(to_records(scenes)))
    assert records[1] == {
        "start": 0.333,
        "end": 0.667,
        "caption": "a cat",
        "log_probability": -1.5,
        "word_probability": 0.3333,
        "alternatives": [{"caption": "another", "log_probability": -2.5, "word_probability": 0.25}],
    }


# The command


def call(capsys, *arguments):
    status = cli.main(["video", *map(str, arguments)])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_one_line_a_scene(clip, model, capsys):
    """Path, start, end and caption, with tabs between; standard output is data only; all good is 0."""
    status, out, err = call(capsys, clip, "--model", model)
    assert (status, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    scenes = list(caption_video(clip, Captioner.load(model)))
    assert rows == [[str(clip), timestamp(s.start), timestamp(s.end), s.caption.text] for s in scenes]
    assert rows[-1][2] == "00:00:10.000"


def test_json_and_subtitles(clip, model, capsys):
    """One JSON object a scene, or the whole subtitle file of one clip."""
    scenes = list(caption_video(clip, Captioner.load(model)))
    for flags in (["--json"], ["--format", "json"]):
        status, out, _ = call(capsys, clip, "--model", model, *flags)
        assert status == 0
        assert [json.loads(line) for line in out.splitlines()] == [
            {"path": str(clip), **record} for record in to_records(scenes)
        ]
    assert call(capsys, clip, "--model", model, "--format", "vtt")[1] == to_webvtt(scenes)
    assert call(capsys, clip, "--model", model, "--format", "srt")[1] == to_srt(scenes)


def test_a_bad_clip_is_named_skipped_and_status_1(clip, model, tmp_path, capsys):
    """The others get their captions all the same, and one cut short those of what is there."""
    (tmp_path / "no.mp4").write_text("no clip")
    data = write_clip(tmp_path / "cut.mkv", moving(2, 3)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: int(0.7 * len(data))])
    paths = [tmp_path / "no.mp4", tmp_path / "cut.mkv", tmp_path / "missing\n.mp4", clip]
    status, out, err = call(capsys, *paths, "--model", model)
    assert status == 1
    assert {line.split("\t")[0] for line in out.splitlines()} == {str(tmp_path / "cut.mkv"), str(clip)}
    assert len(err.splitlines()) == 3
    for part in ("no.mp4 is not a clip", "cut.mkv breaks off", "does not exist"):
        assert part in err
    assert "Traceback" not in err
    status, out, err = call(capsys, tmp_path / "no.mp4", "--model", model, "--format", "vtt")
    assert (status, out) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.mp4", "b.mp4", "--format", "vtt"], "--format vtt writes the subtitles of one clip, not of 2"),
        (["a.mp4", "--shortest-scene", "0"], "--shortest-scene is 0.0: it must be at least 0.1"),
        (["a.mp4", "--longest-gap", "0.5"], "--longest-gap is 0.5, less than the shortest scene, 1.0"),
        (["a.mp4", "--max-minutes", "nan"], "--max-minutes is nan"),
        (["a.mp4", "--beam-size", "0"], "--beam-size is 0"),
        (["a.mp4", "--model", "nowhere"], "no model file nowhere"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(arguments, said, model, capsys):
    """No traceback, and nothing on standard output."""
    status, out, err = call(capsys, *arguments, *([] if "--model" in arguments else ["--model", model]))
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_options_reach_the_scenes(clip, model, capsys):
    """A look every second gives no fewer scenes than one every minute; a limit refuses the clip."""
    few = call(capsys, clip, "--model", model, "--longest-gap", "60", "--json")[1].splitlines()
    many = call(capsys, clip, "--model", model, "--longest-gap", "1", "--json")[1].splitlines()
    assert 1 <= len(few) <= len(many)
    status, _, err = call(capsys, clip, "--model", model, "--max-minutes", "0.1")
    assert status == 1
    assert "lasts longer than the 0.1 minutes allowed: cut it, or allow more (--max-minutes)." in err


def test_errors_of_the_model_are_not_the_clips(clip, captioner):
    """What goes wrong in captioning is not told as damage of the clip."""
    with pytest.raises(CaptionerError) as caught:
        list(caption_video(clip, captioner, search=replace(captioner.search, rerank=0.5)))
    assert isinstance(caught.value, OptionError)
