"""What long jobs tell, by real clocks."""

import re
import sys

import pytest

from captioner import telling
from captioner.telling import Telling


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    return []


def test_a_log_gets_lines_and_no_bars(said, monkeypatch, capsys):
    """As many as there are minutes, with how far it is, what is left and what the job adds."""
    monkeypatch.setattr(telling, "EVERY", 0.0)
    with Telling(said.append).bar(8, "picture", "epoch 1/3", done=4) as bar:
        bar.set_postfix_str("loss 3.452", refresh=False)
        for _ in range(2):
            bar.update(2)
    assert len(said) == 2
    assert re.fullmatch(r"epoch 1/3: 6 of 8 \[00:00, 00:00 left, .*picture/s, loss 3\.452\]", said[0])
    assert capsys.readouterr().err == ""


def test_what_is_soon_done_says_nothing(said):
    with Telling(said.append).bar(2, "picture") as bar:
        bar.update(1)
        bar.update(1)
    assert said == []


def test_who_wants_no_bars_gets_no_lines(said, monkeypatch):
    monkeypatch.setattr(telling, "EVERY", 0.0)
    with Telling(said.append, bars=False).bar(2, "picture") as bar:
        bar.update(2)
    assert said == []
