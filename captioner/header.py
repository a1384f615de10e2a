"""The header of a model file: what a stranger's JSON must be before anything is made of it."""

import json
from typing import Any

MAX_HEADER = 8_000_000
"""Characters. Python's objects take twenty times as much; a vocabulary of 100,000 words has one million."""

_GROUPS = ("image", "encoder", "decoder", "search")


def parse_header(text: str) -> dict[str, Any]:
    """The header as plain values, of any format; `check_header` is for those that are known.

    Raises ValueError with what is wrong, in a few words, and nothing else.
    """
    if len(text) > MAX_HEADER:
        raise ValueError(f"its header has more than {MAX_HEADER:,} characters")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):  # not JSON, or nested a thousand deep
        raise ValueError("its header is no JSON that can be read") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    if type(header.get("format")) is not int:
        raise ValueError(f"its format is {_shown(header.get('format'))}, not a whole number")
    return header


def check_header(header: dict[str, Any]) -> None:
    """Raises ValueError where a part of the header is missing or of another type than it should be.

    What is in the groups of options, the options check themselves.
    """
    for name in (*_GROUPS, "provenance"):
        if not isinstance(header.get(name, {} if name == "provenance" else None), dict):
            raise ValueError(f"its {name} is {_shown(header.get(name))}, not an object")
    if not isinstance(header.get("reverse", False), bool):
        raise ValueError(f"its reverse is {_shown(header['reverse'])}, not true or false")
    tokeniser = header.get("tokeniser")
    if not isinstance(tokeniser, str) or len(tokeniser) > 40 or not tokeniser.isprintable():
        raise ValueError(f"its tokeniser is {_shown(tokeniser)}, not the name of one")
    words = header.get("vocabulary")
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise ValueError("its vocabulary is no list of words")
    try:
        "".join(words).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: no caption with it could be written anywhere
        raise ValueError("its vocabulary has words that are no text") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
