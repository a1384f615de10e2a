"""The pipeline without Ray: the same stages in this process, and whatever a cluster may do to what they hand on."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow.parquet as parquet

from captioner.bulk.engine import Share
from captioner.bulk.reading import read
from captioner.bulk.run import Job, run
from captioner.bulk.worker import Worker


class Died(BaseException):
    """The driver is killed: nothing of it runs any more."""


class LocalEngine:
    """An engine that hands each table on `times` times, loses some, and dies when it is told to."""

    def __init__(self, *, times=1, loses=lambda path: False, dies_after=None):
        self.times, self.loses, self.dies_after = times, loses, dies_after
        self.asked: list[list[int]] = []
        self.starts = 0

    @contextmanager
    def start(self) -> Iterator["LocalEngine"]:
        self.starts += 1
        yield self

    def share(self, device, most):  # noqa: ARG002
        return Share("cpu", 1, {}, 1, {})

    def keep(self, content):
        return content

    def captioned(self, work, share, image, worker):  # noqa: ARG002
        captions = Worker(**worker)
        count = itertools.count(1)
        for table in work:
            self.asked.append(table["number"].to_pylist())
            if any(self.loses(place.as_py().decode()) for place in table["place"]):
                continue
            for found in read(table, image):
                for _ in range(self.times):
                    yield captions(found)
                    if next(count) == self.dies_after:
                        raise Died


def captioned(folder, output, model, engine=None, **others):
    """A run; what it told, and its totals."""
    told: list[str] = []
    engine = engine or LocalEngine()
    job = Job([str(name) for name in (folder if isinstance(folder, list) else [folder])], output, model=model, **others)
    totals = run(job, engine.start, tell=lambda error: told.append(str(error)), progress=lambda _: None)
    return totals, told


def rows(output) -> list[dict]:
    """All rows of all parts."""
    found = [row for part in sorted(output.glob("part-*.parquet")) for row in parquet.read_table(part).to_pylist()]
    lines = [line for part in sorted(output.glob("part-*.jsonl")) for line in part.read_text().splitlines()]
    return found + [json.loads(line) for line in lines]
