"""Clips that are drawn, for tests."""

from fractions import Fraction

import av
import numpy as np
from PIL import Image

RATE = 12
SIZE = (160, 96)


def scenery(number):
    """A picture unlike that of any other number: soft patches of colour, (96, 160, 3) uint8."""
    patches = np.random.default_rng(number).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize(SIZE, Image.Resampling.BICUBIC))


def moving(*seconds, rate=RATE):
    """The frames of a clip with a scenery for each of those lengths, all of it drifting to the side."""
    for number, length in enumerate(seconds):
        picture = scenery(number)
        for step in range(round(length * rate)):
            yield np.roll(picture, step, axis=1)


def write_clip(path, frames, *, codec="libx264", rate=RATE, times=None, form=None, container=None, options=None):
    """Writes frames (H, W, 3) as a clip; `times` are theirs in seconds, else one follows the other at `rate`."""
    fast = {"preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(str(path), "w", format=form, options=container or {}) as file:
        stream = None
        for number, pixels in enumerate(frames):
            if stream is None:
                stream = file.add_stream(codec, rate=rate, options=fast | (options or {}))
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
                if times is not None:
                    stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
