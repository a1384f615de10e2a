"""The page as a person uses it: `python app.py` in a process of its own, and a real headless Chromium.

Skipped where Chromium, playwright or the bundled model is missing. Screenshots are left in pytest's temporary folder.
"""

import re
import select
import shutil
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from captioner.checkpoint import BUNDLED
from captioner.options import MODELS

pytest.importorskip("gradio", reason="the page needs gradio")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

import gradio  # noqa: E402
from playwright.sync_api import Browser, Page, expect  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
).split()
ROOT = Path(__file__).parent.parent
LION = Path(gradio.__file__).parent / "media_assets" / "images" / "lion.jpg"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
    pytest.mark.skipif(not LION.exists(), reason="this Gradio ships no photo of a lion"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`python app.py`, ready; stopped with Ctrl-C at the end, which must be quiet."""
    if not BUNDLED.exists():
        pytest.skip("the bundled model is not trained yet")
    log = tmp_path_factory.mktemp("server") / "stderr.txt"
    command = [sys.executable, "app.py", "--port", "0", "--device", "cpu"]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], 120)
            line = process.stdout.readline() if ready else ""
            found = re.match(r"captioner is at (http://127\.0\.0\.1:\d+) \(the bundled model .* on cpu\)$", line)
            assert found, (line, log.read_text())
            yield found[1]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert log.read_text() == ""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """The page in a tab, with everything the tab asked for."""

    def __init__(self, browser: Browser, address: str, *, width: int = 1400, scheme: str = "light") -> None:
        self.address = address
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        self.page: Page = context.new_page()
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.goto(address)
        expect(self.page.locator(".waiting")).to_be_visible(timeout=30_000)
        self.ready()

    def ready(self) -> None:
        """Waits until the photo's place takes files: it is rebuilt after every upload."""
        expect(self.page.locator("#photo input[type=file]")).to_be_attached(timeout=20_000)

    def give(self, *files: Path) -> None:
        """Chooses a file for the photo."""
        self.page.set_input_files("#photo input[type=file]", [str(file) for file in files])

    def remove(self) -> None:
        """Takes the photo away."""
        self.page.get_by_role("button", name="Remove Image").click()
        expect(self.page.locator(".waiting")).to_be_visible()
        self.ready()

    def caption(self) -> str:
        """The sentence, once it is there."""
        expect(self.page.locator(".sentence")).to_be_visible(timeout=20_000)
        return self.page.locator(".sentence").inner_text()

    def problem(self) -> str:
        """The kind sentence, once it is there."""
        expect(self.page.locator(".problem")).to_be_visible(timeout=20_000)
        expect(self.page.get_by_text("Drop a photo here")).to_be_visible()  # ready for the next
        return self.page.locator(".problem").inner_text()

    def close(self) -> None:
        """Leaves, having asked nobody else for anything and seen no error."""
        others = [url for url in self.asked if not url.startswith((self.address, "data:", "blob:"))]
        assert others == []
        assert self.errors == []
        self.page.context.close()


def test_a_photo_its_caption_and_a_wrong_file(browser: Browser, address: str, tmp_path: Path) -> None:
    """Upload, read, try other settings, be told kindly what is wrong with a file, go on."""
    visit = Visit(browser, address)
    page = visit.page
    visit.give(LION)
    first = visit.caption()
    assert len(first.split()) >= 3
    assert re.fullmatch(r"\d+% mean probability per word, in \d+\.\d\d s", page.locator(".sure").inner_text())
    alternatives = page.locator("#result tbody tr").count()
    assert alternatives >= 1
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
    """One click, and the other model captions the same photo, with sliders of its own."""
    visit = Visit(browser, address)
    page = visit.page
    visit.give(LION)
    visit.caption()
    page.get_by_role("button", name="Advanced").click()
    page.get_by_label("number input for Beam size").fill("1")
    page.get_by_label("number input for Beam size").press("Tab")
    expect(page.locator("#result table")).to_have_count(0, timeout=20_000)
    page.get_by_role("radio", name="fast").click()
    expect(page.locator("#model")).to_contain_text("the bundled model fast")
    expect(page.locator("#result table")).to_have_count(1, timeout=20_000)  # not the other's beam of 1
    assert visit.caption()
    expect(page.get_by_label("number input for Beam size")).not_to_have_value("1")
    page.get_by_role("radio", name="accurate").click()
    expect(page.locator("#model")).to_contain_text("the bundled model accurate")
    expect(page.locator("#result table")).to_have_count(0, timeout=20_000)
    expect(page.get_by_label("number input for Beam size")).to_have_value("1")
    visit.close()


def test_an_example(browser: Browser, address: str) -> None:
    """One click, one caption; the examples have names for a screen reader and answer to the keyboard."""
    visit = Visit(browser, address)
    visit.page.get_by_role("button", name="Example: cheetah1").click()
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
    below = visit.page.locator(".sentence").bounding_box()
    examples = visit.page.locator("#examples").bounding_box()
    assert below is not None
    assert examples is not None
    assert below["y"] < min(600, examples["y"])
    visit.close()
