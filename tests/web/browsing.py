"""A real headless Chromium, for tests of the page, and someone who visits it there."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

import gradio
from playwright.sync_api import Browser, Page, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
).split()
LION = Path(gradio.__file__).parent / "media_assets" / "images" / "lion.jpg"

needed = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
    pytest.mark.skipif(not LION.exists(), reason="this Gradio ships no photo of a lion"),
]


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
        expect(self.page.locator("#result .waiting")).to_be_visible(timeout=30_000)
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
        expect(self.page.locator("#result .waiting")).to_be_visible()
        self.ready()

    def caption(self) -> str:
        """The sentence, once it is there."""
        sentence = self.page.locator("#result .panel:not([hidden]) .sentence")
        expect(sentence).to_be_visible(timeout=20_000)
        return sentence.inner_text()

    def problem(self) -> str:
        """The kind sentence, once it is there."""
        expect(self.page.locator(".problem")).to_be_visible(timeout=20_000)
        expect(self.page.get_by_text("Drop a photo here")).to_be_visible()  # ready for the next
        return self.page.locator(".problem").inner_text()

    def close(self) -> None:
        """Leaves, having asked nobody else for anything and seen no error."""
        others = [url for url in self.asked if not url.startswith((self.address, "data:", "blob:"))]
        assert (others, self.errors) == ([], [])
        self.page.context.close()
