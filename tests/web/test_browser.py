"""The page as a person uses it: `python app.py` in a process of its own, and a real headless Chromium.

Skipped where Chromium, playwright or the bundled model is missing. Screenshots are left in pytest's temporary folder.
"""

import csv
import re
import zipfile
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.options import MODELS
from tests.conftest import serving
from tests.video.clips import moving, write_clip
from tests.web.browsing import LION, Visit, needed

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
from playwright.sync_api import Browser, expect  # noqa: E402

pytestmark = needed


def test_a_photo_its_caption_and_a_wrong_file(browser: Browser, address: str, tmp_path: Path) -> None:
    """Upload, read, try other settings, be told kindly what is wrong with a file, go on."""
    visit = Visit(browser, address)
    page = visit.page
    visit.give(LION)
    first = visit.caption()
    assert len(first.split()) >= 3
    sure = page.locator("#result .panel:not([hidden]) .sure")
    expect(sure).not_to_be_visible()
    page.locator("#result .panel:not([hidden])").get_by_text("In numbers").click()
    assert re.match(r"accurate, beam: \d+% mean probability per word, in \d+\.\d\d s\. ", sure.inner_text())
    assert page.locator("#result tbody tr").count() >= 2
    expect(page.get_by_alt_text(first)).to_be_visible()
    page.screenshot(path=tmp_path / "caption.png", full_page=True)

    page.get_by_role("button", name="Advanced").click()
    page.get_by_label("number input for Beam size").fill("1")
    page.get_by_label("number input for Beam size").press("Tab")
    expect(page.locator("#result table")).to_have_count(0, timeout=20_000)
    assert visit.caption()

    corrupt = tmp_path / "corrupt.jpg"
    corrupt.write_bytes(LION.read_bytes()[:900])
    for wrong, name in (
        (corrupt, "corrupt.jpg"),
        (b"hello", "text.jpg"),
        (b"", "empty.png"),
        (b"<svg/>", "drawing.svg"),
    ):
        if page.get_by_role("button", name="Remove Image").is_visible():
            visit.remove()
        path = tmp_path / name
        if isinstance(wrong, bytes):
            path.write_bytes(wrong)
        visit.give(path)
        assert visit.problem().startswith("This file ")
        assert not page.get_by_text("Error", exact=True).is_visible()
        page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        visit.give(LION)
        assert visit.caption()
    visit.close()


@pytest.mark.skipif(len(MODELS) < 2, reason="one bundled model")
def test_the_other_model(browser: Browser, address: str) -> None:
    """One click, and the other model captions the same photo, with the search that its own file carries."""
    visit = Visit(browser, address)
    page = visit.page
    visit.give(LION)
    visit.caption()
    page.get_by_role("button", name="Advanced").click()
    beam = page.get_by_label("number input for Beam size")
    own = beam.input_value()
    beam.fill("1")
    beam.press("Tab")
    expect(page.locator("#result table caption")).to_have_count(0, timeout=20_000)
    page.get_by_role("radio", name="fast").click()
    expect(page.locator("#result table caption")).to_have_count(1, timeout=20_000)  # not the other's beam of 1
    assert visit.caption()
    expect(beam).not_to_have_value("1")
    page.get_by_role("radio", name="accurate").click()
    expect(beam).to_have_value(own)
    beam.fill("1")
    beam.press("Tab")
    expect(page.locator("#result table caption")).to_have_count(0, timeout=20_000)
    page.get_by_role("button", name="Reset to the model's defaults").click()
    expect(beam).to_have_value(own)
    expect(page.locator("#result table caption")).to_have_count(1, timeout=20_000)
    visit.close()


BRIGHTEST = """() => {
  const canvas = document.querySelector("#photo canvas.look");
  if (!canvas) return null;
  const image = document.querySelector("#photo .image-frame img").getBoundingClientRect();
  const box = canvas.getBoundingClientRect();
  const inside = box.left >= image.left - 1 && box.right <= image.right + 1 && box.top >= image.top - 1
    && box.bottom <= image.bottom + 1;
  const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let best = 0;
  for (let i = 0; i < data.length / 4; i++) if (data[4 * i + 3] < data[4 * best + 3]) best = i;
  return { inside, x: (best % width) / width, y: Math.floor(best / width) / canvas.height };
}"""


def test_a_word_shows_where_the_model_looked(browser: Browser, address: str, tmp_path: Path) -> None:
    """By pointing, by the keyboard and by a tap, over the photo, brightest where the attention is greatest."""
    visit = Visit(browser, address)
    page = visit.page
    visit.give(LION)
    visit.caption()
    words = page.locator("#result .panel:not([hidden]) .word")
    words.nth(1).hover()
    page.wait_for_selector("#photo canvas.look", state="attached")
    cells = [int(cell) for cell in (words.nth(1).get_attribute("data-look") or "").split(",")]
    columns = int(words.nth(1).get_attribute("data-columns") or 0)
    found = page.evaluate(BRIGHTEST)
    assert found["inside"]
    place = cells.index(max(cells))
    assert found["x"] == pytest.approx((place % columns + 0.5) / columns, abs=1 / columns)
    assert found["y"] == pytest.approx((place // columns + 0.5) * columns / len(cells), abs=columns / len(cells))
    page.screenshot(path=tmp_path / "look.png")
    page.mouse.move(5, 5)
    expect(page.locator("#photo canvas.look")).to_have_count(0)
    words.nth(2).focus()
    expect(page.locator("#photo canvas.look")).to_have_count(1)
    page.keyboard.press("Enter")  # stays, until it is pressed again
    expect(words.nth(2)).to_have_attribute("aria-pressed", "true")
    words.nth(0).hover()
    page.mouse.move(5, 5)
    expect(page.locator("#photo canvas.look")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#photo canvas.look")).to_have_count(0)
    words.nth(2).click()
    visit.remove()
    expect(page.locator("#photo canvas.look")).to_have_count(0)
    visit.close()


def test_another_sentence_is_picked_and_copied(browser: Browser, address: str) -> None:
    """As text, and as HTML with the sentence as the alternative text."""
    visit = Visit(browser, address)
    page = visit.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.give(LION)
    first = visit.caption()
    last = page.locator("#result .pick").last  # of ten, five are seen at once
    expect(last).not_to_be_visible()
    page.get_by_text("5 more").click()
    last.click()
    assert visit.caption() == last.inner_text()
    other = page.locator("#result .pick").nth(1)
    text = other.inner_text()
    other.click()
    assert visit.caption() == text != first
    expect(other).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == text
    page.get_by_role("button", name="Copy as HTML").click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('<img')")
    assert page.evaluate("navigator.clipboard.readText()") == f'<img src="lion.jpg" alt="{text}">'
    visit.close()


def test_one_caption_is_edited(browser: Browser, address: str, tmp_path: Path) -> None:
    """By keys alone: Enter ends it, Esc undoes it, what is copied is what stands there, and no number is said of it."""
    visit = Visit(browser, address)
    page = visit.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.give(LION)
    first = visit.caption()
    word = page.locator("#result .panel:not([hidden]) .word").nth(1)
    expect(word.locator("span")).not_to_be_visible()
    word.focus()
    expect(word.locator("span")).to_be_visible()  # how likely it is, for whoever asks
    page.screenshot(path=tmp_path / "word.png")
    button = page.locator("#result").get_by_role("button", name="Edit")
    button.press("Enter")
    expect(page.get_by_role("textbox", name="The caption, to edit")).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type("Something else")
    page.keyboard.press("Escape")
    assert visit.caption() == first
    expect(button).to_be_focused()
    expect(word).to_be_visible()
    page.keyboard.press("Enter")
    page.keyboard.type(', by "me" & you')
    page.keyboard.press("Enter")
    assert visit.caption() == first + ', by "me" & you'
    expect(word).not_to_be_visible()
    page.screenshot(path=tmp_path / "edited.png")
    page.get_by_role("button", name="Copy as HTML").click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('<img')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f'<img src="lion.jpg" alt="{first}, by &quot;me&quot; &amp; you">'
    visit.close()


def test_how_it_searched(browser: Browser, address: str, tmp_path: Path) -> None:
    """The tree of the search, whose winner stays in sight; greedy search's has one branch; drawing again draws again."""
    visit = Visit(browser, address)
    page = visit.page
    visit.give(LION)
    caption = visit.caption()
    page.get_by_role("button", name="How it searched").click()
    page.get_by_role("button", name="Advanced").click()
    for place in (".chosen", "ul"):  # by itself, and as a branch
        best = page.locator(f"#tree .tree > {place} .best")
        expect(best.first).to_be_visible()
        words = [text.rsplit(" ", 1)[0] for text in best.all_inner_texts()]
        assert " ".join(words[:-1]).lower() == caption.lower()
    top = "tree => tree.querySelector('.chosen').getBoundingClientRect().top - tree.getBoundingClientRect().top"
    page.locator("#tree .tree").evaluate("tree => tree.scrollTo(0, tree.scrollHeight)")
    assert abs(page.locator("#tree .tree").evaluate(top)) < 10
    assert page.locator("#tree .lost").count() > 0
    page.screenshot(path=tmp_path / "tree.png", full_page=True)
    page.get_by_role("button", name="Beam 3, easier to read").click()
    expect(page.get_by_label("number input for Beam size")).to_have_value("3", timeout=20_000)
    expect(page.locator("#tree .wide")).to_have_count(0, timeout=20_000)
    expect(page.get_by_role("button", name="Beam 3, easier to read")).not_to_be_visible()  # it would do nothing
    page.get_by_role("radio", name="Greedy").click()
    expect(page.locator("#tree .lost")).to_have_count(0, timeout=20_000)
    expect(page.get_by_label("number input for Beam size")).to_have_count(0)
    page.get_by_role("radio", name="Sampling").click()
    temperature = page.get_by_label("number input for Temperature")
    temperature.fill("2")
    temperature.press("Tab")
    drawn = set()
    for _ in range(4):
        page.get_by_role("button", name="Draw again").click()
        page.wait_for_timeout(1500)
        drawn.add(visit.caption())
    assert len(drawn) > 1
    visit.close()


def test_two_settings_side_by_side(browser: Browser, address: str, tmp_path: Path) -> None:
    """The same photo, by the other model, beside the first."""
    visit = Visit(browser, address)
    page = visit.page
    visit.give(LION.with_name("tower.jpg"))  # of which the models think differently
    first = visit.caption()
    page.get_by_label("Compare with other settings").click()
    beside = page.locator("#result-beside .panel:not([hidden]) .sentence")
    expect(beside).not_to_have_text(first, timeout=20_000)  # the other model
    page.locator("#models-beside").get_by_role("radio", name="accurate").click()
    expect(beside).to_have_text(first, timeout=20_000)
    assert visit.caption() == first
    page.screenshot(path=tmp_path / "compare.png", full_page=True)
    page.get_by_role("button", name="Example: lion").click()
    expect(page.locator("#result .panel:not([hidden]) .sentence")).not_to_have_text(first, timeout=20_000)
    visit.close()


def test_many_photos(browser: Browser, address: str, tmp_path: Path) -> None:
    """Files and a zip, a caption edited in place, and the captions as files."""
    with zipfile.ZipFile(tmp_path / "trip.zip", "w") as archive:
        archive.write(LION, "trip/lion.jpg")
        archive.writestr("trip/broken.jpg", b"no picture")
        archive.writestr("../../outside.jpg", LION.read_bytes())
    visit = Visit(browser, address)
    page = visit.page
    page.get_by_role("tab", name="Many photos").click()
    page.get_by_role("button", name="Caption them").click()
    expect(page.locator("#album-progress .problem")).to_contain_text("no new photos yet", timeout=20_000)
    page.set_input_files("#album-files input[type=file]", [str(LION), str(tmp_path / "trip.zip")])
    page.get_by_role("button", name="Caption them").click()
    expect(page.locator("#album-progress")).to_contain_text("2 photos captioned", timeout=40_000)
    expect(page.locator("#album-progress .problem")).to_contain_text("broken.jpg")
    expect(page.locator("#album-progress .problem")).to_contain_text("leads out of its folder")
    expect(page.locator("#album-files .waiting")).to_have_text("")  # none of them waits any more
    page.wait_for_function("[...document.querySelectorAll('#album img')].every((image) => image.naturalWidth > 0)")
    page.get_by_label("Caption of trip/lion.jpg").fill('My "own" words, as ever')
    page.get_by_label("Caption of trip/lion.jpg").press("Enter")  # done; not a part of the caption
    page.get_by_role("button", name="Caption them").click()
    expect(page.locator("#album-progress .problem")).to_contain_text("no new photos yet", timeout=20_000)
    expect(page.get_by_label("Caption of trip/lion.jpg")).to_have_value('My "own" words, as ever')  # and not undone
    page.screenshot(path=tmp_path / "album.png", full_page=True)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.reader(download.value.path().read_text(encoding="utf-8-sig").splitlines()))
    assert rows[0] == ["image", "caption"]
    assert ["trip/lion.jpg", 'My "own" words, as ever'] in rows
    with page.expect_download() as download:
        page.get_by_role("button", name="Text files").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sorted(archive.namelist()) == ["lion.txt", "trip/lion.txt"]
        assert archive.read("trip/lion.txt").decode().strip() == 'My "own" words, as ever'
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400
    visit.close()


def test_a_stop_keeps_what_is_there(browser: Browser, address: str, tmp_path: Path) -> None:
    """And says so, as its last word; with nothing to stop, there is no button."""
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(1000):
            archive.write(LION, f"{number}.jpg")
    visit = Visit(browser, address)
    page = visit.page
    page.get_by_role("tab", name="Many photos").click()
    stop = page.locator("#album-stop")
    expect(stop).not_to_be_visible()
    page.set_input_files("#album-files input[type=file]", str(tmp_path / "many.zip"))
    expect(page.locator("#album-progress")).to_have_text("")
    page.get_by_role("button", name="Caption them").click()
    expect(page.get_by_label("Caption of 0.jpg")).to_be_visible(timeout=40_000)
    stop.click()
    expect(page.locator("#album-progress")).to_contain_text("Stopped", timeout=20_000)
    page.wait_for_timeout(1500)
    there = page.locator("#album .gallery > li").count()
    assert 0 < there < 1000
    page.wait_for_timeout(1500)
    assert page.locator("#album .gallery > li").count() == there
    expect(page.locator("#album-progress")).to_contain_text("Stopped")
    expect(stop).not_to_be_visible()
    visit.close()


def test_a_clip(browser: Browser, address: str, tmp_path: Path) -> None:
    """Its scenes, a click that goes there, subtitles in the player as they are edited, and as files."""
    photos = [Image.open(path).convert("RGB").resize((160, 96)) for path in (LION, LION.with_name("tower.jpg"))]
    write_clip(tmp_path / "clip.webm", (np.asarray(photos[step // 24]) for step in range(48)), codec="libvpx-vp9")
    visit = Visit(browser, address)
    page = visit.page
    page.get_by_role("tab", name="A clip").click()
    page.set_input_files("#clip-files input[type=file]", str(tmp_path / "clip.webm"))
    expect(page.locator("#clip-files .waiting")).to_have_text("clip.webm chosen", timeout=20_000)
    page.get_by_role("button", name="Caption it").click()
    expect(page.locator("#clip-progress")).to_contain_text("2 scenes", timeout=40_000)
    caption = page.get_by_label("Caption of 0:02 to 0:04")
    caption.fill("A tower at dusk")
    page.get_by_role("button", name="Go to 0:02 to 0:04").click()
    page.wait_for_function("document.querySelector('#player video').currentTime > 2")
    page.wait_for_function(
        "document.querySelector('#player video').textTracks[0].activeCues[0]?.text == 'A tower at dusk'"
    )
    page.screenshot(path=tmp_path / "clip.png", full_page=True)
    with page.expect_download() as download:
        page.get_by_role("button", name="WebVTT").click()
    assert download.value.suggested_filename == "clip.vtt"
    assert "00:00:02.000 --> 00:00:04.000\nA tower at dusk\n" in download.value.path().read_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400
    visit.close()


@pytest.mark.slow
def test_the_server_stops_in_the_middle_of_a_clip(browser: Browser, tmp_path: Path) -> None:
    """At once, without a word, and leaving nothing, though somebody looks on."""
    write_clip(tmp_path / "long.mp4", moving(*[4] * 60))
    with serving(tmp_path) as address:
        page = Visit(browser, address).page
        page.get_by_role("tab", name="A clip").click()
        page.set_input_files("#clip-files input[type=file]", str(tmp_path / "long.mp4"))
        page.get_by_role("button", name="Caption it").click()
        expect(page.locator("#clip-progress progress")).to_be_visible(timeout=40_000)
        expect(page.locator("#scenes li").first).to_be_visible(timeout=40_000)
    page.context.close()


def test_a_clip_that_the_browser_cannot_play(browser: Browser, address: str, tmp_path: Path) -> None:
    """It is captioned all the same, and the page says why there is no player."""
    write_clip(tmp_path / "clip.avi", moving(2), codec="mpeg4")
    visit = Visit(browser, address, width=400)
    page = visit.page
    page.get_by_role("tab", name="A clip").click()
    page.set_input_files("#clip-files input[type=file]", str(tmp_path / "clip.avi"))
    page.get_by_role("button", name="Caption it").click()
    expect(page.locator("#clip-progress")).to_contain_text("1 scene", timeout=40_000)
    expect(page.get_by_text("does not play such clips")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    visit.close()


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_everybody_can_use_it(browser: Browser, address: str, scheme: str) -> None:
    """No tab breaks a rule of axe's for WCAG 2 A and AA: names, contrast, order, keyboard."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe looks at the page").Axe()
    rules = {"runOnly": ["wcag2a", "wcag2aa", "best-practice"], "rules": {"nested-interactive": {"enabled": False}}}
    visit = Visit(browser, address, scheme=scheme)  # that rule is broken by Gradio's own place for files
    page = visit.page
    visit.give(LION)
    visit.caption()
    page.get_by_role("button", name="Advanced").click()
    page.get_by_role("button", name="How it searched").click()
    expect(page.locator("#tree .best").first).to_be_visible()
    page.wait_for_timeout(1000)  # what fades in has no contrast at first
    found = axe.run(page, options=rules)
    assert found.violations_count == 0, found.generate_report()
    for tab, button, file, done in (
        ("Many photos", "Caption them", "#album-files", "1 photo captioned"),
        ("A clip", "Caption it", "#clip-files", "is a picture"),
    ):
        page.get_by_role("tab", name=tab).click()
        page.set_input_files(f"{file} input[type=file]", str(LION))
        expect(page.locator(f"{file} .waiting")).to_contain_text("chosen", timeout=20_000)
        page.get_by_role("button", name=button).click()
        expect(page.get_by_text(done)).to_be_visible(timeout=20_000)
        page.wait_for_timeout(1000)
        found = axe.run(page, options=rules)
        assert found.violations_count == 0, found.generate_report()
    visit.close()


def test_an_example(browser: Browser, address: str) -> None:
    """One click, one caption; the examples have names for a screen reader and answer to the keyboard."""
    visit = Visit(browser, address)
    visit.page.get_by_role("button", name="Example: cheetah").click()
    assert visit.caption()
    visit.remove()
    visit.page.get_by_role("button", name="Example: tower").focus()
    visit.page.keyboard.press("Enter")
    assert visit.caption()
    visit.close()


DROP = """([data, name]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name));
  for (const type of ["dragenter", "dragover", "drop"])
    document.querySelector("#photo button.upload-container")
      .dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""

PASTE = """([data, name]) => {
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type: "image/jpeg" }));
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}"""


def test_dropped_and_pasted_files(browser: Browser, address: str) -> None:
    """A file that the system has no type for (HEIC on many) is judged by the server, not refused by its name."""
    visit = Visit(browser, address)
    photo = b64encode(LION.read_bytes()).decode()
    visit.page.evaluate(DROP, [photo, "photo.heic"])
    assert visit.caption()
    visit.remove()
    visit.page.evaluate(DROP, [b64encode(b"my notes").decode(), "notes.txt"])
    assert visit.problem()
    visit.page.evaluate(PASTE, [photo, "clipboard.jpg"])
    assert visit.caption()
    visit.close()


def test_a_photo_that_the_browser_cannot_show(browser: Browser, address: str, tmp_path: Path) -> None:
    """A TIFF is captioned and shown as a copy."""
    tiff = tmp_path / "lion.tif"
    Image.open(LION).save(tiff)
    visit = Visit(browser, address)
    visit.give(tiff)
    assert visit.caption()
    shown = visit.page.locator("#photo .image-frame img")
    expect(shown).to_be_visible()
    visit.page.wait_for_function("document.querySelector('#photo .image-frame img')?.naturalWidth > 0")
    visit.close()


def test_the_webcam(browser: Browser, address: str) -> None:
    """A picture taken is captioned at once (Chromium brings a fake camera)."""
    visit = Visit(browser, address)
    visit.page.get_by_role("button", name="Capture from camera").click()
    visit.page.get_by_text("Click to Access Webcam").click()
    # Before the camera's first frame a click takes nothing.
    visit.page.wait_for_function("document.querySelector('#photo video')?.videoWidth > 0", timeout=20_000)
    visit.page.get_by_role("button", name="capture photo").click()
    assert visit.caption()
    visit.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Browser, address: str, tmp_path: Path, scheme: str) -> None:
    """At 400 pixels nothing is cut off at the side, and the caption is right under the photo."""
    visit = Visit(browser, address, width=400, scheme=scheme)
    visit.give(LION)
    assert visit.caption()
    visit.page.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400
    below = visit.page.locator("#result .panel:not([hidden]) .sentence").bounding_box()
    examples = visit.page.locator("#examples").bounding_box()
    assert below is not None
    assert examples is not None
    assert below["y"] < min(600, examples["y"])
    # What Gradio measures its tabs by is out of sight, and no stop of the keyboard.
    small = visit.page.evaluate("""() => [...document.querySelectorAll("button, summary, select, input")]
      .filter((one) => !one.matches("[tabindex='-1'], [type=radio], [type=checkbox], [type=file]"))
      .filter((one) => one.getBoundingClientRect().height > 0 && one.getBoundingClientRect().height < 43.5)
      .map((one) => one.outerHTML.slice(0, 150))""")
    assert small == []
    visit.close()
