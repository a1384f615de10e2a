"""Tokens as a sentence for people."""

import re
from collections.abc import Iterator, Sequence

from captioner.text.tokens import tokenise

_BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "-lcb-": "{", "-rcb-": "}"}
_ESCAPE = re.compile("-[lr][rsc]b-")
_JOINS_BEFORE = re.compile("'(?:[smd]|ll|re|ve)|n't|-r[rsc]b-|%|[?!]+")
_JOINS_AFTER = re.compile(r"-l[rsc]b-|\$|'t|y['’]")
_JOINED_PAIRS = frozenset(["can not", "gim me", "gon na", "got ta", "lem me", "wan na"])


def readable(words: Sequence[str]) -> str:
    """A sentence for people: clitics joined ("the dog 's": "the dog's"), brackets as such, the first letter a capital.

    `tokenise` gives the words back, in any order a model writes them; where joining would change them, a space stays.
    The exception is words that no text has there: a "y'" alone, say, which comes from "y'all" only, or two quotes.
    """
    for sentence in _attempts(words):
        if tokenise(sentence) == list(words):
            break
    return sentence


def _attempts(words: Sequence[str]) -> Iterator[str]:
    """Sentences for words, the best one first; not every one tokenises to them."""
    natural = ""
    previous = ""
    for word in words:
        natural += _space(previous, word) + _people_write(word)
        previous = word
    yield natural[:1].upper() + natural[1:]
    yield natural
    careful = ""
    previous = ""
    for word in words:
        text = _people_write(word)
        wanted = [*tokenise(careful), word]
        # Capitals for "at&t"; a comma behind an initial at the end, whose point would be the sentence's, and between
        # numbers that would run together.
        usual = _space(previous, word) + text
        others = (f" {text}", f" {text.title()}", f" {text.upper()}", f" {text},", f", {text}")
        fitting = (addition for addition in (usual, *others) if tokenise(careful + addition) == wanted)
        careful += next(fitting, usual)
        previous = word
    careful = careful.strip()
    yield careful[:1].upper() + careful[1:]
    yield careful
    yield " ".join(_people_write(word) for word in words)


def _people_write(word: str) -> str:
    return _ESCAPE.sub(lambda match: _BRACKETS[match[0]], word)


def _space(previous: str, word: str) -> str:
    """What stands between two words."""
    joined = _JOINS_BEFORE.fullmatch(word) or _JOINS_AFTER.fullmatch(previous) or f"{previous} {word}" in _JOINED_PAIRS
    return "" if joined or not previous else " "
