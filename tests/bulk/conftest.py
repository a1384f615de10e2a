"""What the tests of bulk share."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray", reason="bulk needs ray: pip install -r requirements-cluster.txt")


def picture(number: int, form: str = "JPEG") -> bytes:
    """A small file, another one for each number."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (30 + number % 3, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


@pytest.fixture
def photos(tmp_path):
    """A folder of 50 pictures at two depths, one of which is none."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for number in range(49):
        (folder / ("deep" if number % 5 else "") / f"{number:02}.jpg").write_bytes(picture(number))
    (folder / "bad.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("nothing")
    return folder


@pytest.fixture
def shard(tmp_path):
    """A tar in WebDataset's layout: 20 samples of a picture and its text."""
    return write_tar(tmp_path / "shard-0.tar", range(20))


def write_tar(path, numbers):
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            for name, data in ((f"{number:04}.jpg", picture(number)), (f"{number:04}.txt", b"a dog")):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return path
