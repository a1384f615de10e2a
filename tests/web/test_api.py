"""The promises of `POST /api/caption`, /docs, /metrics and --auth, through the application as it is served."""

import asyncio
import base64
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from captioner.captioner import Captioner
from captioner.checkpoint import ModelFile
from captioner.errors import OptionError
from captioner.options import SearchOptions, WebOptions
from tests.hostile import encoded, noise, write_hostile_files

pytest.importorskip("gradio", reason="the page needs gradio")

from fastapi.testclient import TestClient

from captioner.web.queue import ModelQueue
from captioner.web.requests import MAX_FILES
from captioner.web.server import create_app

PHOTO = encoded(noise(), "JPEG")


def client_of(captioners: dict[str, Captioner], options: WebOptions, queue: ModelQueue | None = None) -> TestClient:
    """Made inside a running event loop: outside one, Gradio opens several that nobody closes."""

    async def make() -> TestClient:
        return TestClient(create_app(captioners, options, queue), base_url="http://127.0.0.1:7860")

    return asyncio.run(make())


@pytest.fixture(scope="module")
def captioner(both_ways_file: ModelFile) -> Captioner:
    return Captioner.of(both_ways_file)


@pytest.fixture(scope="module")
def client(captioner: Captioner, small_file: ModelFile) -> Iterator[TestClient]:
    other = Captioner.of(small_file)
    with client_of({"first": captioner, "other": other}, WebOptions()) as client:
        yield client


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def post(client: TestClient, *files: tuple[str, bytes], **settings: Any) -> Any:
    return client.post("/api/caption", files=[("files", file) for file in files], data=settings)


def test_files_of_a_form_get_their_captions(client: TestClient, captioner: Captioner) -> None:
    """In their order, by their names, with what the Captioner says of them."""
    photos = [(f"{seed}.jpg", encoded(noise(seed=seed), "JPEG")) for seed in range(3)]
    answer = post(client, *photos)
    assert answer.status_code == 200
    assert answer.json()["model"] == "first"
    for (name, data), found in zip(photos, answer.json()["captions"], strict=True):
        expected = captioner(data)
        assert (found["name"], found["caption"]) == (name, expected.text)
        assert found["log_probability"] == pytest.approx(expected.log_probability, abs=1e-3)
        assert [other["caption"] for other in found["alternatives"]] == [other.text for other in expected.alternatives]


def test_json_gets_the_same(client: TestClient) -> None:
    """Base64, with or without the head of a data URL."""
    form = post(client, ("a.jpg", PHOTO)).json()["captions"][0]
    images = [base64_of(PHOTO), "data:image/jpeg;base64," + base64_of(PHOTO)]
    answer = client.post("/api/caption", json={"images": images})
    assert answer.status_code == 200
    assert [found.pop("name") for found in answer.json()["captions"]] == ["image 1", "image 2"]
    for found in answer.json()["captions"]:
        assert {**form, "name": found["name"]} == found


def test_every_setting_reaches_the_search(client: TestClient, captioner: Captioner) -> None:
    """As form fields or in JSON; the model too."""
    settings = {"beam_size": 4, "max_length": 3, "length_penalty": 1.5, "rerank": 0.5}
    expected = captioner(PHOTO, search=SearchOptions(**settings))
    for answer in (
        post(client, ("a.jpg", PHOTO), **settings),
        client.post("/api/caption", json={"images": [base64_of(PHOTO)], **settings}),
    ):
        assert answer.json()["captions"][0]["caption"] == expected.text
    diverse = {"method": "diverse", "diversity": 50, "beam_size": 3}
    answer = post(client, ("a.jpg", PHOTO), **diverse)
    assert len(answer.json()["captions"][0]["alternatives"]) >= 1
    assert post(client, ("a.jpg", PHOTO), model="other").json()["model"] == "other"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beam_size": 0}, "beam_size"),
        ({"beam_size": "many"}, "beam_size"),
        ({"beam_size": 2.5}, "beam_size"),
        ({"method": "luck"}, "method is 'luck': choose one of beam, diverse, sample"),
        ({"temperature": -1}, "temperature"),
        ({"nucleus": "nan"}, "nucleus"),
        ({"model": "third"}, "first or other"),
        ({"model": "other", "rerank": 0.5}, "no right-to-left decoder"),
        ({"beam": 3}, "beam_size"),
    ],
)
def test_a_wrong_setting_is_named(client: TestClient, settings: dict[str, Any], said: str) -> None:
    """With what would be right, in the API's words, not the command line's."""
    for answer in (
        post(client, ("a.jpg", PHOTO), **settings),
        client.post("/api/caption", json={"images": [base64_of(PHOTO)], **settings}),
    ):
        assert answer.status_code == 422
        assert said in answer.json()["error"]
        assert "--" not in answer.json()["error"]


def test_one_bad_picture_costs_the_others_nothing(client: TestClient) -> None:
    """It has its error in its place."""
    answer = post(client, ("a.jpg", PHOTO), ("b.jpg", b"no picture"), ("c.jpg", PHOTO))
    assert answer.status_code == 200
    found = answer.json()["captions"]
    assert ["caption" in one for one in found] == [True, False, True]
    assert "not a picture" in found[1]["error"]


def test_hostile_files_get_a_sentence(client: TestClient, tmp_path: Path) -> None:
    """Alone, each is answered with a status of its own and one sentence, without a path of the server."""
    tried = 0
    for name, path in write_hostile_files(tmp_path / "hostile").items():
        if not path.is_file() or path.stat().st_size > 50_000_000:
            continue
        answer = post(client, (name, path.read_bytes()))
        assert answer.status_code == 422, name
        assert answer.json()["error"].startswith("the picture "), name
        assert str(tmp_path) not in answer.text
        tried += 1
    assert tried >= 20


JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", {}, 415),
        (b"{}", {"content-type": "text/plain"}, 415),
        (PHOTO, {"content-type": "image/jpeg"}, 415),
        (b"{}", JSON, 400),
        (b"[]", JSON, 400),
        (b"null", JSON, 400),
        (b"{", JSON, 400),
        (b"\xff\xfe", JSON, 400),
        (b"[" * 100_000, JSON, 400),
        (b'{"images": "@@@"}', JSON, 400),
        (b'{"images": [7]}', JSON, 400),
        (b'{"images": []}', JSON, 400),
        (b'{"images": [""]}', JSON, 422),
        (b"nothing", FORM, 400),
        (b"", FORM, 400),
        (b"--x\r\nContent-Disposition: form-data; name=files\r\n\r\nhello\r\n--x--\r\n", FORM, 400),
        (b"", {"content-type": "multipart/form-data"}, 400),
    ],
)
def test_whatever_is_sent_the_answer_is_a_sentence(
    client: TestClient, content: bytes, headers: dict[str, str], status: int
) -> None:
    """JSON with the right status."""
    answer = client.post("/api/caption", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"].endswith(".")


def test_other_methods_are_told_which(client: TestClient) -> None:
    """Not that there is no such page."""
    answer = client.get("/api/caption")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "POST" in answer.json()["error"]


def test_too_much_is_refused(client: TestClient, captioner: Captioner) -> None:
    """By the length that is announced, by what really comes, and by the number of pictures."""
    many = [(f"{number}.jpg", b"x") for number in range(MAX_FILES + 1)]
    assert post(client, *many).status_code in (400, 413)
    assert client.post("/api/caption", json={"images": [base64_of(PHOTO)] * (MAX_FILES + 1)}).status_code == 413
    large = bytes(6_000_000)
    with client_of({"first": captioner}, WebOptions(most_request=5)) as client:
        for answer in (
            post(client, ("a.jpg", large)),
            client.post("/api/caption", json={"images": [base64_of(large)]}),
            client.post(
                "/api/caption", content=iter([b'{"images": ["', large, b'"]}']), headers=JSON
            ),  # no length said
        ):
            assert answer.status_code == 413
            assert "bigger than 5 MB" in answer.json()["error"]


@pytest.mark.parametrize("make", [base64.b64encode, base64.encodebytes, base64.urlsafe_b64encode])
def test_base64_as_people_make_it(client: TestClient, make: Any) -> None:
    """In lines, with a newline at the end, in the alphabet of addresses, without padding, in a data URL."""
    expected = post(client, ("a.jpg", PHOTO)).json()["captions"][0]["caption"]
    for data in (PHOTO, PHOTO + b"x", PHOTO + b"xy"):  # three lengths of padding; what follows a JPEG is passed over
        text = make(data).decode()
        texts = [
            text,
            text + "\n",
            "  " + text.replace("\n", "\r\n"),
            text.strip().rstrip("="),
            "data:image/jpeg;base64," + text,
        ]
        answer = client.post("/api/caption", json={"images": texts})
        assert [found.get("caption") for found in answer.json()["captions"]] == [expected] * len(texts)


def test_the_shared_cases_of_base64(client: TestClient) -> None:
    """Files as people sent them."""
    folder = Path(__file__).parents[3] / "shared" / "cases" / "api-base64"
    if not folder.is_dir():
        pytest.skip(f"the cases are not at {folder}")
    for name, captioned in (("plain", [True]), ("wrapped", [True]), ("one-bad", [True, False])):
        answer = client.post("/api/caption", content=(folder / f"{name}.json").read_bytes(), headers=JSON)
        assert answer.status_code == 200, name
        assert ["caption" in found for found in answer.json()["captions"]] == captioned


def test_one_bad_string_costs_only_itself(client: TestClient) -> None:
    """Whatever it is; where none is base64, the body is wrong."""
    good = base64_of(PHOTO)
    bad = ["@@@", "a", good[:-4] + "!!!!", 7, None, ["x"], {"a": 1}, "data:image/png;base64,äöü", "\ud800"]
    answer = client.post("/api/caption", json={"images": [good, *bad[:-1], good]})
    assert answer.status_code == 200
    found = answer.json()["captions"]
    assert ["caption" in one for one in found] == [True, *[False] * (len(bad) - 1), True]
    assert all("base64" in one["error"] for one in found[1:-1])
    body = json.dumps({"images": [good, "\ud800"]}).encode()
    assert client.post("/api/caption", content=body, headers=JSON).status_code == 200
    assert client.post("/api/caption", json={"images": bad[:3]}).status_code == 400


def test_a_full_queue_answers_politely(captioner: Captioner) -> None:
    """503, with a time to wait, and nothing of the refused request goes on working."""

    class Slow(Captioner):
        gate = threading.Event()

        def caption_pixels(self, *rest: Any, **more: Any) -> Any:
            assert self.gate.wait(30)
            return super().caption_pixels(*rest, **more)

    slow, queue = Slow(captioner.network, captioner.card), ModelQueue(batch=1, capacity=2)
    with client_of({"first": slow}, WebOptions(), queue) as client, ThreadPoolExecutor(3) as visitors:
        waiting = []
        for number in (1, 2, 3):  # the first is with the model before the others take the two places
            waiting.append(visitors.submit(post, client, ("a.jpg", PHOTO)))
            while queue.counts.batches < 1 or queue.counts.batches + queue.waiting < number:
                threading.Event().wait(0.01)
        refused = post(client, ("b.jpg", PHOTO))
        assert refused.status_code == 503
        assert "try again" in refused.json()["error"]
        assert int(refused.headers["retry-after"]) >= 1
        slow.gate.set()
        assert [answer.result(30).status_code for answer in waiting] == [200] * 3
        assert post(client, ("b.jpg", PHOTO)).status_code == 200
    queue.close()


def test_requests_that_come_together_go_through_the_model_together(captioner: Captioner) -> None:
    """And each gets its own caption."""
    photos = [encoded(noise(seed=seed), "JPEG") for seed in range(12)]
    expected = [captioner(photo).text for photo in photos]
    queue = ModelQueue(wait=0.5)
    with client_of({"first": captioner}, WebOptions(), queue) as client, ThreadPoolExecutor(12) as visitors:
        answers = visitors.map(lambda photo: post(client, ("a.jpg", photo)).json(), photos)
        assert [answer["captions"][0]["caption"] for answer in answers] == expected
    assert queue.counts.pictures == 12
    assert queue.counts.batches < 6
    queue.close()


def test_the_description_names_every_setting_and_loads_nothing_from_elsewhere(client: TestClient) -> None:
    """OpenAPI, and a page that shows it with files of this server alone."""
    description = client.get("/openapi.json").json()
    operation = description["paths"]["/api/caption"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    for content in operation["requestBody"]["content"].values():
        assert {field.name for field in fields(SearchOptions)} | {"model"} <= set(content["schema"]["properties"])
    assert {"200", "400", "413", "415", "422", "503"} <= set(operation["responses"])
    page = client.get("/docs")
    assert page.status_code == 200
    for address in re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text):
        assert address.startswith("/")
        assert client.get(address).status_code == 200
    assert client.get("/redoc").status_code == 404


def test_metrics_count_what_was_done(client: TestClient) -> None:
    """In Prometheus' format: names, and numbers that grow."""

    def pictures() -> int:
        found = re.search(r"^captioner_pictures_total (\d+)$", client.get("/metrics").text, re.MULTILINE)
        assert found
        return int(found[1])

    before = pictures()
    post(client, ("a.jpg", PHOTO), ("b.jpg", PHOTO))
    assert pictures() == before + 2
    lines = client.get("/metrics").text.splitlines()
    assert all(re.fullmatch(r"# (HELP|TYPE) captioner_\w+ .+|captioner_\w+(\{.+\})? [\d.]+", line) for line in lines)


def test_a_password_guards_everything_but_health(captioner: Captioner) -> None:
    """Page, API, description, files of the page and metrics alike."""
    with client_of({"first": captioner}, WebOptions(auth="me:pass:wörd")) as client:
        paths = ["/", "/config", "/docs", "/openapi.json", "/metrics", "/theme.css", "/gradio_api/info", "/nowhere"]
        for auth in (None, ("me", "wrong"), ("", ""), ("you", "pass:wörd")):
            for path in paths:
                answer = client.get(path, auth=auth)
                assert answer.status_code in (401, 429), path  # 429: too many guesses by now
                assert answer.status_code == 429 or answer.headers["www-authenticate"].startswith("Basic ")
            for path in ("/api/caption", "/gradio_api/upload"):
                answer = client.post(path, files={"files": ("a.jpg", PHOTO)}, auth=auth)
                assert answer.status_code in (401, 429), path
        for header in ("Basic", "Basic @@@", "Bearer x", "Basic " + base64_of(b"me")):
            assert client.get("/", headers={"authorization": header}).status_code in (401, 429)
    with client_of({"first": captioner}, WebOptions(auth="me:pass:wörd")) as client:  # nobody guessed here
        right = base64_of("me:pass:wörd".encode())
        for path in paths[:-1]:
            assert client.get(path, headers={"authorization": "Basic " + right}).status_code == 200, path
        assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize("auth", ["me", ":", "me:", ":secret", ""])
def test_half_a_password_is_refused_at_the_start(captioner: Captioner, auth: str) -> None:
    """Not found out by everybody being let in, or nobody."""
    with pytest.raises(OptionError, match="NAME:PASSWORD"):
        client_of({"first": captioner}, WebOptions(auth=auth))


def test_a_fault_of_ours_is_not_told(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception gives a plain 500; the next request is served."""
    with client_of({"first": captioner}, WebOptions()) as client:
        client = TestClient(client.app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
        with monkeypatch.context() as patch:
            patch.setattr(captioner, "caption_pixels", lambda *_, **__: json.loads("secret"))
            answer = post(client, ("a.jpg", PHOTO))
            assert answer.status_code == 500
            assert "secret" not in answer.text
        assert post(client, ("a.jpg", PHOTO)).status_code == 200
