"""What tests of the page share: a small captioner, and a visitor of its page."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from captioner.captioner import Captioner
from captioner.options import WebOptions
from tests.web.visitors import ADDRESS, Visitor, made, small_captioner


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return small_captioner()


@pytest.fixture(scope="module")
def visitor(captioner: Captioner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        with TestClient(made(captioner, WebOptions()), base_url=ADDRESS) as client:
            yield Visitor(client)
