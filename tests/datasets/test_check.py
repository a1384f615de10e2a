"""The data check from run to run: what was whole is not read again, and nothing that changed passes unseen."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.datasets import check_dataset, load_dataset
from captioner.errors import DataError
from captioner.telling import Telling
from tests.datasets.test_datasets import cleaned, kinds, picture, table

ROOT = Path(__file__).parents[2]


def bytes_read():
    """How many bytes this process has read so far, by the operating system's count."""
    status = Path("/proc/self/io")
    if not status.exists():
        pytest.skip("only Linux counts what a process reads")
    return int(re.search(r"rchar: (\d+)", status.read_text())[1])


def noisy(path, seed):
    """A picture that takes some space."""
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_what_was_whole_is_not_read_again(tmp_path):
    """By the operating system's count of bytes; across two ways to name the folder, and for a part of the splits."""
    for number in range(40):
        noisy(tmp_path / f"{number}.png", number)
    rows = "".join(f"{number}.png,A dog.,{'train' if number % 2 else 'test'}\n" for number in range(40))
    dataset = table(tmp_path, "image,caption,split\n" + rows)
    size = sum(path.stat().st_size for path in tmp_path.glob("*.png"))
    verdicts, said = tmp_path / "verdicts", []
    before = bytes_read()
    assert check_dataset(dataset, verdicts=verdicts, telling=Telling(said.append, bars=False)) is dataset
    first = bytes_read() - before
    assert (first >= size, said) == (True, [])
    again = load_dataset(Path(os.path.relpath(tmp_path)))
    before = bytes_read()
    assert check_dataset(again, verdicts=verdicts, telling=Telling(said.append, bars=False)) is again
    assert bytes_read() - before < size / 4
    check_dataset(dataset, splits=["test"], verdicts=verdicts, telling=Telling(said.append, bars=False))
    check_dataset(
        dataset, verdicts=verdicts, telling=Telling(said.append, bars=False)
    )  # what that one had no use for is still kept
    assert [line.split()[0] for line in said] == ["40", "20", "40"]


@pytest.mark.parametrize("same_times", [False, True])
def test_a_file_that_changed_is_read_again(tmp_path, same_times):
    """Also where its size and the time of its content are as before, which a copy can bring about."""
    dataset = table(tmp_path, "image,caption\na.png,A.\nb.png,B.\n", pictures="a.png b.png")
    verdicts, said = tmp_path / "verdicts", []
    check_dataset(dataset, verdicts=verdicts)
    time.sleep(0.05)  # file systems count time in steps
    path = tmp_path / "a.png"
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    if same_times:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=r"unreadable picture: 1 \(a\.png\)"):
        check_dataset(dataset, verdicts=verdicts, telling=Telling(said.append, bars=False))
    assert [line.split()[0] for line in said] == ["1"]


def test_what_was_bad_is_looked_at_anew_and_copies_are_still_found(tmp_path):
    """A missing file that came since, a bad one that was put right; the same bytes in two splits, without reading."""
    dataset = table(tmp_path, "image,caption,split\na.png,A.,train\nb.png,B.,train\nc.png,C.,val\n")
    picture(tmp_path / "a.png", 1)
    (tmp_path / "c.png").write_bytes(b"no picture")
    verdicts = tmp_path / "verdicts"
    assert len(cleaned(dataset, verdicts=verdicts).problems) == 2
    picture(tmp_path / "b.png", 2)
    picture(tmp_path / "c.png", 1)
    for _ in range(2):
        clean = cleaned(dataset, verdicts=verdicts)
        assert kinds(clean) == {"same picture under two names in two splits": ["a.png (train) = c.png (val)"]}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a.png": 1}', '{"a.png": [1, 2, 3]}', "\udcff"])
def test_damaged_verdicts_are_none(tmp_path, content):
    dataset = table(tmp_path, "image,caption\na.png,A.\n", pictures="a.png")
    verdicts, said = tmp_path / "verdicts", []
    check_dataset(dataset, verdicts=verdicts)
    (file,) = verdicts.iterdir()
    file.write_bytes(content.encode(errors="surrogateescape"))
    assert check_dataset(dataset, verdicts=verdicts, telling=Telling(said.append, bars=False)) is dataset
    assert said == []
    check_dataset(dataset, verdicts=verdicts, telling=Telling(said.append, bars=False))
    assert len(said) == 1


def test_verdicts_that_cannot_be_kept_stop_nothing(tmp_path):
    dataset = table(tmp_path, "image,caption\na.png,A.\n", pictures="a.png")
    (tmp_path / "file").touch()
    assert check_dataset(dataset, verdicts=tmp_path / "file") is dataset


def test_a_check_that_is_stopped_keeps_what_it_has_done(tmp_path):
    """Ctrl-C after a part of the pictures: the process ends, and the next one reads only the others."""
    for number in range(600):
        noisy(tmp_path / f"{number}.png", number)
    dataset = table(tmp_path, "image,caption\n" + "".join(f"{number}.png,A dog.\n" for number in range(600)))
    verdicts, said = tmp_path / "verdicts", []
    code = (
        "import os, signal; from dataclasses import replace; from pathlib import Path\n"
        "from captioner.datasets import check_dataset, load_dataset\n"
        "class Stopping(type(Path())):\n"
        "    def read_bytes(self):\n"
        "        if self.name == '300.png': os.kill(os.getpid(), signal.SIGINT)\n"
        "        return super().read_bytes()\n"
        f"dataset = load_dataset({str(tmp_path)!r})\n"
        "images = tuple(replace(image, source=Stopping(image.source)) for image in dataset.images)\n"
        f"check_dataset(replace(dataset, images=images), verdicts=Path({str(verdicts)!r}))\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert process.returncode == -signal.SIGINT, process.stderr
    check_dataset(dataset, verdicts=verdicts, telling=Telling(said.append, bars=False))
    assert 1 <= int(said[0].split()[0]) < 600
