"""`video`: clips in, one line a scene out, or subtitles."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from captioner.cli.parser import Commands, add_model
from captioner.cli.places import one_line
from captioner.errors import OptionError, VideoError
from captioner.options import SearchOptions, VideoOptions, add_arguments, given

if TYPE_CHECKING:
    from tqdm import tqdm

    from captioner.video import Scene

_FORMATS = ("text", "json", "vtt", "srt")
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


def add(commands: Commands) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("video", help="caption clips: one line a scene, or subtitles")
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="a video file: MP4, MOV, MKV, WebM, AVI, GIF ...")
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        default="text",
        help="text: path, start, end, caption, with tabs between (the default); json: one object a line, with "
        "probabilities and alternatives; vtt, srt: the subtitle file of one clip",
    )
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    add_model(parser)
    add_arguments(parser, VideoOptions)
    add_arguments(parser, SearchOptions, defaults=False)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Captions the clips; 1 where some could not be read, or not to their end."""
    if chosen.format in ("vtt", "srt") and len(chosen.clips) > 1:
        raise OptionError(
            f"--format {chosen.format} writes the subtitles of one clip, not of {len(chosen.clips)}: give one."
        )
    options = VideoOptions(**given(VideoOptions, chosen))
    from tqdm import tqdm

    from captioner.captioner import Captioner
    from captioner.video import caption_video

    captioner = Captioner.load(chosen.model, chosen.device, backend=chosen.backend, precision=chosen.precision)
    captioner = captioner.with_(search=captioner.search_with(**given(SearchOptions, chosen)))
    failed: list[str] = []
    for path in chosen.clips:
        with tqdm(total=100, desc=one_line(path), bar_format=_BAR, leave=False, disable=None) as bar:

            def progress(share: float, bar: "tqdm[NoReturn]" = bar) -> None:
                bar.update(round(100 * share) - bar.n)

            scenes = caption_video(path, captioner, options=options, progress=progress)
            for text in _texts(path, _readable(path, scenes, failed), chosen.format):
                with bar.external_write_mode(file=sys.stdout):
                    print(text, end="")
    sys.stdout.flush()
    return 1 if failed else 0


def _readable(path: str, scenes: "Iterator[Scene]", failed: list[str]) -> "Iterator[Scene]":
    """The scenes as far as the clip can be read; what is wrong with it goes to standard error, its path to `failed`."""
    try:
        yield from scenes
    except VideoError as error:
        print(error.told_with_flags(), file=sys.stderr)
        failed.append(path)


def _texts(path: str, scenes: "Iterator[Scene]", form: str) -> Iterator[str]:
    """What is printed, as soon as it can be."""
    from captioner.formats import timestamp, to_srt, to_webvtt
    from captioner.video import to_records

    if form in ("vtt", "srt"):
        if whole := list(scenes):
            yield to_webvtt(whole) if form == "vtt" else to_srt(whole)
        return
    for scene in scenes:
        if form == "json":
            yield json.dumps({"path": path, **to_records([scene])[0]}) + "\n"
        else:
            times = f"{timestamp(scene.start)}\t{timestamp(scene.end)}"
            yield f"{one_line(path)}\t{times}\t{scene.caption.text}\n"
