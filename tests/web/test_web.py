"""The page and its server, through the routes a browser uses; test_browser.py looks at it in a real one."""

import io
import math
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

import app as door
from captioner.captioner import Captioner
from captioner.captions import Caption, Explanation, Word
from captioner.checkpoint import ModelFile, save_model
from captioner.errors import ImageError, OptionError
from captioner.options import SearchOptions, WebOptions
from captioner.sureness import Sureness
from tests.hostile import encoded, noise, write_hostile_files
from tests.web.visitors import ADDRESS, Visitor, made

pytest.importorskip("gradio", reason="the page needs gradio")

from fastapi.testclient import TestClient

from captioner.web import server
from captioner.web.examples import EXAMPLES
from captioner.web.html import explained, searched

ROOT = Path(__file__).parents[2]


PHOTO = encoded(noise(), "JPEG")


def sentence(result: str) -> str:
    """The caption in a result."""
    found = re.search(r"<p class='sentence'>(.*?)</p>", result)
    assert found, result
    return found[1]


def test_the_page_answers_and_names_no_other_address(visitor: Visitor) -> None:
    """Nothing in the page leads a browser away from this server, and a policy forbids it to go."""
    page = visitor.client.get("/")
    assert page.status_code == 200
    assert "<title>" in page.text or '"title":"captioner"' in page.text
    others = {url for url in re.findall(r"https?://[^\s\"'<>)]+", page.text) if "//127.0.0.1:7860" not in url}
    assert others == set()
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    theme = visitor.client.get("/theme.css").text
    assert "@font-face" not in theme  # the visitor's own fonts
    assert "http" not in theme.replace(
        "http://www.w3.org/", ""
    )  # the name of SVG in inline drawings; nobody fetches it


def test_health(visitor: Visitor) -> None:
    """There is something to ask whether the server is alive."""
    assert visitor.client.get("/health").json() == {"status": "ok"}


def test_an_upload_gets_its_caption(visitor: Visitor, captioner: Captioner) -> None:
    """The page's answer is the Captioner's: its words, its alternatives, its probabilities."""
    expected = captioner(PHOTO)
    result = visitor.result(visitor.upload(PHOTO))
    assert sentence(result) == expected.text
    assert f"{100 * expected.word_probability:.0f}% mean probability per word" in result
    assert result.count("<tr>") == 2 + len(expected.alternatives) == 4
    for other in (expected, *expected.alternatives):
        share = math.exp(other.score - expected.score)
        assert f">{other.text}</button></td><td>{100 * share:.0f}%</td>" in result


def first_glance(result: str) -> str:
    """What is read of a result before anything is opened, pointed at or picked."""
    open_ones = re.sub(r"<details.*?</details>|<div class='panel' data-place='[1-9].*?</details></div>", "", result)
    return re.sub(r"<[^>]*>", " ", re.sub(r"<button type='button' class='word.*?</button>", "", open_ones))


def test_the_first_glance_is_in_words_people_know(visitor: Visitor) -> None:
    """No log-probabilities, no decoders, no mean per word; whoever opens "In numbers" finds them."""
    result = visitor.result(visitor.upload(PHOTO))
    for word in ("probab", "decoder", "beam", "mean", "log", "per word"):
        assert word not in first_glance(result).lower()
        assert word in result.lower() or word == "decoder"
    assert "As good as the best" in first_glance(result)


@pytest.mark.parametrize("rerank", [0.0, 0.75])
@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_best_first_shows_what_it_is_ranked_by(both_ways_file: ModelFile, rerank: float, penalty: float) -> None:
    """The numbers of the list fall from its first row, 100%, to its last, however many decoders rank it."""
    search = SearchOptions(5, 7, penalty, rerank)
    explanation = Captioner.of(both_ways_file).explain(PHOTO, search=search)
    shown = html_of(explanation, search)
    shares = [float(share) for share in re.findall(r"</button></td><td>(?:&lt;)?(\d+)%", shown)]
    assert len(shares) >= 3
    assert shares[0] == 100
    assert shares == sorted(shares, reverse=True)


def html_of(explanation: Explanation, search: SearchOptions) -> str:
    """What the page shows of it."""
    whole = (0.0, 0.0, 1.0, 1.0)
    return explained(explanation, by="", seconds=1, search=search, window=whole, name="", unsure=lambda _: None)


@pytest.mark.parametrize(("below", "said"), [(1.0, True), (0.0, False), (None, False)])
def test_the_model_says_that_it_is_unsure(
    small_file: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: float | None, said: bool
) -> None:
    """By the threshold that its own file carries, as training writes it; an older file carries none."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    origin = {} if below is None else {"sureness": asdict(Sureness(below, 0.8, 0.5, 30.0, 1000))}
    save_model(tmp_path / "model.safetensors", replace(small_file, provenance=origin))
    captioner = Captioner.load(tmp_path / "model.safetensors", "cpu")
    with TestClient(made(captioner, WebOptions()), base_url=ADDRESS) as client:
        visitor = Visitor(client)
        assert ("The model is unsure" in first_glance(visitor.result(visitor.upload(PHOTO)))) is said


@pytest.mark.parametrize("rerank", [0.0, 0.75])
def test_the_winner_comes_first_in_the_tree(both_ways_file: ModelFile, rerank: float) -> None:
    """However improbable its beginning: no word stands above its words. A beam wider than 3 is marked as wide."""
    for seed in range(4):
        for beam in (3, 5):
            search = SearchOptions(beam, 7, 0.5, rerank)
            explanation = Captioner.of(both_ways_file).explain(encoded(noise(seed=seed), "JPEG"), search=search)
            shown = searched(explanation, search)
            fates = re.findall(r"<span class='(\w+)'", shown[shown.index("<ul>") :])
            assert fates.index("best") == 0
            assert "best" not in fates[fates.count("best") :]
            assert ("class='tree wide'" in shown) is (beam > 3)


def test_unlikely_words_look_unlikely() -> None:
    """Paler below a half, marked too below a fifth, and the page says what the mark means."""
    words = tuple(Word(text, share) for text, share in (("a", 0.9), ("red", 0.4), ("yak", 0.1)))
    explanation = Explanation(Caption("A red yak", -3.0, words, 0.3, score=-1.0), ())
    shown = html_of(explanation, SearchOptions())
    assert re.findall(r"class='(word[^']*)'[^>]*>(\w+)", shown) == [
        ("word", "a"),
        ("word paler", "red"),
        ("word paler unlikely", "yak"),
    ]
    assert "Dotted words are unlikely" in shown


def test_the_sentence_appears_as_it_is_written(visitor: Visitor, captioner: Captioner) -> None:
    """Word by word, before the whole is there."""
    visitor.grown.clear()
    visitor.result(visitor.upload(PHOTO), 1, 7)
    said = [re.findall(r"growing[^>]*>([^<]*)<", str(step)) for step in visitor.grown]
    assert len([text for text in said if text]) >= 1, visitor.grown


def test_each_word_says_where_the_model_looked(visitor: Visitor, captioner: Captioner) -> None:
    """As numbers for page.js: the grid's cells, row by row, the highest 255; and its probability."""
    expected = captioner.explain(PHOTO).caption
    result = visitor.result(visitor.upload(PHOTO))
    panel = result[: result.index("data-place='1'")]
    chips = re.findall(r"data-look='([\d,]+)' data-columns='(\d+)'[^>]*>(\S+) <span>([^<]+)</span>", panel)
    assert [word for _, _, word, _ in chips] == [word.text for word in expected.words]
    for (cells, columns, _, probability), word in zip(chips, expected.words, strict=True):
        shares = [share for row in word.attention for share in row]
        shown = [int(cell) for cell in cells.split(",")]
        assert len(shown) == len(shares) == 49
        assert int(columns) == 7
        assert max(shown) == 255
        assert shown == pytest.approx([255 * share / max(shares) for share in shares], abs=1)
        assert probability == f"{100 * word.probability:.0f}%"


@pytest.mark.parametrize("method", ["Greedy", "Diverse", "Sampling"])
def test_other_ways_to_search(visitor: Visitor, captioner: Captioner, method: str) -> None:
    """Each gives a sentence and its tree; greedy is a beam of one, whatever the slider says."""
    answer = visitor.ask(visitor.upload(PHOTO), 3, 7, method=method)
    _, result, tree = answer["output"]["data"]
    assert sentence(result)
    assert "<li><span class='best'>" in tree
    if method == "Greedy":
        assert sentence(result) == captioner(PHOTO, search=SearchOptions(beam_size=1, max_length=7)).text
        assert "<table" not in result
        assert "'lost'" not in tree
    if method == "Diverse":
        expected = captioner(PHOTO, search=SearchOptions(beam_size=3, max_length=7, method="diverse"))
        assert sentence(result) == expected.text


def test_the_sliders_reach_the_search(visitor: Visitor, captioner: Captioner) -> None:
    """Beam size, longest caption and length penalty are the search's own."""
    file = visitor.upload(PHOTO)
    greedy = captioner(PHOTO, search=SearchOptions(beam_size=1, max_length=3))
    result = visitor.result(file, 1, 3, 0)
    assert sentence(result) == greedy.text
    assert "<table>" not in result
    wide = visitor.result(file, 5, 7, 1.5)
    assert sentence(wide) == captioner(PHOTO, search=SearchOptions(beam_size=5, max_length=7, length_penalty=1.5)).text


def test_the_second_decoder_has_a_slider_where_there_is_one(
    visitor: Visitor, both_ways_file: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reaches the search; a model that reads one way shows no such slider."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    captioner = Captioner.of(both_ways_file)
    with TestClient(made(captioner, WebOptions()), base_url=ADDRESS) as client:
        other = Visitor(client)
        file = other.upload(PHOTO)
        results = [other.result(file, 5, 7, 1.5, rerank) for rerank in (0, 1)]
        for rerank, result in enumerate(results):
            expected = captioner(PHOTO, search=SearchOptions(5, 7, 1.5, rerank))
            assert sentence(result) == (expected.text or "(It found no words.)")
            texts = [other.text or "(no words)" for other in (expected, *expected.alternatives)]
            assert re.findall(r"'>([^<]*)</button></td>", result) == [escape(text) for text in texts]
        assert "of two decoders" in results[1]
        assert results[0] != results[1]
        for someone, shown in ((other, True), (visitor, False)):
            parts = someone.client.get("/config").json()["components"]
            sliders = [part for part in parts if part["props"].get("label") == "Right to left"]
            assert [slider["props"]["visible"] for slider in sliders] == [shown, shown]


@pytest.mark.parametrize(
    "search", [(0, 7, 0), (3, 10**9, 0), ("x", 7, 0), (3, None, 0), (3, 7, float("1e99")), (3, 7, 0, 2), (3, 7, 0, 0.5)]
)
def test_a_wrong_setting_is_explained(visitor: Visitor, search: tuple[Any, ...]) -> None:
    """Whoever empties a slider's box, or a program, gets a sentence in the page's words; the photo stays."""
    shown, result, tree = visitor.ask(visitor.upload(PHOTO), *search)["output"]["data"]
    assert "class='problem'" in result
    assert "--" not in result
    assert shown == {"__type__": "update"}
    assert tree == ""


def test_a_photo_that_no_browser_shows_is_shown_as_a_copy(visitor: Visitor) -> None:
    """A TIFF has a caption and can be seen."""
    answer = visitor.ask(visitor.upload(encoded(noise(2000, 1000), "TIFF"), "photo.tif"))
    shown, result, _ = answer["output"]["data"]
    assert sentence(result)
    copy = visitor.client.get("/gradio_api/file=" + shown["value"]["path"])
    assert Image.open(io.BytesIO(copy.content)).format == "PNG"


def test_hostile_files_get_a_sentence_and_the_page_goes_on(visitor: Visitor, tmp_path: Path) -> None:
    """Whatever is uploaded, the answer is a sentence about the file, and never names a path of the server."""
    tried = 0
    for name, path in write_hostile_files(tmp_path / "hostile").items():
        if not path.is_file() or path.stat().st_size > 50_000_000:
            continue  # a browser uploads files, and Gradio itself stops at MAX_BYTES
        result = visitor.result(visitor.upload(path.read_bytes(), name))
        assert re.fullmatch(r"<p class='problem' role='alert'>This file .+\.</p>", result, re.DOTALL), (name, result)
        assert "/" not in re.sub(r"</?p", "", result), (name, result)
        tried += 1
    assert tried >= 20
    assert sentence(visitor.result(visitor.upload(PHOTO)))


def test_after_a_wrong_file_the_same_session_still_reads_pictures_itself(visitor: Visitor) -> None:
    """Gradio replaces a component that was answered with an update: the second wrong file meets the same handler."""
    for _ in range(2):
        assert "class='problem'" in visitor.result(visitor.upload(b"no picture"))
        assert sentence(visitor.result(visitor.upload(PHOTO)))


def test_no_photo_changes_nothing(visitor: Visitor) -> None:
    """A slider may be moved before there is a photo."""
    assert visitor.ask(None)["success"]


def test_an_upload_that_is_gone_is_explained(visitor: Visitor) -> None:
    """Uploads are deleted after a while; a slider moved later gets a sentence."""
    file = visitor.upload(encoded(noise(seed=9), "JPEG"))
    Path(file["path"]).unlink()
    assert "no longer here" in visitor.result(file)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Another server's address and what it was asked for, with Gradio's own rules (public servers only) out of the way."""
    asked: list[str] = []

    class Photo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(PHOTO)))
            self.end_headers()
            self.wfile.write(PHOTO)

        def log_message(self, *_: Any) -> None:
            pass

    async def allow(host: str) -> str:
        return "127.0.0.1"

    monkeypatch.setattr("safehttpx.async_validate_url", allow)
    with ThreadingHTTPServer(("127.0.0.1", 0), Photo) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{other.server_port}/photo.jpg", asked
        other.shutdown()


def test_the_server_fetches_no_address(visitor: Visitor, elsewhere: tuple[str, list[str]]) -> None:
    """An address in place of an upload is refused, whichever input it is given for."""
    url, asked = elsewhere
    meta = {"_type": "gradio.FileData"}
    for file in ({"path": url, "meta": meta}, {"path": url, "url": url, "meta": meta}):
        assert not visitor.ask(file)["success"]
        assert not visitor.ask(None, file)["success"]
        assert not visitor.ask(visitor.upload(PHOTO), 3, {"deeper": [file]})["success"]
    visitor.ask({**visitor.upload(PHOTO), "url": url})
    for path in ("file=", "proxy=", "file=%20"):
        assert visitor.client.get(f"/gradio_api/{path}{url}").status_code in (403, 404)
    assert asked == []


def test_the_server_reads_no_file_but_uploads(visitor: Visitor, tmp_path: Path) -> None:
    """A path of the server's own in place of an upload is refused."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(PHOTO)
    answer = visitor.ask({"path": str(secret), "meta": {"_type": "gradio.FileData"}})
    assert not answer["success"]
    assert "Upload the file" in str(answer)
    climbing = str(Path(visitor.upload(PHOTO)["path"]).parent) + "/../../.." + str(secret)
    assert not visitor.ask({"path": climbing, "meta": {"_type": "gradio.FileData"}})["success"]
    assert visitor.client.get(f"/gradio_api/file={secret}").status_code == 403


@pytest.mark.parametrize(
    "path", ["gradio_api/process_recording", "gradio_api/deep_link", "monitoring", "gradio_api/runs"]
)
def test_routes_that_the_page_does_not_use_are_closed(visitor: Visitor, path: str) -> None:
    """Gradio brings more routes than this page needs."""
    assert visitor.client.get("/" + path).status_code == 404


def test_a_fault_of_ours_is_not_told_to_visitors(
    visitor: Visitor, captioner: Captioner, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An unexpected exception stays in the log."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(captioner, "explain_pixels", fail)
    answer = visitor.ask(visitor.upload(PHOTO))
    assert not answer["success"]
    assert "secret" not in str(answer)
    assert "a secret" in capfd.readouterr().err


def test_the_page_says_what_the_model_learnt_from(visitor: Visitor) -> None:
    """From the model file, as text."""
    page = visitor.client.get("/config").text
    assert "Learnt from 6,000 pictures of &lt;Flickr8k&gt;" in page
    assert "mobilenet_v2 + lstm" in page


def examples(captioner: Captioner, options: WebOptions) -> list[str]:
    """The names of a page's example photos."""
    client = TestClient(made(captioner, options), base_url=ADDRESS)
    parts = client.get("/config").json()["components"]
    samples = [part["props"]["samples"] for part in parts if part["type"] == "dataset"]
    return [Path(sample[0]["path"]).stem for sample in (samples[0] if samples else [])]


def test_examples_of_ones_own(captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--examples shows the folder's first pictures; unreadable ones are left out; an empty folder is said."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(ImageError, match="no pictures in"):
        made(captioner, WebOptions(examples=str(folder)))
    (folder / "00.jpg").write_text("no picture")
    for number in range(1, EXAMPLES + 3):
        (folder / f"{number:02}.bmp").write_bytes(encoded(noise(seed=number), "BMP"))
    names = examples(captioner, WebOptions(examples=str(folder)))
    assert names == [f"{number:02}" for number in range(1, EXAMPLES + 1)]
    with pytest.raises(ImageError, match="nowhere"):
        made(captioner, WebOptions(examples=str(tmp_path / "nowhere")))


def test_examples_that_come_with_gradio(captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --examples there are some; where a later Gradio drops the files, there are none and the page stands."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    assert examples(captioner, WebOptions()) == ["cheetah", "lion", "tower"]
    monkeypatch.setattr("gradio.__file__", str(tmp_path / "__init__.py"))
    assert examples(captioner, WebOptions()) == []


def test_a_model_of_shapes_has_shapes_as_examples(
    small_file: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows nothing else; each is called by what is on it, and --examples still wins."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    shapes = Captioner.of(replace(small_file, provenance={"data": "shapes"}))
    names = examples(shapes, WebOptions())
    assert len(names) == 6
    assert all(re.search("circle|square|triangle", name) for name in names)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.bmp").write_bytes(encoded(noise(), "BMP"))
    assert examples(shapes, WebOptions(examples=str(tmp_path / "own"))) == ["mine"]


def test_a_port_in_use_is_explained(captioner: Captioner) -> None:
    """The message names the port and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"^port is {port}, .*choose another"):
            server.serve(None, "127.0.0.1", port)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"^host is 'no such host'"):
        server.serve(None, "no such host", 0)  # type: ignore[arg-type]


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    """--help answers before torch and gradio could have been imported."""
    code = "import sys, app\ntry: app.main(['--help'])\nfinally: print({'torch', 'gradio', 'PIL'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "--examples" in done.stdout
    assert done.stdout.endswith("set()\n")
    started = time.perf_counter()
    subprocess.run([sys.executable, "app.py", "--help"], cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert time.perf_counter() - started < 2  # 0.1 s where nobody else uses the machine


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere.safetensors"], "There is no model file nowhere.safetensors: check the path.\n"),
        (["--port", "70000"], "--port is 70000: it must be at most 65535.\n"),
    ],
)
def test_a_wrong_start_is_one_sentence_and_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's mistake shows no traceback."""
    assert door.main(arguments) == 2
    assert capsys.readouterr() == ("", message)
