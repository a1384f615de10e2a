"""`download` against a real server on this machine that does what servers and networks do."""

import argparse
import hashlib
import io
import random
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from captioner import cli
from captioner.cli import download as command
from captioner.datasets import check_dataset, load_dataset
from captioner.download import SOURCES, Archive, Source, download
from captioner.download.fetch import Patience
from captioner.errors import CaptionerError

ROOT = Path(__file__).parents[1]
QUICK = Patience(attempts=3, pause=0.01, timeout=10)
TERMS = "For tests only."

Answer = Callable[["Handler", bytes], None]


@dataclass
class Site:
    """What the server has, what it does with the next requests for each path, and what it was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    script: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    pace: float = 0.0  # seconds between pieces

    def put(self, name, content, *, size=True, digest=True, members=r".*", unpacked=0, target=r"set/\g<0>", script=()):
        """Serves a file, and answers with the table's entry for it."""
        self.files[f"/{name}"] = content
        self.script[f"/{name}"] = list(script)
        return Archive(
            f"{self.address}/{name}",
            members,
            target,
            unpacked,
            len(content) if size else None,
            f"sha256:{hashlib.sha256(content).hexdigest()}" if digest else "",
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.site.asked.append((self.path, self.headers.get("Range")))
        if self.path not in self.site.files:
            return status(404)(self, b"")
        script = self.site.script[self.path]
        return (script.pop(0) if script else serve)(self, self.site.files[self.path])

    def begin(self, code, length=None, **headers):
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def give(self, data):
        for start in range(0, len(data), 4096):
            self.wfile.write(data[start : start + 4096])
            self.site.sent += len(data[start : start + 4096])
            if self.site.pace:
                self.wfile.flush()
                time.sleep(self.site.pace)

    def handle(self):
        try:
            super().handle()
        except OSError:  # the client went away
            self.close_connection = True

    def log_message(self, *_):
        pass


def etag(body):
    return f'"{hashlib.md5(body).hexdigest()}"'


def serve(handler, body, *, until=None, if_range=True):
    """As a good server does; with `until`, the connection breaks after so many bytes of the file."""
    wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
    if wanted and if_range and handler.headers.get("If-Range", etag(body)) != etag(body):
        wanted = None
    start = int(wanted[1]) if wanted else 0
    if start >= len(body):
        return handler.begin(416, 0, Content_Range=f"bytes */{len(body)}")
    if wanted:
        ends = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.begin(206, len(body) - start, ETag=etag(body), Content_Range=ends)
    else:
        handler.begin(200, len(body), ETag=etag(body))
    handler.give(body[start:until])
    handler.close_connection = until is not None
    return None


def drop(until):
    """Breaks the connection after so many bytes of the file."""
    return lambda handler, body: serve(handler, body, until=until)


def ignore_range(until=None):
    """Always begins at the beginning."""

    def answer(handler, body):
        handler.begin(200, len(body), ETag=etag(body))
        handler.give(body[:until])
        handler.close_connection = True

    return answer


def status(code, **headers):
    def answer(handler, body):
        handler.begin(code, 0, **headers)

    return answer


def declare(length):
    """Says that the file has another length than it has."""

    def answer(handler, body):
        handler.begin(200, length)
        handler.give(body[:length])
        handler.close_connection = True

    return answer


@pytest.fixture
def site(monkeypatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "*")
    with running() as found:
        yield found


@contextmanager
def running():
    found = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"site": found}))
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def zipped(files, *, seed=1):
    """A zip of these files; an int stands for so many random bytes."""
    chance = random.Random(seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, chance.randbytes(content) if isinstance(content, int) else content)
    return buffer.getvalue()


def contents(zip_bytes):
    with zipfile.ZipFile(io.BytesIO(zip_bytes)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tree(folder):
    """Every file below a folder but what the downloads note for themselves, with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".download" not in path.parts
    }


def expected(*zips, below="set"):
    return {f"{below}/{name}": data for each in zips for name, data in contents(each).items()}


def bring(*archives, to, patience=QUICK, said=None):
    return download(Source(TERMS, archives), to, patience=patience, report=(said if said is not None else []).append)


# --- all is well ---


def test_what_is_meant_lands_in_its_place_and_is_not_asked_for_again(site, tmp_path):
    """Of the zip the members that are named and no others; a second run finds them, and asks nobody."""
    body = zipped({"a/1.jpg": 5000, "a/2.jpg": 700, "b/notes.json": 90, "__MACOSX/a/1.jpg": 8, "a/": b""})
    archive = site.put("a.zip", body, members=r"a/\d\.jpg")
    said = []
    assert bring(archive, to=tmp_path / "data", said=said) == []
    assert tree(tmp_path / "data") == {f"set/a/{n}.jpg": contents(body)[f"a/{n}.jpg"] for n in (1, 2)}
    assert said[-1].startswith("Everything is there.")
    assert bring(archive, to=tmp_path / "data") == []
    assert site.asked == [("/a.zip", None)]
    left = {path.name for path in (tmp_path / "data" / ".download").iterdir()}
    assert left == {"a.zip.files.json", "lock"}  # the archive itself is gone


def test_what_was_deleted_since_comes_again(site, tmp_path):
    body = zipped({"1.jpg": 5000, "2.jpg": 700})
    archive = site.put("a.zip", body)
    bring(archive, to=tmp_path)
    (tmp_path / "set" / "2.jpg").unlink()
    assert bring(archive, to=tmp_path) == []
    assert tree(tmp_path) == expected(body)


def test_the_terms_are_said_before_anything_is_asked_for(site, tmp_path):
    archive = site.put("a.zip", zipped({"1.jpg": 10}))
    seen = []
    download(Source(TERMS, (archive,)), tmp_path, report=lambda line: seen.append((line, len(site.asked))))
    assert seen[0] == (TERMS, 0)


def test_several_archives_come_at_once(site, tmp_path):
    """Each waits, on the server, until both were asked for."""
    barrier = threading.Barrier(2, timeout=20)

    def together(handler, body):
        barrier.wait()
        serve(handler, body)

    bodies = [zipped({f"{name}.jpg": 3000}, seed=name) for name in (1, 2)]
    archives = [site.put(f"{n}.zip", body, script=[together]) for n, body in enumerate(bodies)]
    assert bring(*archives, to=tmp_path) == []
    assert tree(tmp_path) == expected(*bodies)


# --- the network ---


def test_no_byte_comes_twice_however_often_the_connection_breaks(site, tmp_path):
    body = zipped({"1.jpg": 100_000})
    breaks = sorted(random.Random(3).sample(range(1, len(body)), 8))
    archive = site.put("a.zip", body, script=[drop(until) for until in breaks])
    assert bring(archive, to=tmp_path) == []
    assert tree(tmp_path) == expected(body)
    assert site.sent == len(body)
    assert [asked for _, asked in site.asked] == [None, *(f"bytes={until}-" for until in breaks)]


def test_a_server_that_ignores_ranges_gives_the_whole_file_again(site, tmp_path):
    body = zipped({"1.jpg": 50_000})
    archive = site.put("a.zip", body, script=[drop(30_000), ignore_range(40_000), ignore_range()])
    assert bring(archive, to=tmp_path) == []
    assert tree(tmp_path) == expected(body)


def test_one_that_never_comes_further_is_given_up_and_keeps_what_came(site, tmp_path):
    """It starts over each time and breaks at the same place: bytes flow for ever, and nothing is won."""
    body = zipped({"1.jpg": 50_000})
    archive = site.put("a.zip", body, script=[ignore_range(20_000)] * 9)
    (problem,) = bring(archive, to=tmp_path)
    assert "3 attempts without progress" in problem
    assert "run the same command again" in problem
    assert len(site.asked) <= 2 * QUICK.attempts
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changes_between_two_requests_is_not_mixed(site, tmp_path, honest):
    """By its ETag: whether the server minds If-Range or gives a part of the new file to whoever asks."""
    old, new = zipped({"1.jpg": 50_000}, seed=1), zipped({"1.jpg": 50_000}, seed=2)

    def change(handler, body):
        site.files["/a.zip"] = new
        serve(handler, old, until=20_000)

    def careless(handler, body):
        serve(handler, body, if_range=False)

    archive = site.put("a.zip", old, size=False, digest=False, script=[change, serve if honest else careless])
    assert bring(archive, to=tmp_path) == []
    assert tree(tmp_path) == expected(new)


def test_a_slow_server_is_waited_for_and_a_silent_one_asked_again(site, tmp_path):
    body = zipped({"1.jpg": 60_000})
    gone = threading.Event()

    def stall(handler, body):
        handler.begin(200, len(body), ETag=etag(body))
        handler.give(body[:30_000])
        handler.wfile.flush()
        gone.wait(20)
        handler.close_connection = True

    site.pace = 0.005
    archive = site.put("a.zip", body, script=[stall])
    said = []
    assert bring(archive, to=tmp_path, patience=replace(QUICK, timeout=0.3), said=said) == []
    gone.set()
    assert tree(tmp_path) == expected(body)
    assert any("timeout" in line for line in said)


@pytest.mark.parametrize(
    "answers",
    [
        [status(500)],
        [status(429, Retry_After="0"), status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")],
        [drop(10_000), status(502), status(429)],
    ],
)
def test_a_busy_server_is_asked_again(site, tmp_path, answers):
    body = zipped({"1.jpg": 30_000})
    archive = site.put("a.zip", body, script=answers)
    assert bring(archive, to=tmp_path) == []
    assert tree(tmp_path) == expected(body)


def test_the_server_says_how_long_to_wait(site, tmp_path):
    """Its seconds are waited for, not ours; hours are not, and named instead."""
    body = zipped({"1.jpg": 30_000})
    archive = site.put("a.zip", body, script=[status(429, Retry_After="1")])
    said = []
    started = time.monotonic()
    assert bring(archive, to=tmp_path / "a", said=said) == []
    assert time.monotonic() - started >= 1
    assert any("429" in line and "in 1 s" in line for line in said)
    archive = site.put("a.zip", body, script=[status(429, Retry_After="7200")])
    (problem,) = bring(archive, to=tmp_path / "b")
    assert "120 minutes" in problem


def test_a_redirect_is_followed_anew_each_time(site, tmp_path):
    """GitHub sends each request on to an address that holds for minutes only; the range goes along."""
    body = zipped({"1.jpg": 30_000})
    real = site.put("real.zip", body, script=[drop(20_000)])
    site.put("a.zip", body, script=[status(302, Location="/real.zip")] * 2)
    assert bring(replace(real, address=f"{site.address}/a.zip"), to=tmp_path) == []
    assert tree(tmp_path) == expected(body)
    assert site.asked == [(path, part) for part in (None, "bytes=20000-") for path in ("/a.zip", "/real.zip")]


def test_one_that_is_not_there_costs_the_others_nothing(site, tmp_path):
    """404 is final: one request, one sentence with the address; the other archive comes."""
    body = zipped({"1.jpg": 30_000})
    here = site.put("a.zip", body)
    gone = replace(here, address=f"{site.address}/gone.zip")
    (problem,) = bring(gone, here, to=tmp_path)
    assert gone.address in problem
    assert "404" in problem
    assert tree(tmp_path) == expected(body)
    assert sorted(site.asked) == [("/a.zip", None), ("/gone.zip", None)]


def test_without_a_network_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with running() as closed:
        archive = closed.put("a.zip", b"zip")
    (problem,) = bring(archive, to=tmp_path)
    assert "connect error" in problem
    assert "check the network" in problem
    (problem,) = bring(replace(archive, address="http://nowhere.invalid/a.zip"), to=tmp_path)
    assert "nowhere.invalid" in problem


# --- what comes is not what was meant ---


def test_another_size_than_the_known_one_is_refused_before_it_is_fetched(site, tmp_path):
    """A login page in the file's place, or a new edition of the file."""
    archive = site.put("a.zip", zipped({"1.jpg": 60_000}))
    site.files["/a.zip"] = b"<html>Please log in.</html>"
    (problem,) = bring(archive, to=tmp_path)
    assert "should have 60,1" in problem
    assert "says 27" in problem
    assert tree(tmp_path) == {}


def test_lengths_that_are_lies_do_not_pass(site, tmp_path):
    """Too long: the connection ends early each time. Too short, and no size known: the zip is not whole."""
    body = zipped({"1.jpg": 60_000})
    long = site.put("a.zip", body, size=False, script=[declare(len(body) + 500)] * 9)
    short = site.put("b.zip", body, size=False, digest=False, script=[declare(len(body) - 500)])
    problems = bring(long, short, to=tmp_path)
    assert "attempts without progress" in problems[0]
    assert "no whole zip" in problems[1]
    assert tree(tmp_path) == {}


def test_more_than_was_declared_is_cut_off(site, tmp_path):
    """A stream without a length may not fill the disk where the size is known."""

    def endless(handler, body):
        handler.begin(200, None, Connection="close")
        handler.close_connection = True
        for _ in range(1000):
            handler.give(bytes(65_536))

    archive = site.put("a.zip", zipped({"1.jpg": 60_000}), script=[endless])
    (problem,) = bring(archive, to=tmp_path)
    assert "more than its" in problem
    assert tree(tmp_path) == {}


def test_wrong_bytes_are_not_unpacked_and_the_next_run_fetches_the_right_ones(site, tmp_path):
    body = zipped({"1.jpg": 30_000})
    archive = site.put("a.zip", body)
    site.files["/a.zip"] = zipped({"1.jpg": 30_000}, seed=9)
    (problem,) = bring(archive, to=tmp_path)
    assert archive.digest.removeprefix("sha256:") in problem
    assert tree(tmp_path) == {}
    site.files["/a.zip"] = body
    assert bring(archive, to=tmp_path) == []
    assert tree(tmp_path) == expected(body)


def test_without_a_checksum_every_member_is_still_checked(site, tmp_path):
    """By the zip's own: one flipped bit in a picture, and the archive is named as damaged."""
    body = bytearray(zipped({"1.jpg": 30_000, "2.jpg": 30_000}))
    body[45_000] ^= 1
    (problem,) = bring(site.put("a.zip", bytes(body), size=False, digest=False), to=tmp_path)
    assert "no whole zip" in problem
    assert set(tree(tmp_path)) <= {"set/1.jpg"}


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "C:/evil.txt", "a\\..\\..\\evil.txt"])
def test_nothing_is_written_outside_the_folder(site, tmp_path, name):
    """Not even for an archive that the table trusts."""
    archive = site.put("a.zip", zipped({"1.jpg": 10, name: b"evil"}), target=r"\g<0>")
    (problem,) = bring(archive, to=tmp_path / "data")
    assert "leads out of its folder" in problem
    assert tree(tmp_path) == {}


def test_links_in_a_zip_are_refused(site, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    (problem,) = bring(site.put("a.zip", buffer.getvalue()), to=tmp_path)
    assert "is no file" in problem
    assert tree(tmp_path) == {}


def test_a_zip_without_the_files_that_are_meant_says_so(site, tmp_path):
    (problem,) = bring(site.put("a.zip", zipped({"x.txt": 10}), members=r".*\.jpg"), to=tmp_path)
    assert "none of the files" in problem


# --- the disk ---


def test_other_files_are_never_overwritten(site, tmp_path):
    """The same file stays, an empty one (of a power cut) is filled, and another one stops it, with its name."""
    body = zipped({"1.jpg": 3000, "2.jpg": 3000, "3.jpg": 3000})
    archive = site.put("a.zip", body)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "1.jpg").write_bytes(contents(body)["1.jpg"])
    (tmp_path / "set" / "3.jpg").touch()
    (tmp_path / "set" / "2.jpg").write_bytes(b"mine" * 750)  # as large as the right one
    (tmp_path / "set" / "mine.txt").write_bytes(b"mine too")
    (problem,) = bring(archive, to=tmp_path)
    assert "(set/2.jpg)" in problem
    assert (tmp_path / "set" / "2.jpg").read_bytes() == b"mine" * 750
    (tmp_path / "set" / "2.jpg").unlink()
    assert bring(archive, to=tmp_path) == []
    assert tree(tmp_path) == expected(body) | {"set/mine.txt": b"mine too"}
    assert len(site.asked) == 1  # the archive was kept meanwhile


def test_a_disk_that_is_too_small_is_seen_before_anything_is_fetched(site, tmp_path):
    archive = site.put("a.zip", zipped({"1.jpg": 10}), unpacked=10**18)
    with pytest.raises(CaptionerError, match=r"needs 1,000,000,000\.0 GB more, and .* GB free: .*--to"):
        bring(archive, to=tmp_path / "data")
    assert site.asked == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(site, tmp_path):
    archive = site.put("a.zip", zipped({"1.jpg": 10}))
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CaptionerError, match="--to"):
            bring(archive, to=place)
    (tmp_path / "set").touch()  # the data set's own folder
    (problem,) = bring(archive, to=tmp_path)
    assert str(tmp_path / "set") in problem


# --- stopped ---


def start(archives, folder):
    """The same download in a process of its own."""
    code = (
        "import sys; from pathlib import Path\n"
        "from captioner.download import Archive, Source, download\n"
        f"sys.exit(bool(download(Source('', ({', '.join(map(repr, archives))},)), Path({str(folder)!r}))))"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)


def wait_for(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def test_a_killed_download_continues_where_it_was(site, tmp_path):
    """kill -9 in the middle: what lay on the disk is not asked for again."""
    body = zipped({"1.jpg": 400_000})
    archive = site.put("a.zip", body)
    part = tmp_path / ".download" / "a.zip.part"
    site.pace = 0.02
    with start([archive], tmp_path) as process:
        wait_for(lambda: part.exists() and part.stat().st_size > 50_000)
        process.kill()
    have = part.stat().st_size
    assert 50_000 < have < len(body)
    site.pace = 0
    assert bring(archive, to=tmp_path) == []
    assert [asked for _, asked in site.asked] == [None, f"bytes={have}-"]
    assert tree(tmp_path) == expected(body)


def test_two_downloads_into_one_folder_do_not_meet(site, tmp_path):
    """They would write to the same file: the second is refused, and the first goes its way."""
    body = zipped({"1.jpg": 400_000})
    archive = site.put("a.zip", body)
    site.pace = 0.01
    with start([archive], tmp_path) as process:
        wait_for(lambda: (tmp_path / ".download" / "a.zip.part").exists())
        with pytest.raises(CaptionerError, match=r"Another download into .* is running"):
            bring(archive, to=tmp_path)
        site.pace = 0
        assert process.wait(20) == 0
    assert tree(tmp_path) == expected(body)


def test_killed_while_unpacking_it_unpacks_the_rest(site, tmp_path):
    """Whatever lies in its place at that moment is whole; nothing is fetched again."""
    body = zipped(dict.fromkeys((f"{number}.jpg" for number in range(800)), 500))
    archive = site.put("a.zip", body)
    with start([archive], tmp_path) as process:
        wait_for(lambda: (tmp_path / "set" / "60.jpg").exists())
        process.kill()
    right = expected(body)
    found = {name: data for name, data in tree(tmp_path).items() if not Path(name).name.startswith(".")}
    assert 60 <= len(found) < len(right)
    assert found.items() <= right.items()
    assert bring(archive, to=tmp_path) == []
    assert tree(tmp_path) == right
    assert len(site.asked) == 1


@pytest.mark.parametrize("unpacking", [False, True])
def test_ctrl_c_stops_at_once_and_leaves_what_came(site, tmp_path, unpacking):
    files = dict.fromkeys((f"{number}.jpg" for number in range(800)), 500) if unpacking else {"1.jpg": 4_000_000}
    body = zipped(files)
    archive = site.put("a.zip", body)
    sign = tmp_path / "set" / "60.jpg" if unpacking else tmp_path / ".download" / "a.zip.part"
    site.pace = 0 if unpacking else 0.02
    with start([archive], tmp_path) as process:
        wait_for(sign.exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT
    assert not list(tmp_path.rglob(".*.part"))  # no half file among the whole ones
    site.pace = 0
    assert bring(archive, to=tmp_path) == []
    assert tree(tmp_path) == expected(body)


# --- the command, and the table ---


def run(sources, *words):
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers(), sources)
    chosen = parser.parse_args(["download", *words])
    return chosen.run(chosen)


def test_the_command_says_how_it_went_by_its_exit_code(site, tmp_path, capsys):
    """0: all came. 1: some could not be had, with a sentence. Standard output stays empty."""
    here = site.put("a.zip", zipped({"1.jpg": 10}))
    sources = {"set": Source(TERMS, (here,), "Use {folder}/set.")}
    assert run(sources, "set", "--to", str(tmp_path)) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        TERMS,
        f"1 archive to fetch and to unpack below {tmp_path}, which takes about 0.0 GB of disk on the way.",
        "a.zip came; it is checked and unpacked.",
        f"Everything is there. Use {tmp_path}/set.",
    ]
    sources = {"set": Source(TERMS, (here, replace(here, address=f"{site.address}/gone.zip")))}
    assert run(sources, "set", "--to", str(tmp_path)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "gone.zip" in err
    assert "Everything" not in err


def test_a_data_set_that_must_be_asked_for_says_where(capsys, tmp_path):
    """Flickr30k: exit code 2, and the address of the form."""
    assert cli.main(["download", "flickr30k", "--to", str(tmp_path)]) == 2
    assert "https://shannon.cs.illinois.edu/DenotationGraph/" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_are_wrong_use(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["download", "imagenet"])
    assert "coco" in capsys.readouterr().err


def picture(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def coco_json(*numbers):
    images = ", ".join(f'{{"id": {n}, "file_name": "{n:012}.jpg"}}' for n in numbers)
    captions = ", ".join(f'{{"image_id": {n}, "caption": "A dog."}}' for n in numbers)
    return f'{{"images": [{images}], "annotations": [{captions}]}}'


def karpathy_json(**pictures):
    entries = ", ".join(
        f'{{"filename": "{name}.jpg", "split": "{split}", "sentences": [{{"raw": "A dog."}}]}}'
        for name, split in pictures.items()
    )
    return f'{{"images": [{entries}]}}'


# What lies in the real archives, with fewer pictures.
REAL = {
    "annotations_trainval2017.zip": {
        "annotations/instances_train2017.json": "{}",
        "annotations/captions_train2017.json": coco_json(*range(1, 61)),
        "annotations/captions_val2017.json": coco_json(100),
    },
    "val2017.zip": {"val2017/": b"", "val2017/000000000100.jpg": picture(250)},
    "train2017.zip": {"train2017/": b"", **{f"train2017/{n:012}.jpg": picture(2 * n) for n in range(1, 61)}},
    "caption_datasets.zip": {
        "dataset_coco.json": karpathy_json(a="train"),
        "dataset_flickr8k.json": karpathy_json(a="train", b="val", c="test"),
        "dataset_flickr30k.json": karpathy_json(a="train"),
    },
    "Flickr8k_text.zip": {
        "Flickr8k.token.txt": "".join(f"{name}.jpg#0\tA dog .\n" for name in "abc"),
        "Flickr8k.lemma.token.txt": "",
        "Flickr_8k.trainImages.txt": "a.jpg\n",
        "Flickr_8k.devImages.txt": "b.jpg\n",
        "Flickr_8k.testImages.txt": "c.jpg\n",
        "readme.txt": "",
        "__MACOSX/._Flickr8k.token.txt": "",
    },
    "Flickr8k_Dataset.zip": {
        **{f"Flicker8k_Dataset/{name}.jpg": picture(40 * n) for n, name in enumerate("abc")},
        "__MACOSX/Flicker8k_Dataset/._a.jpg": b"",
    },
}


def locally(source, site):
    """The real table's entry, with its archives on this machine and fewer pictures in them."""
    archives = []
    for archive in source.archives:
        here = site.put(archive.name, zipped(REAL[archive.name]), members=archive.members, target=archive.target)
        archives.append(here)
    return replace(source, archives=tuple(archives))


@pytest.mark.parametrize(
    ("name", "counts"), [("coco", {"train": 57, "val": 3, "test": 1}), ("flickr8k", {"train": 1, "val": 1, "test": 1})]
)
def test_what_is_downloaded_is_what_training_reads(site, tmp_path, name, counts):
    """The tree of data/README.md: recognised, whole, and nothing beside it."""
    assert run({name: locally(SOURCES[name], site)}, name, "--to", str(tmp_path)) == 0
    dataset = check_dataset(load_dataset(tmp_path / name))
    assert {split: len(dataset.split(split)) for split in dataset.splits} == counts
    assert dataset.kind == name
    used = {str(image.source) for image in dataset.images}
    assert {path for path in tree(tmp_path) if path.endswith(".jpg")} == {
        Path(path).relative_to(tmp_path).as_posix() for path in used
    }
    assert not any("MACOSX" in path or "instances" in path or "lemma" in path for path in tree(tmp_path))


def test_karpathys_splits_go_to_the_pictures_that_they_are_about(site, tmp_path):
    assert run({"flickr8k": locally(SOURCES["flickr8k"], site)}, "flickr8k", "--to", str(tmp_path)) == 0
    assert run({"karpathy": locally(SOURCES["karpathy"], site)}, "karpathy", "--to", str(tmp_path)) == 0
    assert (tmp_path / "coco" / "dataset_coco.json").is_file()
    assert (tmp_path / "flickr30k" / "dataset_flickr30k.json").is_file()
    dataset = check_dataset(load_dataset(tmp_path / "flickr8k"))
    assert (dataset.kind, len(dataset.images)) == ("karpathy", 3)


def test_every_known_archive_has_a_checksum_and_terms():
    for source in SOURCES.values():
        assert source.terms.endswith(".")
        for archive in source.archives:
            assert re.fullmatch(r"https?://[^/]+/.+\.zip", archive.address)
            algorithm, _, digest = archive.digest.partition(":")
            assert len(digest) == 2 * hashlib.new(algorithm).digest_size
            assert archive.digest.startswith("sha256:") or archive.address.startswith("https:")


def test_the_readme_names_each_download():
    """data/README.md gives the command for each, and the address where there is none."""
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for name, source in SOURCES.items():
        assert (f"python -m captioner download {name}" in text) == bool(source.archives)
