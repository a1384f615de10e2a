"""The promises of captioner.datasets.shapes."""

import random

from captioner.datasets.shapes import COLOURS, SIZE, draw, load_shapes


def test_shapes_are_the_same_every_time_and_splits_differ():
    """The same drawings on every call, and no picture of one split in another."""
    one, two = load_shapes({"train": 30, "val": 30}), load_shapes({"train": 30, "val": 30})
    assert [image.captions for image in one.images] == [image.captions for image in two.images]
    drawn = {image.source.tobytes() for image in one.images}
    assert len(drawn) == 60


def test_a_drawing_holds_the_colours_its_caption_names():
    """The caption's colours, and no others, are in the picture."""
    generator = random.Random(3)
    for _ in range(30):
        picture, caption = draw(generator)
        assert picture.size == (SIZE, SIZE)
        pixels = set(picture.getdata() if not hasattr(picture, "get_flattened_data") else picture.get_flattened_data())
        assert {name for name, colour in COLOURS.items() if colour in pixels} == {
            name for name in COLOURS if name in caption.split()
        }
