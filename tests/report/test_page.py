"""The page of an evaluation: what it tells, what it shows, and that it is safe to open.

The tests marked `browser` need Chromium and playwright, and are skipped without them.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from captioner.datasets.dataset import CaptionedImage
from captioner.evaluation import compare, compare_with_people, evaluate
from captioner.report import page as module
from captioner.report.page import to_html
from captioner.report.scores import Comparison, Report, per_image
from captioner.text import TOKENISER

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()

REFERENCES = (
    ("a dog runs on grass", "the brown dog is running"),
    ("two men play football", "men kick a ball in a park"),
    ("a girl eats an apple", "a young girl with a green apple"),
    ("boats lie in the harbour", "some boats at the pier"),
)
CAPTIONS = ("a dog runs on a beach", "a cat sleeps", "a girl eats an apple", "some boats in the harbour")
HOSTILE = (
    "</script></style><!-- <img src=x onerror=alert(1)> ${alert(2)} $title \u2028 \x00 \" ' & \ud800 <script>alert(3)"
)


def make(
    folder: Path,
    captions: Sequence[str] = CAPTIONS,
    references: Sequence[tuple[str, ...]] = REFERENCES,
    names: Sequence[str] = (),
) -> Report:
    """A report on pictures of one colour each."""
    images = []
    for number, group in enumerate(references):
        source = folder / f"{number}.png"
        Image.new("RGB", (400 + number, 300), (20 * number, 90, 120)).save(source)
        name = names[number] if names else source.name
        images.append(CaptionedImage(name, name, source, group, "val"))
    return Report({"model": "made by hand", "data": "four pictures"}, evaluate(images, captions), resamples=20)


class Reader(HTMLParser):
    """What a page holds, as a browser without JavaScript reads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of every tag of that name."""
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def text(self) -> str:
        """All text, white space made even."""
        return " ".join("".join(self.pieces).split())


def cards(text: str) -> list[str]:
    """Each card's markup, in the page's order."""
    return re.findall(r"<article.*?</article>", text, re.DOTALL)


def test_everything_is_told(tmp_path: Path) -> None:
    """Facts, scores with intervals, habits; and of each image its picture, caption, references, name and scores."""
    report = replace(make(tmp_path), vocabulary=(8, 50))
    text = to_html(report)
    said = Reader(text).text
    for name, (low, high) in report.evaluation.intervals(20).items():
        assert f"{name}{report.evaluation.scores[name]:.2f}{low:.2f} to {high:.2f}" in said
    for fact in (
        "made by hand",
        "four pictures",
        "8 of 50 (16.0%)",
        TOKENISER,
        "20 bootstrap resamples",
        "8 references (2.00",
    ):
        assert fact in said
    assert "equal a reference25.0%" in said
    records = list(per_image(report))
    assert len(cards(text)) == len(records) == 4
    for card, record in zip(cards(text), records, strict=True):
        shown = Reader(card)
        assert record["caption"] in shown.text
        assert [picture["alt"] for picture in shown.all("img")] == [record["caption"]]
        for reference in record["references"]:
            assert reference in shown.text
        for name, score in record["scores"].items():
            assert f"{name}{score:.1f}" in shown.text
        assert record["image_id"] in shown.text


def test_the_worst_come_first(tmp_path: Path) -> None:
    """In the order of `worst_first`, with the id where it is not the name."""
    report = make(tmp_path)
    last = replace(report.evaluation.images[1], image_id=77)
    images = (report.evaluation.images[0], last, *report.evaluation.images[2:])
    report = replace(report, evaluation=replace(report.evaluation, images=images))
    names = [re.search(r'class="name">(.*?)</p>', card)[1] for card in cards(to_html(report))]  # type: ignore[index]
    assert names[0] == "1.png (id 77)"
    assert names[1:] == [report.evaluation.images[index].name for index in report.worst_first[1:]]


def test_words_of_no_reference_are_marked(tmp_path: Path) -> None:
    """Word by word as the tokeniser sees them, whatever the case and the punctuation around them."""
    report = make(tmp_path, ["A DOG, doesn't run; on  grass.", "men\tkick cats", "", "boats"])
    text = to_html(report)
    assert sorted(re.findall("<mark>(.*?)</mark>", "".join(cards(text)))) == ["cats", "doesn&#x27;t", "run;"]
    assert "A DOG, <mark>doesn&#x27;t</mark> <mark>run;</mark> on  grass." in text


def test_pictures_are_small(tmp_path: Path) -> None:
    """JPEGs of at most 256 pixels inside the page, in the shape of the pictures."""
    pictures = Reader(to_html(make(tmp_path))).all("img")
    assert len(pictures) == 4
    for picture in pictures:
        assert (picture["width"], picture["height"]) == ("256", "191") or picture["height"] == "192"
        assert (picture["src"] or "").startswith("data:image/jpeg;base64,/9j/")


def test_pictures_that_cannot_be_shown(tmp_path: Path) -> None:
    """Missing and broken files leave their names, and are counted; a drawn picture needs no file."""
    report = make(tmp_path)
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").write_bytes(b"no picture")
    images = list(report.evaluation.images)
    images[2] = replace(images[2], source=Image.new("RGB", (9, 9)))
    text = to_html(replace(report, evaluation=replace(report.evaluation, images=tuple(images))))
    assert sorted(re.findall(r'class="missing">No picture<br><span>(.*?)<', text)) == ["0.png", "1.png"]
    assert len(Reader(text).all("img")) == 2
    assert "Pictures missing or unreadable: 2." in Reader(text).text


def test_of_many_images_some_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than CARDS, that many, the worst and the best among them, still the worst first; the page says so."""
    monkeypatch.setattr(module, "CARDS", 3)
    report = make(tmp_path)
    text = to_html(report)
    captions = [(Reader(card).all("img")[0])["alt"] for card in cards(text)]
    ranked = [CAPTIONS[index] for index in report.worst_first]
    assert (captions[0], captions[-1]) == (ranked[0], ranked[-1])
    assert [ranked.index(caption or "") for caption in captions] == sorted(set(map(ranked.index, captions)))
    assert len(captions) == 3
    assert "On this page are 3 of 4 images" in Reader(text).text
    monkeypatch.undo()
    assert "On this page are" not in Reader(to_html(report)).text


def test_comparisons(tmp_path: Path) -> None:
    """Another file's scores and a person's, each with the difference, its interval and how often ours is higher."""
    report = make(tmp_path)
    theirs = make(tmp_path, [group[0] for group in REFERENCES]).evaluation
    differences = compare(report.evaluation, theirs, resamples=20)
    people = compare_with_people(report.evaluation, resamples=20)
    assert "Against" not in Reader(to_html(report)).text
    said = Reader(
        to_html(replace(report, compared=Comparison("<other>.json", theirs, differences), people=people))
    ).text
    assert "Against <other>.json" in said
    assert "Against one person, both with one reference less (1.00 each)" in said
    for one in (*differences, *people):
        numbers = (
            f"{one.name}{one.ours:.2f}{one.theirs:.2f}{one.higher:.1%}{one.ours - one.theirs:+.2f} ({one.low:+.2f}"
        )
        assert numbers in said


def test_captions_with_bad_habits_are_tagged(tmp_path: Path) -> None:
    """A caption that repeats itself or ends in the middle says so on its card, where the filter finds it."""
    report = make(tmp_path, ["a dog and a", "a big big dog with a", "a dog", "a dog of a"])
    tags = {Reader(card).all("img")[0]["alt"]: card.split('class="tags">')[1:] for card in cards(to_html(report))}
    assert tags["a dog"] == []
    assert tags["a dog and a"][0].startswith("ends in the middle of a phrase<")
    assert tags["a big big dog with a"][0].startswith("repeats itself, ends in the middle of a phrase<")


def test_of_many_images_those_with_pictures_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not all fit, a picture is worth more than a name."""
    report = make(tmp_path)
    monkeypatch.setattr(module, "CARDS", 3)
    sources = [Path(str(image.source)) for image in report.evaluation.images]
    sources[0].unlink()
    sources[2].unlink()
    assert len(cards(to_html(report))) == 2
    for source in (sources[1], sources[3]):
        source.unlink()
    assert len(cards(to_html(report))) == 3


def test_a_degenerate_model_is_called_out(tmp_path: Path) -> None:
    """The complaint stands before the scores; without one there is no warning."""
    report = make(tmp_path, ["a dog"] * 40, [REFERENCES[i % 4] for i in range(40)])
    assert report.evaluation.complaint
    said = Reader(to_html(report)).text
    assert f"Warning. {report.evaluation.complaint}" in said
    assert said.index("Degenerate") < said.index("BLEU-1")
    assert 'class="warning"' not in to_html(make(tmp_path))


def test_the_page_asks_nobody(tmp_path: Path) -> None:
    """No address but pictures inside the page, and a policy that allows nothing else."""
    text = to_html(make(tmp_path))
    tags = Reader(text).tags
    links = [
        value or "" for _, one in tags for name, value in one.items() if name in ("src", "href", "action", "srcset")
    ]
    assert all(link.startswith("data:image/jpeg;") for link in links)
    assert not re.search(r"https?:|url\(|@import|<link|<iframe", text)
    (policy,) = (one["content"] or "" for tag, one in tags if tag == "meta" and "http-equiv" in one)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def hostile(folder: Path) -> Report:
    """Markup, script, template marks, half a surrogate pair and a NUL byte wherever text comes from outside."""
    report = make(
        folder, [HOSTILE] * 4, [(HOSTILE, group[0]) for group in REFERENCES], [f"{n}{HOSTILE}" for n in range(4)]
    )
    (folder / "0.png").unlink()
    return replace(report, facts={HOSTILE: HOSTILE}, compared=Comparison(HOSTILE, report.evaluation, []), people=[])


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """It brings no tag and no attribute, is shown as it is written, and the page can be written as UTF-8."""
    text = to_html(hostile(tmp_path))
    text.encode("utf-8")
    harmless = make(tmp_path)
    (tmp_path / "0.png").unlink()
    tame, wild = Reader(to_html(harmless)), Reader(text)
    assert {tag for tag, _ in wild.tags} <= {tag for tag, _ in tame.tags} | {"mark"}
    allowed = {name for _, one in tame.tags for name in one}
    assert {name for _, one in wild.tags for name in one} <= allowed
    assert wild.text.count("<img src=x onerror=alert(1)> ${alert(2)} $title") > 4 * 3


@pytest.mark.parametrize("captions", [["", "", "", ""], ["a dog", "?!", "\n", "a\u00a0girl"]])
def test_captions_of_nothing(tmp_path: Path, captions: list[str]) -> None:
    """Empty captions and scores of 0 make a page as well, and every picture has an alternative text."""
    assert all((picture["alt"] or "").strip() for picture in Reader(to_html(make(tmp_path, captions))).all("img"))


def test_one_image(tmp_path: Path) -> None:
    """A single image, of which CIDEr-D is 0 by definition."""
    text = to_html(make(tmp_path, CAPTIONS[:1], REFERENCES[:1]))
    assert len(cards(text)) == 1
    assert "1 image with 2 references" in Reader(text).text


def test_it_loads_no_torch() -> None:
    """A results file is scored and shown without torch."""
    code = "import sys, captioner.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """A report's page in a tab; leaving checks that nothing was asked for, said or complained about."""

    def __init__(self, browser: "Browser", folder: Path, report: Report, **options: Any) -> None:
        file = folder / "report.html"
        file.write_text(to_html(report), encoding="utf-8")
        self.page: Page = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options}).new_page()
        self.events: list[str] = []
        self.page.on("request", lambda request: self._note(request.url, ("file:", "data:")))
        for event in ("console", "pageerror", "dialog"):
            self.page.on(event, lambda said: self.events.append(str(said)))  # type: ignore[call-overload]
        self.page.goto(file.as_uri())

    def _note(self, address: str, known: tuple[str, ...]) -> None:
        if not address.startswith(known):
            self.events.append(address)

    def captions(self) -> list[str]:
        """The captions on show, in order."""
        return self.page.locator("article .caption").all_text_contents()

    def leave(self) -> None:
        assert self.events == []
        self.page.context.close()


@pytest.mark.browser
def test_sort_and_filter(browser: "Browser", tmp_path: Path) -> None:
    """By any metric from either end, or as the data has them; by words of captions, references and names."""
    report = make(tmp_path)
    visit = Visit(browser, tmp_path, report)
    order, find = visit.page.get_by_label("Order"), visit.page.get_by_label("Find")
    ranked = [CAPTIONS[index] for index in report.worst_first]
    assert visit.captions() == ranked
    order.select_option(label="best CIDEr-D first")
    assert visit.captions() == ranked[::-1]
    order.select_option(label="in the order of the data")
    assert visit.captions() == list(CAPTIONS)
    bleu = report.evaluation.metrics[0]
    assert bleu.name == "BLEU-1"
    order.select_option(label="worst BLEU-1 first")
    assert visit.captions() == [CAPTIONS[index] for index in sorted(report.worst_first, key=bleu.images.__getitem__)]
    assert set(visit.page.locator(".sorted dt").all_text_contents()) == {"BLEU-1"}

    order.focus()
    visit.page.keyboard.press("Tab")  # from the order to the filter, by keyboard alone
    for typed, found in (("BEACH", [0]), ("ball men", [1]), ("ball dog", []), ("2.png", [2]), ("BLEU", [])):
        visit.page.keyboard.press("Control+a")
        visit.page.keyboard.type(typed)
        assert visit.captions() == [CAPTIONS[index] for index in found]
        assert visit.page.locator("output").inner_text() == f"{len(found)} of 4 shown"
    find.fill("")
    assert len(visit.captions()) == 4
    visit.leave()


@pytest.mark.browser
def test_hostile_text_in_a_browser(browser: "Browser", tmp_path: Path) -> None:
    """Nothing runs, nothing is injected, and the page works."""
    visit = Visit(browser, tmp_path, hostile(tmp_path))
    assert visit.page.locator("img").count() == 3
    assert visit.page.locator("script").count() == 1
    assert all("<img src=x onerror=alert(1)>" in caption for caption in visit.captions())
    visit.page.get_by_label("Find").fill("<script>alert(3)")
    assert len(visit.captions()) == 4
    visit.leave()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_fits(browser: "Browser", tmp_path: Path, width: int, scheme: str) -> None:
    """A phone and a screen, light and dark: nothing is cut off at the side, and every picture is drawn."""
    report = make(tmp_path)
    people = compare_with_people(report.evaluation, resamples=20)
    long = "a-long-name-" * 20
    compared = Comparison(f"{long}.json", report.evaluation, people)
    report = replace(report, people=people, compared=compared, facts={"model": long, long: "a fact"})
    visit = Visit(browser, tmp_path, report, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    widths = visit.page.evaluate(
        "Promise.all([...document.images].map(async (i) => (await i.decode(), i.naturalWidth)))"
    )
    assert widths == [256] * 4
    visit.page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    visit.leave()


@pytest.mark.browser
def test_without_javascript(browser: "Browser", tmp_path: Path) -> None:
    """Tables and pictures are there; the controls, which would do nothing, are not."""
    visit = Visit(browser, tmp_path, make(tmp_path), java_script_enabled=False)
    assert visit.page.get_by_role("table").count() == 2
    assert len(visit.captions()) == 4
    assert visit.page.locator("noscript p").is_visible()
    assert not visit.page.get_by_label("Order").is_visible()
    visit.leave()
