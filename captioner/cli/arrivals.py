"""Pictures that arrive in folders: whole ones, once each."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence

from captioner.errors import ImageError

LOOKS = 1.0
"""Seconds between two looks at the folders."""


def arrivals(
    folders: Sequence[str], failed: Collection[str], tell: Callable[[ImageError], object], *, looks: float = LOOKS
) -> Iterator[list[str]]:
    """What is whole in the folders at each look and was not given before, sorted; for ever.

    A file is whole when its size and time of change are what they were at the look before. One that is in `failed` is
    given again when it has changed: it may have been half of a slow copy. What is wrong with a folder is told once.
    """
    from captioner.pictures import find_images

    given: dict[str, tuple[int, int]] = {}
    before: dict[str, tuple[int, int]] = {}
    told: set[str] = set()

    def tell_once(error: ImageError) -> None:
        if str(error) not in told:
            told.add(str(error))
            tell(error)

    while True:
        now = {}
        for folder in folders:
            try:
                paths = find_images(folder, unreadable=tell_once)
            except ImageError as error:  # the whole folder is gone, and may come back
                tell_once(error)
                continue
            for path in paths:
                try:
                    status = path.stat()
                except OSError:  # gone since
                    continue
                now[str(path)] = status.st_size, status.st_mtime_ns
        new = {path for path, state in now.items() if path not in given or (path in failed and given[path] != state)}
        whole = sorted(path for path in new if now[path][0] and before.get(path) == now[path])
        given |= {path: now[path] for path in whole}
        before = now
        if whole:
            yield whole
        time.sleep(looks)
