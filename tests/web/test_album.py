"""An album as people work on it, in a real headless Chromium: what is kept of it, by keys alone, and how what is wrong
is found.
"""

import csv
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from captioner.captioner import Captioner
from captioner.card import read_card
from captioner.checkpoint import model_path, restore, save_model
from captioner.sureness import Sureness
from tests.conftest import serving
from tests.web.browsing import LION, Visit, needed

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
from playwright.sync_api import Browser, Locator, Page, expect  # noqa: E402

pytestmark = needed

TOWER = LION.with_name("tower.jpg")
CHEETAH = LION.with_name("cheetah.jpg")


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a model whose file says that it is unsure of what it says of one of LION and TOWER."""
    folder = tmp_path_factory.mktemp("doubtful")
    path, bundled = folder / "model.safetensors", model_path("fast")
    if not bundled.exists():
        pytest.skip("there is no bundled model")
    file = restore(bundled, read_card(bundled), torch.device("cpu"))
    lion, tower = (caption.word_probability for caption in Captioner.of(file)([LION, TOWER]))
    assert abs(lion - tower) > 0.02
    origin = {"sureness": asdict(Sureness((lion + tower) / 2, 0.8, 0.5, 30.0, 1000))}
    save_model(path, replace(file, provenance=origin))
    with serving(folder, "--model", str(path)) as address:
        yield address


def opened(visit: Visit) -> Page:
    visit.page.get_by_role("tab", name="Many photos").click()
    return visit.page


def give(page: Page, *paths: Path) -> None:
    page.set_input_files("#album-files input[type=file]", [str(path) for path in paths])
    expect(page.locator("#album-files .waiting")).to_contain_text("chosen", timeout=20_000)


def caption_them(page: Page, said: str) -> None:
    page.get_by_role("button", name="Caption them").click()
    expect(page.locator("#album-progress")).to_contain_text(said, timeout=60_000)


def cards(page: Page) -> Locator:
    return page.locator("#album .gallery > li")


def names(page: Page) -> list[str]:
    """Of the photos that are to be seen, as they stand."""
    return [item.locator("small").inner_text() for item in cards(page).all() if item.is_visible()]


def test_nothing_is_lost(browser: Browser, doubtful: str, tmp_path: Path) -> None:
    """What was captioned, edited and checked outlives a reload, the server's copies, more photos and a change of mind."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    visit = Visit(browser, doubtful)
    page = opened(visit)
    give(page, LION, TOWER, broken)
    caption_them(page, "2 photos captioned")
    page.get_by_label("Caption of lion.jpg").fill("My own words")
    page.get_by_label("Checked: tower.jpg").check()
    page.wait_for_timeout(500)  # the browser's database

    visit.asked.clear()
    page.reload()
    page = opened(visit)
    expect(page.get_by_label("Caption of lion.jpg")).to_have_value("My own words")
    expect(page.get_by_label("Checked: tower.jpg")).to_be_checked()
    page.wait_for_function("[...document.querySelectorAll('#album img')].every((image) => image.naturalWidth > 0)")
    assert [url for url in visit.asked if "picture.jpg" in url] == []  # the server may have deleted them long ago
    expect(page.locator("#album .count")).to_have_text("3 photos, 1 with errors, 1 edited, 1 checked")

    give(page, LION)  # of the same name, and the album stays as it is
    caption_them(page, "1 photo captioned")
    assert names(page) == ["lion.jpg", "tower.jpg", "broken.jpg", "lion-2.jpg"]
    expect(page.get_by_label("Caption of lion.jpg")).to_have_value("My own words")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.reader(download.value.path().read_text(encoding="utf-8-sig").splitlines()))
    assert [name for name, _ in rows] == ["image", "lion.jpg", "tower.jpg", "lion-2.jpg"]
    assert rows[1] == ["lion.jpg", "My own words"]

    asked: list[str] = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name="Clear the album").click()
    assert asked == ["Throw away the album of 4 photos? 2 of them are edited or checked."]
    expect(cards(page)).to_have_count(4)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Clear the album").click()
    expect(cards(page)).to_have_count(0)
    page.wait_for_timeout(500)
    page.reload()
    page = opened(visit)
    page.wait_for_timeout(1000)
    expect(cards(page)).to_have_count(0)
    visit.close()


def test_a_reload_in_the_middle_goes_on(browser: Browser, doubtful: str, tmp_path: Path) -> None:
    """What has its caption keeps it, what waited waits still, and each photo of a zip comes once."""
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(120):
            archive.write(LION, f"{number:03}.jpg")
    visit = Visit(browser, doubtful)
    page = opened(visit)
    give(page, TOWER, tmp_path / "many.zip")
    page.get_by_role("button", name="Caption them").click()
    expect(page.get_by_label("Caption of 002.jpg")).to_be_attached(timeout=40_000)
    page.reload()
    page = opened(visit)
    expect(page.locator("#album-files .waiting")).to_have_text("1 file chosen")
    expect(cards(page)).not_to_have_count(0)  # which are fetched from the browser's store
    page.wait_for_timeout(1000)
    assert 2 <= cards(page).count() < 121  # the one that came last may not have been kept, and comes again
    caption_them(page, "photos captioned")
    assert sorted(names(page)) == sorted(["tower.jpg", *(f"{number:03}.jpg" for number in range(120))])
    expect(page.locator("#album-files .waiting")).to_have_text("")
    page.context.close()  # to leave in the middle is an error to Gradio


RING = """() => {
  const one = document.activeElement.matches("[type=radio], [type=checkbox]")
    ? document.activeElement.closest("label") ?? document.activeElement : document.activeElement;
  const luminance = (colour) => {
    const [red, green, blue] = colour.match(/[\\d.]+/g).map((part) => {
      const value = part / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const style = getComputedStyle(one), ring = luminance(style.outlineColor);
  const ground = luminance(getComputedStyle(document.body).backgroundColor);
  const name = one.ariaLabel || one.textContent.trim() || one.id || one.tagName;
  const contrast = (Math.max(ring, ground) + 0.05) / (Math.min(ring, ground) + 0.05);
  return { name, tag: one.tagName, seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2, contrast };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_by_keys_alone(browser: Browser, doubtful: str, tmp_path: Path, scheme: str) -> None:
    """Twenty files: under ten Tabs to the main button, Enter from caption to caption, Esc undoes, and the ring is seen."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe looks at the page").Axe()
    files = []
    for number in range(20):
        files.append(tmp_path / f"{number:02}.jpg")
        Image.open(LION).crop((number, 0, 400, 400)).save(files[-1])
    visit = Visit(browser, doubtful, scheme=scheme)
    page = visit.page
    met: list[dict[str, Any]] = []

    def tab_to(name: str, most: int) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            page.wait_for_timeout(250)  # Gradio's rings fade in
            met.append(page.evaluate(RING))
            if met[-1]["name"].startswith(name):
                return
        raise AssertionError([one["name"] for one in met])

    tab_to("Many photos", 3)
    page.keyboard.press("Enter")
    tab_to("Choose photos", 3)
    page.on("filechooser", lambda chooser: chooser.set_files([str(path) for path in files]))
    page.wait_for_timeout(500)  # until it listens
    page.keyboard.press("Enter")
    expect(page.locator("#album-files .waiting")).to_have_text("20 files chosen", timeout=20_000)
    page.evaluate("document.activeElement.blur()")
    page.get_by_role("tab", name="One photo").focus()
    before = len(met)
    tab_to("Caption them", 9)
    assert len(met) - before < 10
    page.keyboard.press("Enter")
    expect(page.locator("#album-progress")).to_contain_text("20 photos captioned", timeout=60_000)
    tab_to("Caption of 00.jpg", 20)
    first = page.get_by_label("Caption of 00.jpg")
    was = first.input_value()
    page.keyboard.press("Control+A")
    page.keyboard.type("Something else")
    page.keyboard.press("Escape")
    expect(first).to_have_value(was)
    page.keyboard.type(", in the shade")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_label("Checked: 00.jpg")).to_be_checked()
    expect(page.get_by_label("Caption of 01.jpg")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Caption of 02.jpg")).to_be_focused()
    page.keyboard.press("Shift+Enter")
    expect(page.get_by_label("Caption of 01.jpg")).to_be_focused()
    tab_to("Checked", 1)
    tab_to("More for 01.jpg", 1)
    page.keyboard.press("Enter")
    page.wait_for_timeout(500)
    page.screenshot(path=tmp_path / f"keys-{scheme}.png")
    unseen = [one for one in met if not one["seen"] or one["contrast"] < 3]
    assert unseen == []
    assert [heading.inner_text() for heading in page.get_by_role("heading", level=2).all() if heading.is_visible()] == [
        "Photos to caption",
        "Album",
    ]
    expect(page.get_by_role("region", name="Album")).to_be_visible()
    expect(page.get_by_role("region", name="Photos to caption")).to_be_visible()
    rules = {"runOnly": ["wcag2a", "wcag2aa", "best-practice"]}
    found = axe.run(page, options=rules)
    assert found.violations_count == 0, found.generate_report()
    visit.close()


def test_files_are_taken_away_by_their_names(browser: Browser, doubtful: str) -> None:
    """A list that is opened on demand, whose buttons say what they remove."""
    visit = Visit(browser, doubtful)
    page = opened(visit)
    give(page, LION, TOWER, CHEETAH)
    page.locator("#album-files").get_by_text("Show them").click()
    page.get_by_role("button", name="Remove tower.jpg").press("Enter")
    expect(page.get_by_role("button", name="Remove cheetah.jpg")).to_be_focused()
    expect(page.locator("#album-files .waiting")).to_have_text("2 files chosen")
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator("#album-files .waiting")).to_have_text("")
    visit.close()


def test_the_wrong_ones_are_found(browser: Browser, doubtful: str, tmp_path: Path) -> None:
    """The least sure first, those that the model is unsure of, and by words; other sentences and a new caption."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    visit = Visit(browser, doubtful)
    page = opened(visit)
    give(page, LION, TOWER, broken)
    caption_them(page, "2 photos captioned")
    unsure = "tower.jpg" if cards(page).nth(1).get_by_text("The model is unsure").is_visible() else "lion.jpg"
    sure = "lion.jpg" if unsure == "tower.jpg" else "tower.jpg"
    page.get_by_label("Order").select_option("least sure first")
    assert names(page) == [unsure, sure, "broken.jpg"]
    page.get_by_label("Show").select_option("unsure")
    assert names(page) == [unsure]
    expect(page.locator("#album .count")).to_contain_text("1 of 3 photos")
    page.get_by_label("Show").select_option("errors")
    assert names(page) == ["broken.jpg"]
    page.get_by_label("Show").select_option("all")
    page.get_by_label(f"Caption of {sure}").fill("A zebra")
    page.get_by_label("Show").select_option("edited")
    assert names(page) == [sure]
    page.get_by_label("Show").select_option("all")
    page.get_by_label("Find").fill("ZEBRA")
    assert names(page) == [sure]
    page.get_by_label("Find").fill("")
    page.get_by_label(f"Checked: {sure}").check()
    page.get_by_label("Show").select_option("not checked")
    assert names(page) == [unsure]

    item = cards(page).filter(has_text=unsure)
    first = page.get_by_label(f"Caption of {unsure}").input_value()
    item.get_by_text("More").click()
    other = item.locator(".pick").first
    text = other.inner_text()
    other.click()
    expect(page.get_by_label(f"Caption of {unsure}")).to_have_value(text)
    page.screenshot(path=tmp_path / "wrong.png", full_page=True)
    page.get_by_label(f"Search for {unsure}").select_option("as the model prefers")
    page.get_by_role("button", name="Caption anew").click()
    expect(page.get_by_label(f"Caption of {unsure}")).to_have_value(first, timeout=20_000)
    page.wait_for_timeout(300)
    page.reload()  # and now by the small picture that the browser keeps
    page = opened(visit)
    page.get_by_label(f"Caption of {unsure}").fill("wrong")
    cards(page).filter(has_text=unsure).get_by_text("More").click()
    page.get_by_label(f"Search for {unsure}").select_option("greedy")
    page.get_by_role("button", name="Caption anew").click()
    expect(page.get_by_label(f"Caption of {unsure}")).not_to_have_value("wrong", timeout=20_000)
    visit.close()


def test_a_folder_is_chosen_whole(browser: Browser, doubtful: str, tmp_path: Path) -> None:
    """Two photos of one name keep their folders, and what is no photo stays out and is counted."""
    for place in ("rome", "oslo"):
        (tmp_path / "trip" / place).mkdir(parents=True)
        (tmp_path / "trip" / place / "1.jpg").write_bytes(LION.read_bytes())
    (tmp_path / "trip" / "notes.txt").write_text("mine")
    (tmp_path / "trip" / ".hidden.jpg").write_bytes(b"")
    visit = Visit(browser, doubtful, width=400)
    page = opened(visit)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(str(tmp_path / "trip"))
    expect(page.locator("#album-files .waiting")).to_have_text("2 files chosen", timeout=20_000)
    expect(page.locator("#album-files .problem")).to_contain_text("1 of the folder's files")
    caption_them(page, "2 photos captioned")
    assert sorted(names(page)) == ["trip/oslo/1.jpg", "trip/rome/1.jpg"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Text files").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sorted(archive.namelist()) == ["trip/oslo/1.txt", "trip/rome/1.txt"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    visit.close()


@pytest.mark.skipif(not shutil.which("exiftool"), reason="ExifTool is not installed")
def test_photos_get_their_captions_inside(
    browser: Browser, doubtful: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As edited, also after the server's hour: what it has deleted, this tab sends once more; a new tab cannot."""
    visit = Visit(browser, doubtful)
    page = opened(visit)
    give(page, LION, TOWER)
    caption_them(page, "2 photos captioned")
    page.get_by_label("Caption of lion.jpg").fill("My own words")

    def forget() -> None:
        for path in tmp_path_factory.getbasetemp().glob("doubtful*/uploads/*/uploads/*/lion.jpg"):
            path.unlink(missing_ok=True)  # the server deletes what was left, too

    forget()
    with page.expect_download() as download:
        page.get_by_role("button", name="Photos with captions inside").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sorted(archive.namelist()) == ["lion.jpg", "tower.jpg"]
        with archive.open("lion.jpg") as file, Image.open(file) as image, Image.open(LION) as sent:
            assert b"My own words" in image.info["xmp"]
            assert image.tobytes() == sent.tobytes()

    page.wait_for_timeout(500)  # the browser's database
    page.reload()
    page = opened(visit)
    forget()
    page.get_by_role("button", name="Photos with captions inside").click()
    expect(page.locator("#album .downloading")).to_contain_text("some are gone: send them again", timeout=20_000)
    page.screenshot(path=tmp_path / "gone.png", full_page=True)
    assert all("410 (Gone)" in error for error in visit.errors)  # as the console says, too
    visit.errors.clear()
    visit.close()
