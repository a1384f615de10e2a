"""Work done ahead of time in threads: pictures are read while the network works on those before them.

Threads, since Pillow lets others run while it decodes. Forked processes would keep a copy of every page of memory that
changes after the fork, and pictures would have to be copied from one to the other.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int
) -> Generator[Result, None, None]:
    """The results in the order of the items, by `workers` threads, at most `ahead` of them begun before their turn.

    What the function raises is raised at its item's turn. When the iterator is closed, work begun is finished, and
    nothing else begins.
    """
    pool = ThreadPoolExecutor(workers, "captioner reader")
    try:
        begun: deque[Future[Result]] = deque()
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
