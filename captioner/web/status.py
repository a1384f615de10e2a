"""What the server says of itself: whether it lives, whether it is ready, what it did."""

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from captioner.web.queue import ModelQueue


def add_status(app: FastAPI, queue: ModelQueue) -> None:
    """Adds `/health` and `/metrics`."""

    @app.get("/health", summary="Is the server alive?")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", summary="What the models did since the server began, for Prometheus")
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(_metrics(queue), media_type="text/plain; version=0.0.4")


def _metrics(queue: ModelQueue) -> str:
    """In Prometheus' text format."""
    counts = queue.counts
    rows = [
        ("pictures_total", "counter", "Pictures that the models took.", counts.pictures),
        ("batches_total", "counter", "Passes of a model; several pictures may share one.", counts.batches),
        ("failures_total", "counter", "Pictures that a model failed on.", counts.failures),
        ("refusals_total", "counter", "Pictures refused because the queue was full.", counts.refusals),
        ("model_seconds_total", "counter", "Time that the models worked.", round(counts.seconds, 3)),
        ("waiting", "gauge", "Pictures that wait for a model.", queue.waiting),
    ]
    return "".join(
        f"# HELP captioner_{name} {text}\n# TYPE captioner_{name} {kind}\ncaptioner_{name} {value}\n"
        for name, kind, text, value in rows
    )
