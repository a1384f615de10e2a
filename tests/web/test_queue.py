"""The promises of captioner.web.queue: company for pictures that arrive together, patience for none, room for so many."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest

from captioner.captioner import Captioner
from captioner.checkpoint import ModelFile
from captioner.errors import BusyError, CaptionerError, OptionError
from captioner.network import fused
from captioner.options import SearchOptions
from captioner.pictures import Pixels
from captioner.web.queue import ModelQueue, Party

SEARCH = SearchOptions(beam_size=2, max_length=5)


class Watched(Captioner):
    """A real captioner that notes the batches it is given, and waits at a gate before each."""

    def __init__(self, file: ModelFile) -> None:
        super().__init__(fused(file.model), file.card("watched"))
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def caption_pixels(self, pixels: Any, **rest: Any) -> Any:
        self.batches.append(len(pixels))
        self.entered.set()
        assert self.gate.wait(20)
        if any((picture == 255).all() for picture in pixels):
            raise CaptionerError("A white picture.")
        return super().caption_pixels(pixels, **rest)


@pytest.fixture
def watched(small_file: ModelFile) -> Iterator[Watched]:
    watched = Watched(small_file)
    yield watched
    watched.gate.set()  # or the queue, which closes after this, waits for what is behind the gate


@pytest.fixture
def queue() -> Iterator[ModelQueue]:
    queue = ModelQueue(batch=4, capacity=10)
    yield queue
    queue.close()


def pictures(count: int) -> list[Pixels]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (3, 64, 64), dtype=np.uint8) for _ in range(count)]


def occupied(queue: ModelQueue, watched: Watched) -> Any:
    """Shuts the gate behind a first picture, so that what comes next has to wait."""
    watched.gate.clear()
    first = queue.caption(watched, pictures(1)[0], SEARCH)
    assert watched.entered.wait(20)
    return first


def test_captions_are_those_of_the_captioner(queue: ModelQueue, watched: Watched) -> None:
    """Each picture gets its own, whatever came with it."""
    sent = pictures(9)
    expected = [Captioner.caption_pixels(watched, [picture], search=SEARCH)[0].text for picture in sent]
    watched.batches.clear()
    futures = [queue.caption(watched, picture, SEARCH) for picture in sent]
    assert [future.result(20).text for future in futures] == expected
    assert (queue.counts.pictures, queue.counts.failures) == (9, 0)


def test_pictures_that_wait_go_together(queue: ModelQueue, watched: Watched) -> None:
    """In batches of four at most; those of another search are not mixed in, and lose no turn."""
    occupied(queue, watched)
    other = SearchOptions(beam_size=1, max_length=4)
    futures = [queue.caption(watched, picture, SEARCH) for picture in pictures(3)]
    futures.append(queue.caption(watched, pictures(1)[0], other))
    futures += [queue.caption(watched, picture, SEARCH) for picture in pictures(3)]
    assert queue.waiting == 7
    watched.gate.set()
    for future in futures:
        future.result(20)
    assert watched.batches == [1, 4, 1, 2]
    assert (queue.counts.pictures, queue.counts.batches) == (8, 4)


def test_who_is_alone_waits_for_nobody(watched: Watched) -> None:
    """Not a second of the hour that the queue would give others to come; and the next one neither."""
    queue = ModelQueue(batch=4, wait=3600)
    try:
        for picture in pictures(2):
            queue.caption(watched, picture, SEARCH).result(20)
        assert watched.batches == [1, 1]
    finally:
        queue.close()


def test_company_that_has_places_is_waited_for(watched: Watched) -> None:
    """Pictures of a request that are being read go with those that were quicker, but nobody waits longer than `wait`."""
    queue = ModelQueue(batch=4, wait=0.4)
    with queue.places(3, SEARCH) as party:
        first = queue.caption(watched, pictures(1)[0], SEARCH, party)
        second = queue.caption(watched, pictures(1)[0], SEARCH, party)
        assert first.result(20)
        assert second.result(20)
        assert watched.batches == [2]
    queue.close()


def test_a_crowd_is_waited_for(watched: Watched) -> None:
    """Whoever was served together is likely to come again together: the first of them waits for the others."""
    queue = ModelQueue(batch=2, wait=3600)
    try:
        occupied(queue, watched)
        futures = [queue.caption(watched, picture, SEARCH) for picture in pictures(2)]
        watched.gate.set()
        for future in futures:
            future.result(20)
        first = queue.caption(watched, pictures(1)[0], SEARCH)
        assert not first.done()
        second = queue.caption(watched, pictures(1)[0], SEARCH)
        assert first.result(20)
        assert second.result(20)
        assert watched.batches == [1, 2, 2]
    finally:
        queue.close()


def test_a_full_batch_waits_for_nobody(watched: Watched) -> None:
    """Its time has come when nothing more fits in."""
    queue = ModelQueue(batch=2, wait=60)
    for future in [queue.caption(watched, picture, SEARCH) for picture in pictures(2)]:
        future.result(20)
    queue.close()


def test_a_full_queue_says_so_at_once(queue: ModelQueue, watched: Watched) -> None:
    """And has room again when its work is done."""
    occupied(queue, watched)
    futures = [queue.caption(watched, picture, SEARCH) for picture in pictures(10)]
    with pytest.raises(BusyError, match="10 pictures are waiting already: try again"):
        queue.caption(watched, pictures(1)[0], SEARCH)
    assert queue.counts.refusals == 1
    watched.gate.set()
    for future in futures:
        future.result(20)
    assert queue.caption(watched, pictures(1)[0], SEARCH).result(20)


def test_a_broken_picture_costs_the_others_nothing(queue: ModelQueue, watched: Watched) -> None:
    """Its companions get their captions, and it gets its error."""
    occupied(queue, watched)
    white = np.full((3, 64, 64), 255, dtype=np.uint8)
    futures = [queue.caption(watched, picture, SEARCH) for picture in (*pictures(2), white)]
    watched.gate.set()
    assert all(future.result(20).text is not None for future in futures[:2])
    with pytest.raises(CaptionerError, match="A white picture"):
        futures[2].result(20)
    assert queue.counts.failures == 1


def test_a_fault_of_ours_does_not_end_the_queue(
    queue: ModelQueue, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked is told, and the next is served."""
    with monkeypatch.context() as patch:
        patch.setattr(watched, "explain_pixels", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            queue.explain(watched, pictures(1)[0], SEARCH).result(20)
    assert queue.caption(watched, pictures(1)[0], SEARCH).result(20)


def test_who_gives_up_is_not_served(queue: ModelQueue, watched: Watched) -> None:
    """A cancelled picture costs the model nothing."""
    occupied(queue, watched)
    futures = [queue.caption(watched, picture, SEARCH) for picture in pictures(3)]
    assert futures[1].cancel()
    watched.gate.set()
    assert futures[0].result(20)
    assert futures[2].result(20)
    assert watched.batches == [1, 2]


def test_an_explanation_comes_through_the_same_queue(queue: ModelQueue, watched: Watched) -> None:
    """With its progress, after what came before it."""
    said: list[str] = []
    occupied(queue, watched)
    future = queue.explain(watched, pictures(1)[0], SEARCH, said.append)
    assert not future.done()
    watched.gate.set()
    found = future.result(20)
    expected = watched.explain_pixels(pictures(1)[0], search=SEARCH)
    assert found.caption.text == expected.caption.text
    assert found.tree
    assert len(said) <= SEARCH.max_length


def test_closing_ends_what_waits(small_file: ModelFile) -> None:
    """Nobody is left waiting for an answer that will not come, and nothing more is taken."""
    watched, queue = Watched(small_file), ModelQueue()
    first = occupied(queue, watched)
    second = queue.caption(watched, pictures(1)[0], SEARCH)
    threading.Timer(0.2, watched.gate.set).start()
    queue.close()
    assert first.result(20)
    with pytest.raises(CancelledError):
        second.result(20)
    with pytest.raises(BusyError):
        queue.caption(watched, pictures(1)[0], SEARCH)


def test_models_are_warm_before_anybody_asks(watched: Watched, small_file: ModelFile) -> None:
    """Each captions a picture that nobody counts, and one that fails at it costs nobody anything."""

    class Broken(Watched):
        def caption_pixels(self, pixels: Any, **rest: Any) -> Any:
            super().caption_pixels(pixels, **rest)
            raise RuntimeError("Out of memory.")

    broken = Broken(small_file)
    queue = ModelQueue(warm=[broken, watched])
    try:
        assert queue.caption(watched, pictures(1)[0], SEARCH).result(20).word_probability > 0
        assert (broken.batches, watched.batches, queue.counts.pictures) == ([1], [1, 1], 1)
    finally:
        queue.close()


def test_a_request_gets_all_its_places_or_none(queue: ModelQueue, watched: Watched) -> None:
    """Two requests that do not fit together: the first is captioned whole, the second is told at once."""
    occupied(queue, watched)
    with queue.places(6, SEARCH) as first:
        with pytest.raises(BusyError, match="6 pictures are waiting already"), queue.places(6, SEARCH):
            pass
        with queue.places(4, SEARCH), pytest.raises(BusyError):  # what is left fits
            queue.caption(watched, pictures(1)[0], SEARCH)
        futures = [queue.caption(watched, picture, SEARCH, first) for picture in pictures(6)]
        watched.gate.set()
        assert all(future.result(20) for future in futures)
    assert queue.waiting == 0
    assert queue.counts.refusals == 7


def test_places_that_were_not_used_are_given_back(queue: ModelQueue, watched: Watched) -> None:
    """Whatever ends the request; what waits of it is cancelled."""
    occupied(queue, watched)
    with queue.places(10, SEARCH) as party:
        futures = [queue.caption(watched, picture, SEARCH, party) for picture in pictures(3)]
        assert queue.waiting == 10
    assert queue.waiting == 0
    assert all(future.cancelled() for future in futures)


def test_a_cancelled_picture_leaves_at_once(queue: ModelQueue, watched: Watched) -> None:
    """Its place is free while the model still works on what came before."""
    occupied(queue, watched)
    futures = [queue.caption(watched, picture, SEARCH) for picture in pictures(10)]
    for future in futures:
        assert future.cancel()
    assert queue.waiting == 0
    again = [queue.caption(watched, picture, SEARCH) for picture in pictures(10)]
    watched.gate.set()
    assert all(future.result(20) for future in again)


class Named(Watched):
    """Also notes whose pictures a batch held: by their first value."""

    def __init__(self, file: ModelFile) -> None:
        super().__init__(file)
        self.held: list[list[int]] = []

    def caption_pixels(self, pixels: Any, **rest: Any) -> Any:
        self.held.append([int(picture[0, 0, 0]) for picture in pixels])
        return super().caption_pixels(pixels, **rest)


def marked(value: int) -> Pixels:
    return np.full((3, 64, 64), value, dtype=np.uint8)


@pytest.mark.parametrize("search", [SEARCH, SearchOptions(beam_size=1, max_length=4)])
def test_a_lone_photo_waits_for_one_pass_of_others_at_most(small_file: ModelFile, search: SearchOptions) -> None:
    """However many pictures three others sent before it, with its search or with another."""
    named, queue = Named(small_file), ModelQueue(batch=4, capacity=100)
    occupied(queue, named)
    futures = []
    for value in (1, 2, 3):
        party = Party()
        futures += [queue.caption(named, marked(value), SEARCH, party) for _ in range(20)]
    lone = queue.caption(named, marked(99), search)
    named.gate.set()
    for future in [*futures, lone]:
        future.result(20)
    place = next(number for number, batch in enumerate(named.held) if 99 in batch)
    assert place <= 2  # the first is what the model was busy with
    queue.close()


def test_requests_take_turns(small_file: ModelFile) -> None:
    """Each gets its share of every few passes, in whatever order and number they came."""
    named, queue = Named(small_file), ModelQueue(batch=4, capacity=100)
    occupied(queue, named)
    futures = []
    for value, count in ((1, 40), (2, 12), (3, 12)):
        party = Party()
        futures += [queue.caption(named, marked(value), SEARCH, party) for _ in range(count)]
    named.gate.set()
    for future in futures:
        future.result(20)
    early = [value for batch in named.held[1:10] for value in batch]
    assert [early.count(value) for value in (1, 2, 3)] == [12, 12, 12]
    queue.close()


def test_whoever_waited_long_goes_before_newcomers(small_file: ModelFile) -> None:
    """An album beside a crowd of lone photos with another search comes to its end."""
    named, queue = Named(small_file), ModelQueue(batch=4, capacity=100, patience=0)
    occupied(queue, named)
    album = Party(given=10**6)
    futures = [queue.caption(named, marked(1), SEARCH, album) for _ in range(2)]
    futures += [queue.caption(named, marked(2), SearchOptions(beam_size=1, max_length=4)) for _ in range(40)]
    named.gate.set()
    for future in futures:
        future.result(20)
    assert 1 in named.held[1]
    queue.close()


def test_too_much_work_is_refused(small_file: ModelFile) -> None:
    """Pictures x beam x words of one request; an owner may allow more; and a pass of several is no longer than WORK."""
    heavy = SearchOptions(beam_size=100, max_length=200)
    watched, queue = Watched(small_file), ModelQueue(most_work=20_000)
    with pytest.raises(OptionError, match="2 pictures x 100 sentences x 200 words"), queue.places(2, heavy):
        pass
    with queue.places(1, heavy):
        pass
    queue.close()
    queue = ModelQueue(most_work=19_999)
    for ask in (queue.caption, queue.explain):
        with pytest.raises(OptionError, match="smaller beam"):
            ask(watched, pictures(1)[0], heavy)
    queue.close()
    queue = ModelQueue(most_work=10**6)
    occupied(queue, watched)
    search = SearchOptions(beam_size=20, max_length=100)
    futures = [queue.caption(watched, picture, search) for picture in pictures(6)]
    watched.gate.set()
    for future in futures:
        future.result(60)
    assert watched.batches == [1, 2, 2, 2]
    queue.close()
