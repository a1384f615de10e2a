"""How long the data check takes at COCO's counts: 123,287 pictures, the first time and when nothing has changed.

    python -m benchmarks.data_check PHOTOS [--pictures 123287] [--side 128] [--folder FOLDER]

The pictures are small copies of those in PHOTOS, each a file of its own with bytes of its own (a comment with its
number); `--side 640` makes them as large as COCO's. They are made in a temporary folder, and deleted.
"""

import argparse
import io
import os
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import measure
from captioner.datasets import CaptionedImage, Dataset, check_dataset
from captioner.pictures import find_images, read_image
from captioner.telling import SILENT


def make_pictures(photos: Path, folder: Path, *, count: int, side: int) -> tuple[CaptionedImage, ...]:
    """Writes the copies, and answers with the pictures of a data set."""
    sources = find_images(photos)[:200]
    encoded = []
    for source in sources:
        picture = read_image(source)
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    images = []
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:012}.jpg"
        path.parent.mkdir(exist_ok=True)
        data = encoded[number % len(encoded)]
        # A comment (T.81, B.2.4.5) after the start of the image.
        path.write_bytes(data[:2] + b"\xff\xfe\x00\x0e" + f"{number:012}".encode() + data[2:])
        images.append(CaptionedImage(path.name, number, path, ("A dog.",), "train"))
    return tuple(images)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--pictures", type=int, default=123_287)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument(
        "--folder", type=Path, help="where the copies are made (default: the system's temporary folder)"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        images = make_pictures(chosen.photos, folder, count=chosen.pictures, side=chosen.side)
        size = sum(image.source.stat().st_size for image in images if isinstance(image.source, Path))
        dataset = Dataset("copies", name, images)
        print(f"{len(images):,} pictures, {size / 1e9:.2f} GB, {os.cpu_count()} cores\n")
        print("| | time | processor time | a second | most memory so far |\n|---|---|---|---|---|")
        for what, verdicts in (
            ("nothing kept", None),
            ("kept for the first time", folder),
            ("nothing changed", folder),
        ):
            started, used = time.perf_counter(), time.process_time()
            check_dataset(dataset, verdicts=verdicts, telling=SILENT)
            seconds, used = time.perf_counter() - started, time.process_time() - used
            memory = measure.memory(torch.device("cpu")) * 1e6 / 2**30
            rate = len(images) / seconds
            print(f"| {what} | {seconds:.1f} s | {used:.1f} s | {rate:,.0f} | {memory:.2f} GiB |", flush=True)
        kept = sum(path.stat().st_size for path in folder.glob("checked-*.json"))
        print(f"\nWhat is kept takes {kept / 1e6:.1f} MB.")


if __name__ == "__main__":
    main()
