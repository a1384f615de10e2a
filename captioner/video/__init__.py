"""A clip in, a timeline out: a picture from every scene, its caption, and the whole as subtitles.

    from captioner import Captioner
    from captioner.video import caption_video, to_webvtt

    scenes = list(caption_video("clip.mp4", Captioner.load()))
    print(to_webvtt(scenes))

`clip` reads the file, `shots` finds where the scene changes, `scenes` captions what was found; `formats.subtitles`
writes it down.
"""

from captioner.formats.subtitles import timestamp, to_srt, to_webvtt
from captioner.video.clip import Clip, Moment, open_clip
from captioner.video.scenes import Scene, caption_video, merge_repeats, to_records
from captioner.video.shots import Shot, find_shots

__all__ = [
    "Clip",
    "Moment",
    "Scene",
    "Shot",
    "caption_video",
    "find_shots",
    "merge_repeats",
    "open_clip",
    "timestamp",
    "to_records",
    "to_srt",
    "to_webvtt",
]
