"""The promises of captioner.web.passwords: several names, from where no list of processes shows them; slow guesses."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse

from captioner.errors import OptionError
from captioner.web.passwords import VARIABLE, Patience, asks_password, read_names


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_names_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option, a file with comments and empty lines, and the environment, all of them."""
    file = tmp_path / "names"
    file.write_text("# ours\nann:pass:word\n\nbob:x y\n")
    monkeypatch.setenv(VARIABLE, "eve:ö\ndan:z")
    expected = ["me:secret", "ann:pass:word", "bob:x y", "eve:ö", "dan:z"]
    assert read_names("me:secret", str(file)) == [name.encode() for name in expected]
    monkeypatch.delenv(VARIABLE)
    assert read_names(None, None) == []


@pytest.mark.parametrize("text", ["", "ann\n", "ann:\n", ":x\n", "# only this\n", b"\xff\xfe"])
def test_a_file_without_names_is_refused(tmp_path: Path, text: str | bytes) -> None:
    """Not taken for no password at all."""
    file = tmp_path / "names"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OptionError, match="--auth-file"):
        read_names(None, str(file))


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not there, an empty variable."""
    with pytest.raises(OptionError, match="nowhere cannot be read"):
        read_names(None, str(tmp_path / "nowhere"))
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(OptionError, match=VARIABLE):
        read_names(None, None)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Door:
    """The guard around nothing, with visitors by their addresses."""

    def __init__(self) -> None:
        self.clock = Clock()

        async def inside(scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("in")(scope, receive, send)

        self.app = asks_password(inside, names=[b"me:right", b"you:other"], clock=self.clock)
        self.clients: dict[str, TestClient] = {}

    def ask(self, host: str, password: str | None, name: str = "me") -> int:
        client = self.clients.setdefault(host, TestClient(self.app, client=(host, 1)))
        return client.get("/", auth=None if password is None else (name, password)).status_code


def test_every_name_is_let_in() -> None:
    """With its own password."""
    door = Door()
    assert [door.ask("1.1.1.1", "right"), door.ask("2.2.2.2", "other", "you"), door.ask("3.3.3.3", "other")] == [
        200,
        200,
        401,
    ]


def test_guesses_of_one_are_slowed_down() -> None:
    """From 1,251 a second to one a minute; others are not kept out; and asking without a password is no guess."""
    door = Door()
    assert [door.ask("1.1.1.1", None) for _ in range(9)] == [401] * 9
    assert [door.ask("1.1.1.1", f"wrong {number}") for number in range(7)] == [401] * 5 + [429] * 2
    assert door.ask("1.1.1.1", "right") == 429
    assert door.ask("2.2.2.2", "right") == 200
    door.clock.now += 61
    assert door.ask("1.1.1.1", "right") == 200


def test_an_old_password_is_one_guess() -> None:
    """A browser sends it with every request of a page; the next, with the new one, is let in."""
    door = Door()
    assert [door.ask("1.1.1.1", "old") for _ in range(30)] == [401] * 30
    assert door.ask("1.1.1.1", "right") == 200


def test_an_hour_of_guesses() -> None:
    """However often one tries: about one a minute is looked at."""
    clock = Clock()
    patience, looked_at = Patience(clock), 0
    for _ in range(36_000):
        if patience.wait("1.1.1.1") == 0:
            looked_at += 1
            patience.count("1.1.1.1", str(clock.now))
        clock.now += 0.1
    assert looked_at <= 75


def test_guesses_of_many_are_slowed_down_together_and_the_owner_gets_in() -> None:
    """Each from another address: a few a second in all; whoever was let in before, from wherever, is let in."""
    door = Door()
    assert door.ask("9.9.9.9", "right") == 200
    statuses = [door.ask(f"10.0.{number // 250}.{number % 250}", "wrong") for number in range(80)]
    assert statuses.count(401) <= 60
    assert statuses[-1] == 429
    assert door.ask("9.9.9.9", "right") == 200
    assert door.ask("8.8.8.8", "right") == 429  # a stranger, for a fifth of a second
    door.clock.now += 0.5
    assert door.ask("8.8.8.8", "right") == 200


def test_the_owner_behind_the_address_of_a_guesser_gets_in() -> None:
    """A proxy without X-Forwarded-For: the browser that was let in before is known by its cookie."""
    door = Door()
    owner = TestClient(door.app, client=("1.1.1.1", 1))
    assert owner.get("/", auth=("me", "right")).status_code == 200
    for number in range(8):
        door.ask("1.1.1.1", f"wrong {number}")
    assert door.ask("1.1.1.1", "right") == 429
    assert owner.get("/", auth=("me", "right")).status_code == 200
    assert owner.get("/").status_code == 401  # the cookie alone is no password
    forged = TestClient(door.app, client=("1.1.1.1", 1), cookies={"captioner-known": "0" * 64})
    assert forged.get("/", auth=("me", "right")).status_code == 429


def test_patience_remembers_so_many() -> None:
    """A flood of addresses does not fill the memory."""
    patience = Patience(Clock())
    for number in range(20_000):
        patience.count(str(number), "x")
        patience.forgive(f"good {number}")
    assert len(patience.wrong) <= 10_000
    assert max(len(patience.good), len(patience.tried)) <= 10_000
