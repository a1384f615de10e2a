"""The run: lists what is to be done, hands it to the engine, and writes what comes back."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from captioner.bulk.reading import BATCH, WORK, path_of
from captioner.bulk.results import Results, shard_key
from captioner.bulk.sources import Source, Tell, listed
from captioner.card import ModelCard, read_card
from captioner.errors import ClusterError, ModelFileError
from captioner.options import MODELS, SearchOptions, merged, to_dict

if TYPE_CHECKING:
    from captioner.bulk.engine import Engine

LEG = 1_000_000
"""Pictures that are listed before the first of them is captioned: 200 MB. The workers start anew for each leg."""

SHARDS = 1_000
"""The same of shards."""

GROUP = 512
"""Most pictures of one reading task."""

ATTEMPTS = 3
"""Times that a picture is tried which ends the processes that read it; after the first time alone."""


@dataclass(frozen=True)
class Job:
    """What is asked for."""

    sources: Sequence[str]
    output: Path
    form: str = "parquet"
    model: str | None = None
    search: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "auto"
    device: str = "auto"
    workers: int | None = None
    limit: int | None = None


@dataclass
class Totals:
    """What became of the photos so far."""

    done: int = 0
    """Rows that this run wrote, or is about to."""
    failed: int = 0
    """Of them, those with an error."""
    before: int = 0
    """Photos that had their rows already, as far as the sources were listed."""
    expected: int | None = 0
    """Rows that this run will have written, as far as it is known; None: nobody knows yet what the shards hold."""


Start = Callable[[], AbstractContextManager["Engine"]]


def run(job: Job, start: Start, *, tell: Tell, progress: Callable[[Totals], object]) -> Totals:
    """Captions what has no row yet in the output folder.

    `start` gives the engine, and is called where there is something to do. `tell` hears of sources that are left out;
    `progress` is called whenever rows have come. Raises CaptionerError for wrong use, and where the run cannot go on;
    what was captioned until then is written.
    """
    from captioner.checkpoint import model_path

    path = model_path(job.model)
    name = MODELS[0] if job.model is None else job.model if job.model in MODELS else path.name
    card = read_card(path, name=name)
    search = merged(card.search, job.search)
    search.check_model(reverse=card.reverse)
    settings = {"model_sha256": card.digest, "search": to_dict(search)}
    with Results(job.output, job.form, settings, (name, card.digest or "")) as results, ExitStack() as opened:
        totals = Totals()
        pipeline: _Pipeline | None = None
        for leg in _legs(job, results, totals, tell):
            if pipeline is None:
                engine = opened.enter_context(start())
                pipeline = _Pipeline(engine, job, card, search, engine.keep(path.read_bytes()))
            _Leg(leg, pipeline, results, totals, tell, progress).run(job.limit)
            if job.limit is not None and totals.done >= job.limit:
                break
    return totals


class _Pipeline:
    """The engine, with all that stays the same through a run."""

    def __init__(self, engine: "Engine", job: Job, card: ModelCard, search: SearchOptions, model: Any) -> None:
        self._engine, self._image = engine, card.image
        self.share = engine.share(job.device, job.workers)
        self._worker = {
            "model": model,
            "search": to_dict(search),
            "precision": job.precision,
            "device": self.share.device,
            "threads": 1,
        }

    def captioned(self, work: Sequence[pa.Table]) -> Iterator[pa.Table]:
        """As the engine's."""
        return self._engine.captioned(work, self.share, self._image, self._worker)


def _legs(job: Job, results: Results, totals: Totals, tell: Tell) -> Iterator[list[Source]]:
    """What is to be done, LEG pictures or SHARDS shards at a time; counts what is done already."""
    leg: list[Source] = []
    shards = photos = 0
    seen: set[str] = set()
    for source in listed(job.sources, tell):
        place = path_of(source.place)
        if source.is_shard:
            key = shard_key(place, source.size, source.modified)
            if key in results.finished or key in seen:
                totals.before += 0 if key in seen else results.finished[key]
                seen.add(key)
                continue
            seen.add(key)
            totals.before += len(results.rows_of(key))
            shards += 1
        elif not results.claim(place, source.size, source.modified):
            totals.before += 1
            continue
        else:
            photos += 1
        leg.append(source)
        if len(leg) - shards >= LEG or shards >= SHARDS:
            yield leg
            leg, shards = [], 0
        if photos == job.limit:
            break
    if leg:
        yield leg


class _Leg:
    """A part of a run: what was listed together."""

    def __init__(
        self,
        sources: Sequence[Source],
        pipeline: _Pipeline,
        results: Results,
        totals: Totals,
        tell: Tell,
        progress: Callable[[Totals], object],
    ) -> None:
        self._sources, self._pipeline, self._results = sources, pipeline, results
        self._totals, self._tell, self._progress = totals, tell, progress
        self._came = bytearray(len(sources))  # 1: the row of a picture, or all of a shard's, came
        self._of_shards: dict[int, set[str]] = {n: set() for n, source in enumerate(sources) if source.is_shard}
        self._skipped: dict[int, int] = {}  # rows of a shard that had come when it was read anew
        self._awaited: dict[int, int] = {}  # rows of a shard in all, once it was read to its end
        self._lengths: list[int] = []  # of the shards that all came
        self._begun = totals.done

    def run(self, limit: int | None) -> None:
        """Captions all of it, or until the run has `limit` rows."""
        pictures = len(self._sources) - len(self._of_shards)
        group = max(BATCH, min(GROUP, pictures // (8 * self._pipeline.share.workers)))
        for attempt in range(ATTEMPTS):
            missing = [number for number, came in enumerate(self._came) if not came]
            if not missing:
                return
            work = list(self._work(missing, 1 if attempt else group))
            for table in self._pipeline.captioned(work):
                self._take(table, limit)
                self._progress(self._totals)
                if limit is not None and self._totals.done >= limit:
                    return
        self._give_up([number for number, came in enumerate(self._came) if not came])

    def _work(self, numbers: Sequence[int], group: int) -> Iterator[pa.Table]:
        """Tables of WORK: `group` pictures together, each shard alone; the shards first, since they take longest."""
        pictures = [number for number in numbers if not self._sources[number].is_shard]
        together = [[number] for number in numbers if self._sources[number].is_shard]
        together += [pictures[first : first + group] for first in range(0, len(pictures), group)]
        for some in together:
            yield pa.Table.from_pylist([self._row(number) for number in some], schema=WORK)

    def _row(self, number: int) -> dict[str, Any]:
        source, skip = self._sources[number], None
        if source.is_shard:
            self._skipped[number] = len(self._of_shards[number])
            skip = [*self._results.rows_of(self._key(source)), *self._of_shards[number]]
        return {
            "number": number,
            "kind": source.kind,
            "place": os.fsencode(source.place),
            "size": source.size,
            "modified_ns": source.modified,
            "skip": skip,
        }

    def _take(self, table: pa.Table, limit: int | None) -> None:
        """Adds the rows that are new; a task that ran twice may bring some again."""
        if fatal := next((text for text in table["fatal"].to_pylist() if text), ""):
            raise ModelFileError(fatal)
        fresh, ended = [], []
        numbers, indexes, paths, photos = (table[name].to_pylist() for name in ("number", "index", "path", "photos"))
        for number, index, path, count in zip(numbers, indexes, paths, photos, strict=True):
            came = self._of_shards.get(number)
            if index < 0:
                ended.append((number, count))
                fresh.append(False)
            elif came is None:
                fresh.append(not self._came[number])
                self._came[number] = 1
            else:
                fresh.append(not self._came[number] and path not in came)
                came.add(path)
        rows = table.filter(pa.array(fresh, pa.bool_()))
        if limit is not None and len(rows) > limit - self._totals.done:
            self._add(rows.slice(0, limit - self._totals.done))
            return  # what is cut off has no rows: no shard is done
        self._add(rows)
        for number, count in ended:
            self._awaited[number] = self._skipped[number] + count
        for number in {*numbers} & self._awaited.keys():
            self._end_shard(number)
        self._totals.expected = self._expected()

    def _end_shard(self, number: int) -> None:
        if self._came[number] or len(self._of_shards[number]) < self._awaited[number]:
            return
        self._came[number] = 1
        source = self._sources[number]
        total = len(self._of_shards[number]) + len(self._results.rows_of(self._key(source)))
        self._lengths.append(len(self._of_shards[number]))
        self._results.finish(self._key(source), total)
        self._of_shards[number].clear()

    def _add(self, rows: pa.Table) -> None:
        self._totals.done += len(rows)
        self._totals.failed += len(rows) - rows["error"].null_count
        self._results.add(rows)

    def _expected(self) -> int | None:
        """Rows of the run when the leg ends: the shards to come are taken to be like those that came."""
        pictures = len(self._sources) - len(self._of_shards)
        if not self._of_shards:
            return self._begun + pictures
        if not self._lengths:
            return None
        return self._begun + pictures + round(sum(self._lengths) / len(self._lengths) * len(self._of_shards))

    def _give_up(self, numbers: Sequence[int]) -> None:
        """A row for each picture that never came back. A shard has none: the next run tries it again."""
        from captioner.bulk.worker import DONE

        rows = []
        for number in numbers:
            source = self._sources[number]
            place = path_of(source.place)
            if source.is_shard:
                remedy = "the others are done; give the command again, or look at the shard"
                self._tell(ClusterError(place, f"could not be read to its end in {ATTEMPTS} tries", remedy))
                continue
            error = f"{place} ended the process that read it, {ATTEMPTS} times."
            row = {"path": place, "size": source.size, "modified_ns": source.modified, "error": error}
            rows.append(row | {"number": number, "index": 0})
        if rows:
            self._add(pa.Table.from_pylist(rows, schema=DONE))
            self._progress(self._totals)

    @staticmethod
    def _key(source: Source) -> str:
        return shard_key(path_of(source.place), source.size, source.modified)
