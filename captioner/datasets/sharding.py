"""Writes a data set as tar shards with their index; and the index of shards that have none."""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import IO, cast

from PIL.Image import Image

from captioner.datasets.check import check_dataset
from captioner.datasets.dataset import UNREADABLE, CaptionedImage, Dataset
from captioner.datasets.shards import finished, list_samples
from captioner.errors import ImageError, OptionError
from captioner.files import explained, write_atomically
from captioner.formats.rows import SPLITS, Problem
from captioner.formats.shards import INDEX, Sample, index_line
from captioner.pictures import SUFFIXES, read_image
from captioner.pictures.shards import Copies, Packed, Shard, fetch
from captioner.telling import OUT, Telling

_SPARE = 1 << 28  # bytes left free on the disk


def write_shards(dataset: Dataset, folder: Path, *, size: int, telling: Telling = OUT) -> int:
    """Writes a new folder of tar shards of about `size` bytes, each of one split, and their index; how many there are.

    The pictures' files stay as they are, drawn ones become PNG. Their order is that of a hash of their names: mixed,
    and the same every time, as is every byte. The folder is there whole or not at all.

    Raises OptionError where it is there already or the disk too small, ImageError for a picture that cannot be read,
    and WritingError.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OptionError(f"{folder} is there already: name a new folder, or delete that one.")
    need = sum(_size(image) for image in dataset.images)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if need + _SPARE > (free := shutil.disk_usage(folder.parent).free):
        raise OptionError(
            f"The shards take {need / 1e9:.1f} GB, and {folder.parent} has {free / 1e9:.1f} GB free: "
            "name a larger disk."
        )
    count = written = 0

    def write(part: Path) -> None:
        nonlocal count, written
        part.mkdir()
        with (part / INDEX).open("w", encoding="utf-8") as index, telling.bar(len(dataset.images), "picture") as bar:
            for split in SPLITS:
                images = sorted((image for image in dataset.images if image.split == split), key=_place)
                for number, some in enumerate(_pieces(images, size)):
                    name = f"{split}-{number:05d}.tar"
                    with (part / name).open("wb") as file:
                        samples = _write_shard(file, some, first=written)
                        index.write(index_line(name, file.tell(), samples))
                    count, written = count + 1, written + len(some)
                    bar.update(len(some))

    write_atomically(folder, write)
    return count


def _place(image: CaptionedImage) -> tuple[bytes, str]:
    return hashlib.sha1(image.name.encode(errors="surrogatepass"), usedforsecurity=False).digest(), image.name


def _size(image: CaptionedImage) -> int:
    source = image.source
    if isinstance(source, Packed):
        return source.size
    if isinstance(source, Image):
        return source.width * source.height * 3
    with explained(source, "picture", ImageError):
        return source.stat().st_size


def _pieces(images: Sequence[CaptionedImage], size: int) -> Iterator[list[CaptionedImage]]:
    """The images of each shard: at least one, and no more when it has grown to `size` bytes."""
    piece: list[CaptionedImage] = []
    grown = 0
    for image in images:
        piece.append(image)
        grown += _size(image)
        if grown >= size:
            yield piece
            piece, grown = [], 0
    if piece:
        yield piece


def _write_shard(file: IO[bytes], images: Iterable[CaptionedImage], *, first: int) -> list[Sample]:
    """Writes a shard whose samples are numbered from `first` on."""
    samples = []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, image in enumerate(images, first):
            data, ending = _content(image)
            offset = file.tell() + tarfile.BLOCKSIZE  # behind the picture's header
            _write(tar, f"{number:09d}{ending}", data)
            fields = {"image": image.name, "image_id": image.image_id, "captions": image.captions, "split": image.split}
            fields |= {"captions_by": image.author} if image.author else {}
            _write(tar, f"{number:09d}.json", json.dumps(fields).encode())
            samples.append(_sample(image, offset, len(data), _digest(data)))
    return samples


def _write(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _content(image: CaptionedImage) -> tuple[bytes, str]:
    """A picture's file and the ending of its name."""
    source = image.source
    if isinstance(source, Image):
        buffer = io.BytesIO()
        source.save(buffer, "PNG")
        return buffer.getvalue(), ".png"
    ending = Path(image.name).suffix.lower()
    if isinstance(source, Packed):
        return source.read(), ending if ending in SUFFIXES else ".jpg"
    with explained(source, "picture", ImageError):
        return source.read_bytes(), source.suffix.lower() if source.suffix.lower() in SUFFIXES else ".jpg"


def write_index(addresses: Sequence[str], file: Path, *, skip_bad: bool = False, telling: Telling = OUT) -> Dataset:
    """Fetches shards once, one after the other, reads every picture, and writes their index; the data set of it.

    Raises ImageError for what cannot be fetched, DataError as `check_dataset` does, and WritingError.
    """
    found: list[CaptionedImage | Problem] = []
    copies = Copies()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, telling.bar(len(addresses), "shard", "reading") as bar:
        for some in pool.map(lambda address: _survey(address, copies), addresses):
            found += some
            bar.update(1)
    data = check_dataset(finished(str(file), found, f"{len(addresses):,} shards"), skip_bad=skip_bad, telling=telling)
    lines = [
        index_line(shard.address, shard.size, [_sample(image, of.offset, of.size, of.digest) for image, of in some])
        for shard, some in groupby(
            ((image, cast(Packed, image.source)) for image in data.images), lambda pair: pair[1].shard
        )
    ]
    write_atomically(file, lambda part: part.write_text("".join(lines), encoding="utf-8"))
    return data


def _survey(address: str, copies: Copies) -> list[CaptionedImage | Problem]:
    """What a shard at an address holds, every picture of it read."""
    with tempfile.TemporaryFile() as copy:
        fetch(address, copy)
        shard = Shard(address, copy.tell(), copies)
        copy.seek(0)
        found = list(list_samples(shard, copy))
        return [one if isinstance(one, Problem) else _examined(one, copy) for one in found]


def _examined(image: CaptionedImage, copy: IO[bytes]) -> CaptionedImage | Problem:
    """The picture, read from a copy of its shard, with the hash of its bytes; or what is wrong with it."""
    source = cast(Packed, image.source)
    copy.seek(source.offset)
    data = copy.read(source.size)
    try:
        read_image(data, at_least=1)
    except ImageError:
        return Problem(UNREADABLE, source.told)
    return replace(image, source=replace(source, digest=_digest(data)))


def _digest(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _sample(image: CaptionedImage, offset: int, size: int, digest: str) -> Sample:
    known = (image.name, image.image_id, image.split, image.author, image.captions)
    return Sample(offset, size, digest, *known)
