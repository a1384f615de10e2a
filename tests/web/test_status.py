"""The promises of captioner.web.status, and the API without the page."""

import re
import time
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from fastapi.testclient import TestClient

import captioner
from captioner.options import WebOptions
from tests.hostile import encoded, noise
from tests.web.visitors import ADDRESS, made, small_captioner

PHOTO = encoded(noise(), "JPEG")


def client(**options: Any) -> TestClient:
    return TestClient(made(small_captioner(), WebOptions(**options)), base_url=ADDRESS)


def values(metrics: str) -> dict[str, float]:
    """Every sample by its name and labels."""
    return {name: float(value) for name, value in re.findall(r"^(captioner_\S+(?: \S+=\S+)*) ([\d.]+)$", metrics, re.M)}


def test_ready_says_when_it_is() -> None:
    """With its models; 503 once the queue has ended, while /health still answers."""
    visitor = client()
    end = time.monotonic() + 20
    while visitor.get("/ready").status_code != 200 and time.monotonic() < end:
        time.sleep(0.05)
    assert visitor.get("/ready").json() == {"status": "ready", "models": ["first"]}
    visitor.app.state.queue.close()  # type: ignore[attr-defined]
    assert (visitor.get("/ready").status_code, visitor.get("/health").status_code) == (503, 200)
    guarded = client(auth="me:x")
    assert (guarded.get("/ready").status_code in (200, 503), guarded.get("/metrics").status_code) == (True, 401)


def test_metrics_tell_addresses_models_and_statuses_apart() -> None:
    """With a histogram whose columns grow, and the build; of what visitors put into addresses, nothing."""
    visitor = client()
    visitor.post("/api/caption", files={"files": ("secret-name.jpg", PHOTO)})
    visitor.post("/api/caption", content=b"{")
    for path in ("/secret-path", "/gradio_api/file=/secret", "/health", "/health?secret"):
        visitor.get(path)
    said = visitor.get("/metrics").text
    assert "secret" not in said
    found = values(said)
    assert found['captioner_requests_total{route="/api/caption",model="first",status="200"}'] == 1
    assert found['captioner_requests_total{route="/api/caption",model="",status="415"}'] == 1
    assert found['captioner_requests_total{route="/health",model="",status="200"}'] == 2
    assert found['captioner_requests_total{route="other",model="",status="404"}'] == 1
    labels = 'route="/api/caption",model="first"'
    columns = [
        value for name, value in found.items() if name.startswith(f"captioner_request_seconds_bucket{{{labels},")
    ]
    assert columns == sorted(columns)
    assert (len(columns), columns[-1], found[f"captioner_request_seconds_count{{{labels}}}"]) == (11, 1, 1)
    assert found[f"captioner_request_seconds_sum{{{labels}}}"] > 0
    assert f'captioner_build_info{{version="{captioner.__version__}"' in said


def test_an_access_log_has_no_contents(capfd: pytest.CaptureFixture[str]) -> None:
    """A line for each request where it is wanted: when, who, what, how long; and none where it is not."""
    client().get("/health")
    assert capfd.readouterr().err == ""
    visitor = client(access_log=True, auth="ann:pw")
    auth = ("ann", "pw")
    visitor.post("/api/caption", files={"files": ("secret.jpg", PHOTO)}, auth=auth)
    visitor.get("/gradio_api/file=/secret?secret", auth=auth)
    visitor.get("/secret", auth=("secret", "secret"))
    first, second, third = capfd.readouterr().err.splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ testclient ann POST /api/caption 200 \d+\.\d{3}s first", first
    )
    assert "ann GET /gradio_api/file 403" in second
    assert "testclient - GET other 401" in third
    assert "secret" not in first + second + third


def test_the_api_alone() -> None:
    """Without the page there is no Gradio behind the application at all."""
    visitor = client(page=False)
    assert visitor.post("/api/caption", files={"files": ("a.jpg", PHOTO)}).status_code == 200
    for path in ("/", "/config", "/gradio_api/info", "/gradio_api/upload", "/download", "/theme.css"):
        assert visitor.get(path).status_code == 404, path
        assert visitor.post(path).status_code == 404, path
    assert [visitor.get(path).status_code for path in ("/docs", "/openapi.json", "/health", "/metrics")] == [200] * 4
    assert len(visitor.app.routes) < 12  # type: ignore[attr-defined]


def test_the_models_there_are() -> None:
    """By the names that a request may give, with how each searches."""
    (model,) = client(page=False).get("/api/models").json()["models"]
    assert (model["name"], model["encoder"], model["search"]["beam_size"]) == ("first", "mobilenet_v2", 3)
