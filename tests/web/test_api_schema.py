"""The running API keeps what /openapi.json says of it, whatever is sent: requests that fit it and requests that do not."""

import base64

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

pytest.importorskip("schemathesis", reason="requests made from a description need schemathesis")

import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from captioner.options import WebOptions
from tests.hostile import encoded, noise
from tests.web.visitors import listening, made, small_captioner

HOW = settings(
    max_examples=60,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # to shrink what failed takes longer than to read it
    suppress_health_check=list(HealthCheck),
)
load_all_checks()
CHECKED = CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)
PHOTO = base64.b64encode(encoded(noise(), "JPEG")).decode()


@pytest.fixture(scope="module")
def schema():
    with listening(made(small_captioner(), WebOptions(page=False))) as port:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/api/models", "/health", "/ready", "/metrics"])
def test_what_is_asked_answers_as_described(schema, path):
    """In status, kind and shape."""
    operation = schema[path]["GET"]

    @seed(1)
    @HOW
    @given(operation.as_strategy())
    def hold(case):
        case.validate_response(case.call(timeout=60), checks=CHECKED)

    hold()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fitting", "not fitting", "photos"])
def test_whatever_is_sent_is_answered_as_described(schema, mode):
    """No fault of ours, no status, kind or shape that is not described; the same sixty requests each time."""
    generation = GenerationMode.NEGATIVE if mode == "not fitting" else GenerationMode.POSITIVE
    statuses = []

    @seed(1)
    @HOW
    @given(schema["/api/caption"]["POST"].as_strategy(generation_mode=generation))
    def hold(case):
        if mode == "photos":
            if case.media_type != "application/json":
                return
            case.body = {**case.body, "images": [PHOTO], "model": None}
        answer = case.call(timeout=60)
        statuses.append(answer.status_code)
        case.validate_response(answer, checks=CHECKED)

    hold()
    assert set(statuses) <= {200, 400, 413, 415, 422}
    assert 200 in statuses or mode != "photos"
    assert len(statuses) > 10
