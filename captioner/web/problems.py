"""What is answered where something went wrong: JSON with a fitting status and one sentence, whoever failed."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse


def add_problems(app: FastAPI) -> None:
    """Has a body that is not what a route wants answered without an echo of it: it may be bytes, or no number."""

    @app.exception_handler(RequestValidationError)
    def wrong_body(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part)[:100] for part in first["loc"])
        sentence = f"{place} is not what this address takes: {str(first['msg'])[:200].rstrip('.')}."
        return JSONResponse({"error": sentence, "detail": sentence}, 422)
