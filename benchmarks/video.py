"""How well are cuts found, how long does a minute of video take, and does memory stay level? Measured on a drawn clip.

    python -m benchmarks.video data/flickr8k/images [--minutes 1] [--repeats 10] [--model fast]

The clip is 1080p H.264 at 30 frames a second, made of photos from a folder: held by hand, moved, zoomed, sometimes
swung fast, with grain, something that moves in front and now and then a photographer's flash; mostly cuts, some
dissolves. The long clip is the same one `--repeats` times over, packet by packet. Each is captioned in a process of its
own, whose greatest resident memory is what is reported.
"""

import argparse
import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from benchmarks.measure import memory
from captioner.captioner import Captioner
from captioner.options import VideoOptions
from captioner.pictures import find_images, read_image
from captioner.video import caption_video, find_shots, open_clip

WIDTH, HEIGHT, RATE = 1920, 1080, 30


def draw(path: Path, photos: list[Path], minutes: float, seed: int) -> tuple[list[float], list[float]]:
    """Writes the clip; returns the times of its cuts and of the middles of its dissolves."""
    chance = random.Random(seed)
    grain = np.random.default_rng(seed).normal(0, 4, (16, HEIGHT, WIDTH, 1)).astype(np.int8)
    cuts: list[float] = []
    dissolves: list[float] = []
    frames, before = 0, np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        while frames < 60 * RATE * minutes:
            dissolve = frames > 0 and chance.random() < 0.15
            length = round(RATE * chance.uniform(2, 8))
            if frames:
                (dissolves if dissolve else cuts).append((frames + 10 * dissolve) / RATE)
            flash = chance.randrange(length) if chance.random() < 0.1 else -1
            for number, picture in enumerate(_shot(chance, photos, length)):
                if dissolve and number < 20:
                    picture = np.asarray(Image.blend(Image.fromarray(before), Image.fromarray(picture), number / 20))
                noisy = picture.astype(np.int16) + grain[chance.randrange(16)] + 90 * (number == flash)
                pixels = np.clip(noisy, 0, 255).astype(np.uint8)
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                    file.mux(packet)
            frames, before = frames + length, picture
        for packet in stream.encode():
            file.mux(packet)
    return cuts, dissolves


def _shot(chance: random.Random, photos: list[Path], length: int) -> Iterator[np.ndarray]:
    """The frames of a shot: a photo through a window that wanders, trembles, zooms and may swing."""
    photo = read_image(chance.choice(photos)).resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC)
    x, y, scale = chance.uniform(200, 900), chance.uniform(100, 500), chance.uniform(1.2, 1.5)
    speed_x, speed_y, zoom = chance.uniform(-3, 3), chance.uniform(-2, 2), chance.uniform(0.999, 1.001)
    swing = chance.randrange(length) if chance.random() < 0.2 else length
    colour = (chance.randrange(256), chance.randrange(256), 90)
    place, pace = chance.uniform(0, WIDTH), chance.uniform(-25, 25)
    for number in range(length):
        fast = 25 if swing <= number < swing + 10 else 1
        scale = min(scale * zoom, 1.8)
        x = min(max(x + fast * speed_x + chance.gauss(0, 2), 0), 2 * WIDTH - scale * WIDTH)
        y = min(max(y + fast * speed_y + chance.gauss(0, 2), 0), 2 * HEIGHT - scale * HEIGHT)
        box = (int(x), int(y), int(x + scale * WIDTH), int(y + scale * HEIGHT))
        picture = photo.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=box)
        place = (place + pace) % WIDTH
        picture.paste(colour, (int(place), 500, int(place) + 220, 1000))
        yield np.asarray(picture)


def repeat(source: Path, target: Path, times: int) -> None:
    """Writes the clip so many times over, without coding it anew."""
    with av.open(str(target), "w") as file:
        stream = None
        for turn in range(times):
            with av.open(str(source)) as clip:
                video = clip.streams.video[0]
                stream = stream or file.add_stream_from_template(video)
                for packet in clip.demux(video):
                    if packet.dts is not None:
                        packet.pts += turn * video.duration
                        packet.dts += turn * video.duration
                        packet.stream = stream
                        file.mux(packet)


def measure(path: Path, model: str, results: "multiprocessing.Queue[tuple[float, float, int, float]]") -> None:
    """Seconds to find the shots, seconds to caption the scenes too, how many scenes, and the peak of memory in MB."""
    captioner = Captioner.load(model)
    captioner(Image.new("RGB", (64, 64)))  # what happens once
    started = time.perf_counter()
    with open_clip(path) as clip:
        for _ in find_shots(clip.frames(at_least=captioner.image.enough)):
            pass
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    scenes = sum(1 for _ in caption_video(path, captioner))
    peak = memory(torch.device("cpu"))
    results.put((seconds, time.perf_counter() - started, scenes, peak))


def main() -> None:
    """Prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip, long = Path(folder, "clip.mp4"), Path(folder, "long.mp4")
        cuts, dissolves = draw(clip, find_images(chosen.photos), chosen.minutes, chosen.seed)
        with open_clip(clip) as opened:  # no second looks: what begins is a cut
            found = [shot.start for shot in find_shots(opened.frames(), VideoOptions(longest=3600))][1:]
        frame = 1 / RATE
        hits = [cut for cut in cuts if any(abs(cut - start) < frame / 2 for start in found)]
        false = [start for start in found if all(abs(cut - start) >= frame / 2 for cut in cuts)]
        print(f"{len(hits)} of {len(cuts)} cuts found at their frame, {len(false)} found where there is none")
        print(f"(and {len(dissolves)} dissolves, which are not meant to be found)")
        repeat(clip, long, chosen.repeats)
        context = multiprocessing.get_context("spawn")
        for path in (clip, long):
            with open_clip(path) as opened:
                minutes = (opened.duration or 0) / 60
            results: multiprocessing.Queue[tuple[float, float, int, float]] = context.Queue()
            process = context.Process(target=measure, args=(path, chosen.model, results))
            process.start()
            shots, whole, scenes, peak = results.get()
            process.join()
            print(f"{minutes:.1f} minutes, {scenes} scenes: peak of memory {peak:.0f} MB; a minute of video takes")
            print(f"  {shots / minutes:.1f} s to find its shots, {whole / minutes:.1f} s with the captions")


if __name__ == "__main__":
    main()
