"""Model files of strangers: each gives a working model or one ModelFileError, and takes no more memory than it has."""

import argparse
import copy
import json
import random
import struct
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from captioner import Captioner, cli
from captioner.card import read_header
from captioner.checkpoint import load_model, save_model
from captioner.cli.model_files import run_info
from captioner.cli.streams import guarded
from captioner.encoder import FAMILIES, encoder_names
from captioner.errors import ModelFileError
from captioner.model import CaptionModel, ModelOptions
from captioner.options import DecoderOptions, EncoderOptions, ImageOptions, SearchOptions
from captioner.tensors import load_network
from captioner.text import Vocabulary
from captioner.web.queue import ModelQueue
from tests.video import clips

ROOT = Path(__file__).parents[1]
ODD = [
    None, True, False, 0, -1, 1, 2, 3.5, 1e308, float("nan"), float("inf"), 10**30, "", "x", "lstm", "\ud800", "a" * 5000,
    [], {}, [[]], [None], {"a": 1}, [1, 2, 3], [0.0, 0.0, 0.0], ["a", "b", "c"], [0.5] * 4, [[0.5]] * 3, 8192, 2**31,
]  # fmt: skip
PICTURE = np.zeros((40, 60, 3), np.uint8)


def parts(data: bytes) -> tuple[dict, bytes]:
    """The table of a safetensors file, and its numbers."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def whole(table: dict, numbers: bytes) -> bytes:
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The paths to all values in a header; of a list the first and last items."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else []
    if isinstance(value, list) and value:
        items = [(0, value[0]), (len(value) - 1, value[-1])]
    return found + [place for key, part in items for place in places(part, (*path, key))]


def changed_header(header: dict, chance: random.Random) -> object:
    """One or two values replaced, removed or added; or all of it another thing."""
    header = copy.deepcopy(header)
    if chance.random() < 0.03:
        return chance.choice(ODD)
    for _ in range(chance.choice([1, 1, 2])):
        *way, last = chance.choice(places(header))
        holder = header
        try:
            for key in way:
                holder = holder[key]
            kind = chance.random()
            if kind < 0.75:
                holder[last] = copy.deepcopy(chance.choice(ODD))
            elif kind < 0.9:
                del holder[last]
            elif isinstance(holder, dict):
                holder[chance.choice(["", "size", "evil", "layers"])] = chance.choice(ODD)
        except (KeyError, IndexError, TypeError):  # the first change took it away
            continue
    return header


def changed_table(table: dict, chance: random.Random) -> None:
    name = chance.choice([key for key in table if key != "__metadata__"])
    kind = chance.randrange(6)
    if kind == 0:
        table[chance.choice([name + "x", "evil", name + ":scale", ""])] = table.pop(name)
    elif kind == 1:
        table[name]["dtype"] = chance.choice(["F16", "F64", "I8", "I64", "BOOL", "U8", "BF16", "F8_E4M3"])
    elif kind == 2:
        table[name]["shape"] = chance.choice(
            [[], [0], [1], table[name]["shape"][::-1], [*table[name]["shape"], 1], [2**40]]
        )
    elif kind == 3:
        table[name]["data_offsets"] = chance.choice([[0, 0], [0, 2**50], [-1, 4], [4, 0]])
    elif kind == 4:
        del table[name]
    else:
        table["__metadata__"] = chance.choice(
            [{}, {"captioner": ""}, {"captioner": "[" * 100_000}, {"captioner": "null"}]
        )


def mutated(data: bytes, chance: random.Random) -> bytes:
    table, numbers = parts(data)
    kind = chance.random()
    if kind < 0.6:
        table["__metadata__"]["captioner"] = json.dumps(
            changed_header(json.loads(table["__metadata__"]["captioner"]), chance)
        )
        return whole(table, numbers)
    if kind < 0.75:
        changed_table(table, chance)
        return whole(table, numbers)
    if kind < 0.85:  # numbers that are no numbers, or far from all others
        place = chance.randrange(len(numbers) // 4) * 4
        odd = struct.pack("<f", chance.choice([float("nan"), float("inf"), 3e38, -3e38, 0.0]))
        count = chance.choice([1, 100, 5000])
        return whole(table, numbers[:place] + odd * count + numbers[place + 4 * count :])
    changed = bytearray(data)
    for _ in range(chance.choice([1, 3, 20])):
        place = chance.randrange(min(len(changed), chance.choice([8, 200, len(changed)])))
        if chance.random() < 0.7:
            changed[place] = chance.randrange(256)
        else:
            del changed[place : place + chance.choice([1, 8, len(changed)])]
        if not changed:
            break
    return bytes(changed)


def attack(data: bytes, path: Path, count: int, seed: int, seconds: float) -> tuple[int, int]:
    """Loads, asks and describes mutated copies; how many were tried, and how many worked."""
    tried = worked = 0
    until = time.monotonic() + seconds
    for number in range(count):
        if time.monotonic() > until:
            break
        tried += 1
        path.write_bytes(mutated(data, random.Random(f"{seed}-{number}")))
        try:
            caption = Captioner.load(path, "cpu")(PICTURE)
            assert isinstance(caption.text, str)
            assert caption.text.isprintable() or caption.text == ""
            worked += 1
        except ModelFileError as error:
            said = str(error)
            assert str(path) in said, number
            assert "\n" not in said, number
            assert len(said) < 1000, number
        for json_wanted in (False, True):  # as the command line asks; to parse it took longer than all the rest
            chosen = argparse.Namespace(model=str(path), json=json_wanted)
            assert guarded(lambda chosen=chosen: run_info(chosen)) in (0, 2), number
    return tried, worked


@pytest.fixture(params=[False, True], ids=["whole", "small"])
def stored(request, both_ways_file, small_file, tmp_path):
    save_model(tmp_path / "model", small_file if request.param else both_ways_file, small=request.param)
    return (tmp_path / "model").read_bytes()


@pytest.mark.slow
def test_a_mutated_file_works_or_is_refused_in_a_sentence(stored, tmp_path, capsys):
    """Headers, tables of tensors, numbers and bytes: no other exception, in loading, captioning and `info`."""
    tried, worked = attack(stored, tmp_path / "changed", 120, 1, 60)
    assert tried > worked > 0
    capsys.readouterr()


@pytest.fixture(scope="module")
def tiny_file(small_file):
    """A model whose encoder ends early, so that a file is loaded in some milliseconds; with both decoders."""
    torch.manual_seed(2)
    words = len(small_file.vocabulary)
    shape = (
        ImageOptions(size=32),
        EncoderOptions("resnet18", "layer1"),
        DecoderOptions(embedding_size=16, hidden_size=24),
    )
    model = CaptionModel(ModelOptions(*shape, words, True)).eval()
    return replace(small_file, model=model, search=SearchOptions(beam_size=2, max_length=4))


@pytest.mark.slow
@pytest.mark.parametrize("small", [False, True], ids=["whole", "small"])
def test_ten_thousand_mutated_files_work_or_are_refused_in_a_sentence(tiny_file, tmp_path, capsys, small):
    """Five thousand of either kind, always the same ones; a machine too busy for all of them stops after ten minutes."""
    save_model(tmp_path / "model", tiny_file, small=small)
    tried, worked = attack((tmp_path / "model").read_bytes(), tmp_path / "changed", 5000, 2, 600)
    assert tried > worked > 50
    assert tried > 500
    capsys.readouterr()
    print(f"{tried:,} of 5,000 were tried, {worked:,} worked")


@pytest.mark.slow
@pytest.mark.parametrize("small", [False, True], ids=["whole", "small"])
def test_memory_stays_below_twice_the_numbers_of_a_mutated_file(small_file, tmp_path, small):
    """Beside that of the program with an empty model: the numbers that a file holds, in float32 and twice.

    Of a whole file that is twice its size; of one with 8-bit weights they are four times the file. A network can be
    built from most of these copies, and some claim far more than they hold.
    """
    torch.manual_seed(3)
    words = [*small_file.vocabulary.words, *(f"word{number}" for number in range(4000))]
    shape = (
        ImageOptions(size=32),
        EncoderOptions("resnet18", "layer1"),
        DecoderOptions(embedding_size=512, hidden_size=512),
    )
    large = CaptionModel(ModelOptions(*shape, len(words))).eval()
    save_model(tmp_path / "0", replace(small_file, model=large, vocabulary=Vocabulary(words)), small=small)
    data = (tmp_path / "0").read_bytes()
    for number in range(1, 40):
        (tmp_path / str(number)).write_bytes(mutated(data, random.Random(f"4-{number}")))
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from captioner.checkpoint import load_model\n"
        "from captioner.errors import ModelFileError\n"
        "def status(name):\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))\n"
        "load_model(Path(sys.argv[1]))\n"
        "for path in map(Path, sys.argv[2:]):\n"
        "    Path('/proc/self/clear_refs').write_text('5')\n"  # the high-water mark is that of now
        "    before = status('VmRSS')\n"
        "    try:\n"
        "        load_model(path)\n"
        "        worked = 1\n"
        "    except ModelFileError:\n"
        "        worked = 0\n"
        "    print(path.name, worked, status('VmHWM') - before)\n"
    )
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux says how much memory was taken at most")
    save_model(tmp_path / "empty", small_file)
    paths = [tmp_path / "empty", *(tmp_path / str(number) for number in range(40))]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    most = 2 * len(data) * (4 if small else 1) + 30e6  # a header of 4,000 words and its check take some
    taken = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(taken) == 40
    assert taken[0][1] == 1
    assert any(not worked for _, worked, _ in taken)
    assert all(memory < most for _, _, memory in taken), (most, taken)


CLAIMS = {
    "layers": lambda header, table: header["decoder"].update(layers=8, hidden_size=8192, embedding_size=8192),
    "vocabulary": lambda header, table: header.update(
        vocabulary=header["vocabulary"] + [str(number) for number in range(400_000)]
    ),
    "a larger network": lambda header, table: header["encoder"].update(name="regnet_y_128gf"),
    "both": lambda header, table: header.update(reverse=True),
    "depth": lambda header, table: header.update(provenance=json.loads("[" * 900 + "]" * 900)),
}


@pytest.mark.slow
def test_memory_is_given_to_what_is_there_alone(small_file, tmp_path):
    """A file of a few megabytes that claims gigabytes is refused in little more memory than it takes itself."""
    save_model(tmp_path / "good", small_file, small=True)
    table, numbers = parts((tmp_path / "good").read_bytes())
    for name, claim in CLAIMS.items():
        wrong = copy.deepcopy(table)
        header = json.loads(wrong["__metadata__"]["captioner"])
        claim(header, wrong)
        wrong["__metadata__"]["captioner"] = json.dumps(header)
        (tmp_path / name).write_bytes(whole(wrong, numbers))
    scales = copy.deepcopy(table)  # a scale for each number of another one's rows, which broadcasts
    row = scales["decoder.embedding.weight:scale"]
    scales["decoder.embedding.weight:scale"] = {
        **row,
        "dtype": "I8",
        "shape": [row["data_offsets"][1] - row["data_offsets"][0]],
    }
    (tmp_path / "scales").write_bytes(whole(scales, numbers))
    script = (
        "import os, resource, sys\n"
        "from captioner.checkpoint import load_model\n"
        "from captioner.errors import CaptionerError, ModelFileError\n"
        "from pathlib import Path\n"
        "load_model(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, resource.RLIM_INFINITY))\n"  # should it ever fail
        "for path in map(Path, sys.argv[2:]):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    try:\n"
        "        load_model(path)\n"
        "    except ModelFileError as error:\n"
        "        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "        print(grown - 2 * os.path.getsize(path), str(error)[:300])\n"
    )
    names = [*CLAIMS, "scales"]
    command = [sys.executable, "-c", script, str(tmp_path / "good"), *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    lines = done.stdout.splitlines()
    assert len(lines) == len(names), done.stdout
    for name, line in zip(names, lines, strict=True):
        assert int(line.split()[0]) < (60e6 if name == "vocabulary" else 20e6), line


@pytest.fixture
def overflowing(small_file, tmp_path):
    """A whole model file, each of whose weights is finite, and whose scores are not."""
    save_model(tmp_path / "huge", small_file)
    file = load_model(tmp_path / "huge")
    for parameter in file.model.decoder.parameters():
        parameter.data.fill_(3e38)
    save_model(tmp_path / "huge", file)
    return tmp_path / "huge"


@pytest.mark.parametrize("command", ["caption", "evaluate", "video"])
def test_weights_too_great_for_finite_scores_are_one_sentence(overflowing, drawings, tmp_path, capsys, command):
    """About the file, once, exit 2, for any number of pictures: as of a file that cannot be loaded."""
    if command == "video":
        clips.write_clip(tmp_path / "clip.mp4", clips.moving(1))
    what = {
        "caption": [drawings],
        "evaluate": [drawings],
        "video": [tmp_path / "clip.mp4"],
    }[command]
    assert cli.main([command, *map(str, what), "--model", str(overflowing), "--device", "cpu"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    lines = [line for line in output.err.splitlines() if not line.startswith("Captioning")]
    assert len(lines) == 1
    assert lines[0].startswith(f"{overflowing} gives no finite probabilities")


@pytest.mark.parametrize("method", ["beam", "diverse", "sample"])
def test_every_search_says_that_scores_are_not_finite(overflowing, method):
    """In one picture's caption, in a list's, and in an explanation."""
    captioner = Captioner.load(overflowing, "cpu")
    for ask in (captioner, captioner.explain, lambda picture, **how: captioner([picture, picture], **how)):
        with pytest.raises(ModelFileError, match="gives no finite probabilities") as caught:
            ask(PICTURE, search=captioner.search_with(method=method))
        assert str(caught.value).startswith(str(overflowing))


def test_visitors_are_not_told_where_the_file_is(overflowing):
    """The model's name is enough for them."""
    captioner = Captioner.load(overflowing, "cpu")
    with closing(ModelQueue()) as queue:
        answer = queue.caption(captioner, captioner.read(PICTURE), captioner.search)
        with pytest.raises(ModelFileError, match=r"^huge gives no finite probabilities"):
            answer.result(60)


SMALL = (
    "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "inception_v3", "mobilenet_v2",
    "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnext50_32x4d",
)  # fmt: skip


def test_every_family_is_among_the_small_networks():
    """A family that is added is added there too."""
    assert {family for family in FAMILIES if any(name.startswith(family) for name in SMALL)} == set(FAMILIES)
    assert set(SMALL) <= set(encoder_names())


@pytest.mark.parametrize("name", SMALL)
def test_a_network_is_the_same_without_its_random_start(name, tmp_path):
    """Every family of encoders is built without numbers, filled, and gives the features of the one that was saved."""
    torch.manual_seed(0)
    options = ModelOptions(
        ImageOptions(size=96), EncoderOptions(name), DecoderOptions(embedding_size=8, hidden_size=8), 5
    )
    model = CaptionModel(options).eval()
    tensors = {key: value.contiguous() for key, value in model.state_dict().items() if key != "decoder.output.weight"}
    save_file(tensors, tmp_path / "model")
    loaded = load_network(tmp_path / "model", options).eval()
    pixels = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode(pixels), model.encode(pixels))
    assert loaded.decoder.output.weight is loaded.decoder.embedding.weight
    assert {key: value.stride() for key, value in loaded.state_dict().items()} == {
        key: value.stride() for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "2"}, "format is '2', not a whole number"),
        ({"format": None}, "format is None"),
        ({"format": True}, "format is True"),
        ({"vocabulary": "words"}, "vocabulary is no list of words"),
        ({"vocabulary": ["<pad>", 3]}, "vocabulary is no list of words"),
        ({"provenance": []}, r"provenance is \[\], not an object"),
        ({"decoder": None}, "decoder is None, not an object"),
        ({"reverse": 1}, "reverse is 1, not true or false"),
        ({"tokeniser": ["ptb-2"]}, "tokeniser is .*, not the name of one"),
    ],
)
def test_a_header_with_values_of_other_types_is_refused_by_name(small_file, tmp_path, change, said):
    """In loading and in `info` alike."""
    save_model(tmp_path / "model", small_file)
    table, numbers = parts((tmp_path / "model").read_bytes())
    header = json.loads(table["__metadata__"]["captioner"]) | change
    table["__metadata__"]["captioner"] = json.dumps(header)
    (tmp_path / "model").write_bytes(whole(table, numbers))
    for read in (load_model, read_header):
        with pytest.raises(ModelFileError, match=said):
            read(tmp_path / "model")
