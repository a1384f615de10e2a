"""Any picture a user may have, as RGB pixels; and the one way those pixels become the encoder's input.

    photo -> read_image -> upright sRGB -> fit -> to_tensor -> normalise

Promises: whatever a path, bytes, a PIL image or an array holds, `read_image` answers with an upright RGB picture or
with one `ImageError` that says what is wrong and what to do next, and nothing else. Training, evaluation and serving
all go through `to_tensor` and `normalise`, with the numbers of the same `ImageOptions`.

`reading` opens files, `jpeg` and `tiff` know where those formats need care, `colours` makes sRGB of what was decoded,
`fitting` makes the encoder's square, `looking` decodes once for all who want the picture, `finding` lists a folder,
`shards` gets pictures out of tar files, here or at an address. None knows of networks, captions, data sets or the web.
"""

from captioner.pictures.finding import SUFFIXES, find_images
from captioner.pictures.fitting import Pixels, Window, fit, normalise, seen, square_pixels, to_tensor
from captioner.pictures.looking import Look, look
from captioner.pictures.reading import MAX_BYTES, MAX_PIXELS, ImageSource, read_image, read_sized

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "SUFFIXES",
    "ImageSource",
    "Look",
    "Pixels",
    "Window",
    "find_images",
    "fit",
    "look",
    "normalise",
    "read_image",
    "read_sized",
    "seen",
    "square_pixels",
    "to_tensor",
]
