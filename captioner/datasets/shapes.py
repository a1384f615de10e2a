"""`shapes`: pictures drawn on the spot, with captions that say exactly what is in them. No download.

Each picture holds one to four coloured shapes in the cells of a 3 x 3 grid, jittered in place and size over a noisy
background; its one caption lists them row by row. It shows in minutes whether training works, and asks of a
decoder what real captions ask: say what, say where, and remember what has been said.
"""

import random

from PIL import Image, ImageDraw

from captioner.datasets.dataset import CaptionedImage, Dataset

COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (38, 84, 214),
    "yellow": (240, 200, 30),
    "purple": (140, 60, 180),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle")
CELLS = (
    "at the top left",
    "at the top",
    "at the top right",
    "on the left",
    "in the middle",
    "on the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)
SIZE = 72
"""Side of a picture in pixels."""
COUNTS = {"train": 4000, "val": 500, "test": 500}


def load_shapes(counts: dict[str, int] | None = None, *, seed: int = 0) -> Dataset:
    """The drawn data set: `counts` pictures in each split, the same ones for the same seed."""
    images = []
    for split, count in (counts or COUNTS).items():
        generator = random.Random(f"{seed} {split}")
        for number in range(count):
            picture, caption = draw(generator)
            name = f"{split}-{number:05d}.png"
            images.append(CaptionedImage(name, name, picture, (caption,), split))
    return Dataset("shapes", "shapes", tuple(images), notes=("drawn on the spot, the same ones every time",))


def draw(generator: random.Random) -> tuple[Image.Image, str]:
    """One picture, RGB of SIZE x SIZE, and its caption."""
    shade = generator.randrange(20, 110)
    levels = bytes(shade - 12 + level % 25 for level in range(256))
    noise = generator.randbytes(SIZE * SIZE).translate(levels)
    picture = Image.frombytes("L", (SIZE, SIZE), noise).convert("RGB")
    pen = ImageDraw.Draw(picture)
    phrases = []
    for cell in sorted(generator.sample(range(9), generator.randint(1, 4))):
        colour, shape = generator.choice(tuple(COLOURS)), generator.choice(SHAPES)
        _draw_shape(pen, shape, COLOURS[colour], cell, generator)
        phrases.append(f"a {colour} {shape} {CELLS[cell]}")
    return picture, " and ".join(phrases)


def _draw_shape(
    pen: ImageDraw.ImageDraw, shape: str, colour: tuple[int, int, int], cell: int, generator: random.Random
) -> None:
    side = SIZE // 3
    radius = generator.uniform(0.30, 0.44) * side
    x, y = (
        (cell % 3 + 0.5) * side + generator.uniform(-0.08, 0.08) * side,
        (cell // 3 + 0.5) * side + generator.uniform(-0.08, 0.08) * side,
    )
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)], fill=colour)
