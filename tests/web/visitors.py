"""The page without a browser, for tests: a small model, its application, and someone who visits it."""

import asyncio
import functools
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from captioner.captioner import Captioner
from captioner.checkpoint import ModelFile
from captioner.model import CaptionModel, ModelOptions
from captioner.options import DecoderOptions, EncoderOptions, ImageOptions, SearchOptions, WebOptions
from captioner.text import SPECIAL_WORDS, Vocabulary
from captioner.web.connections import Limits, protocol
from captioner.web.server import create_app

WORDS = ["a", "dog", "runs", "over", "the", "grass"]
ADDRESS = "http://127.0.0.1:7860"


@functools.cache  # a captioner never changes
def small_captioner() -> Captioner:
    """A small model with random weights: its captions mean nothing, and everything else about it is real."""
    torch.manual_seed(0)
    vocabulary = Vocabulary([*SPECIAL_WORDS, *WORDS])
    decoder = DecoderOptions(hidden_size=64, embedding_size=64)
    model = CaptionModel(ModelOptions(ImageOptions(), EncoderOptions(), decoder, len(vocabulary))).eval()
    origin = {"data": "<Flickr8k>", "pictures": {"train": 6000, "val": 1000}}
    return Captioner.of(ModelFile(model, vocabulary, SearchOptions(max_length=7), origin))


def made(captioner: Captioner, options: WebOptions, **others: Captioner) -> FastAPI:
    """The application, with the model "first" and maybe others. Made inside a running event loop: outside one, Gradio opens several that nobody closes."""

    async def make() -> FastAPI:
        return create_app({"first": captioner, **others}, options)

    return asyncio.run(make())


@contextmanager
def listening(app: FastAPI, limits: Limits | None = None) -> Iterator[int]:
    """The application on a port of this machine, in a thread."""
    config = uvicorn.Config(
        app, http=protocol(limits or Limits()), log_level="error", timeout_graceful_shutdown=1, timeout_keep_alive=3600
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


def half_an_upload(port: int, path: str) -> socket.socket:
    """A connection on which a picture began to come, and goes no further."""
    connection = socket.create_connection(("127.0.0.1", port))
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: multipart/form-data; boundary=X\r\n"
        'Content-Length: 100000\r\n\r\n--X\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    )
    connection.sendall(head.encode() + 2000 * b"a")
    return connection


class Visitor:
    """Someone at the page, without a browser."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.grown: list[Any] = []
        config = client.get("/config").json()
        self.root = config["root"]
        self.function = next(  # the page's own call: photo, model, method and seven sliders
            part["id"]
            for part in config["dependencies"]
            if len(part["inputs"]) == 10 and "change" in dict(map(reversed, part["targets"]))
        )

    def button(self, title: str) -> int:
        """What a button calls."""
        config = self.client.get("/config").json()
        (button,) = (part["id"] for part in config["components"] if part["props"].get("value") == title)
        return next(part["id"] for part in config["dependencies"] if (button, "click") in map(tuple, part["targets"]))

    def upload(self, data: bytes, name: str = "photo.jpg") -> dict[str, Any]:
        """A file as the page's own upload leaves it."""
        (path,) = self.client.post("/gradio_api/upload", files={"files": (name, data)}).json()
        return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def ask(
        self,
        file: Any,
        beam_size: Any = 3,
        max_length: Any = 7,
        length_penalty: Any = 0.0,
        rerank: Any = 0.0,
        diversity: Any = 1.0,
        temperature: Any = 1.0,
        nucleus: Any = 1.0,
        *others: Any,
        model: Any = "first",
        method: Any = "Beam",
    ) -> dict[str, Any]:
        """What the page's queue answers: {"success": ..., "output": {"data": [photo, result, tree]}}."""
        sliders = [beam_size, max_length, length_penalty, rerank, diversity, temperature, nucleus]
        return self.call(self.function, [file, model, method, *sliders, *others])

    def call(self, function: int, data: list[Any]) -> dict[str, Any]:
        """What the page's queue answers to one of its own calls; `grown` is what it said before."""
        asked = {"data": data, "fn_index": function, "session_hash": "me"}
        joined = self.client.post("/gradio_api/queue/join", json=asked)
        assert joined.status_code == 200, joined.text
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "me"}) as stream:
            for line in stream.iter_lines():
                said = json.loads(line.removeprefix("data: ") or "{}")
                if said.get("msg") == "process_generating":
                    self.grown.append(said["output"])
                if said.get("msg") == "process_completed":
                    return said
        raise AssertionError("the queue ended without an answer")

    def result(self, file: Any, *search: Any, model: Any = "first", method: Any = "Beam") -> str:
        """The HTML at the right of the photo."""
        answer = self.ask(file, *search, model=model, method=method)
        assert answer["success"], answer
        return answer["output"]["data"][1]
