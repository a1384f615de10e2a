"""The promises of `python -m captioner evaluate`, kept through the real door."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner import Captioner, cli
from captioner.checkpoint import save_model
from captioner.text import TOKENISER

ROOT = Path(__file__).parents[1]

CAPTIONS = """image,caption,split
a.png,A dog runs.,val
a.png,The red cat!,val
b.png,"A man rides a bike, fast",val
b.png,a man on his bicycle,val
c.png,Two girls sing,val
c.png,Two girls are singing on a stage,val
d.png,x,train
"""
GOOD = [
    {"image_id": "a.png", "caption": "A dog runs"},
    {"image_id": "b.png", "caption": "A man rides a bike"},
    {"image_id": "c.png", "caption": "a dog"},
]


@pytest.fixture(scope="module")
def model(small_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(path, small_file)
    return str(path)


@pytest.fixture
def data(tmp_path):
    """A folder of four small pictures, three of them to be scored, with two references each."""
    folder = tmp_path / "data"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in "abcd":
        pixels = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "captions.csv").write_text(CAPTIONS)
    return folder


@pytest.fixture
def results(tmp_path):
    """Writes a results file."""

    def write(content, name="results.json"):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def call(capsys, *arguments):
    status = cli.main(["evaluate", *(str(argument) for argument in arguments)])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_a_model_captions_each_picture_once(data, model, tmp_path, capsys):
    """A table of every metric with its interval, and one prediction a picture in COCO's results format."""
    predictions = tmp_path / "out.json"
    status, out, err = call(capsys, data, "--split", "dev", "--model", model, "--predictions", predictions)
    assert status == 0, err
    for part in ("BLEU-1", "BLEU-4", "CIDEr-D", "ROUGE-L", "3 images, 6 references (2.00 each)", "fit squash to 64"):
        assert part in out
    assert "of 10 (" in out
    found = json.loads(predictions.read_text())
    assert [result["image_id"] for result in found] == ["a.png", "b.png", "c.png"]
    captioner = Captioner.load(model, "cpu")
    assert found[0]["caption"] == captioner(data / "a.png").text
    _, out, _ = call(capsys, data, "--model", model, "--fit", "pad", "--image-size", "96")
    assert "fit pad to 96" in out


def test_nothing_is_written_that_nobody_asked_for(data, model, tmp_path, capsys, monkeypatch):
    """No file appears where the command runs."""
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    assert call(capsys, data, "--model", model)[0] == 0
    assert set(tmp_path.rglob("*")) == before


def test_a_model_s_predictions_score_as_the_model_did(data, model, tmp_path, capsys):
    """Written and read back, the captions have the same scores, and the same intervals."""
    predictions = tmp_path / "out.json"
    _, out, _ = call(capsys, data, "--model", model, "--json", "--predictions", predictions)
    _, again, _ = call(capsys, data, "--results", predictions, "--json")
    assert json.loads(out)["metrics"] == json.loads(again)["metrics"]
    assert "vocabulary" in json.loads(out)
    assert "vocabulary" not in json.loads(again)


def test_json_says_all_that_the_table_says(data, results, capsys):
    """Scores with intervals, counts of images and references, habits, the tokeniser, the comparison and the person."""
    other = results([{**one, "caption": "a man"} for one in GOOD], "other.json")
    status, out, _ = call(capsys, data, "--results", results(GOOD), "--compare", other, "--human", "--json")
    assert status == 0
    record = json.loads(out)
    assert (record["images"], record["references"], record["tokeniser"]) == (3, 6, TOKENISER)
    assert (record["length"], record["distinct"]) == (10 / 3, 3)
    for one in record["metrics"].values():
        assert one["low"] <= one["score"] <= one["high"]
    assert record["metrics"]["BLEU-1"]["score"] == pytest.approx(100 * 9 / 10 * np.exp(1 - 11 / 10), abs=1e-4)
    assert record["compared"]["with"] == str(other)
    bleu = record["compared"]["metrics"]["BLEU-1"]
    assert bleu["ours"] > bleu["theirs"]
    assert record["person"]["references"] == 1
    assert record["habits"].keys() == record["reference_habits"].keys()


def test_the_table_shows_the_comparison_and_the_person(data, results, capsys):
    """Ours, theirs, the difference with its interval; and the same against one person."""
    status, out, _ = call(capsys, data, "--results", results(GOOD), "--compare", results(GOOD, "b.json"), "--human")
    assert status == 0
    assert "+0.00, +0.00 to +0.00" in out
    assert "against one person, both with one reference less (1.00 each)" in out
    assert "model" not in out.replace("the model", "")


def test_the_worst_image_comes_first(data, results, tmp_path, capsys):
    """A line an image: id, caption, references and every score."""
    path = tmp_path / "images.jsonl"
    assert call(capsys, data, "--results", results(GOOD), "--per-image", path)[0] == 0
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records[0]["image_id"] == "c.png"
    assert records[0]["references"] == ["Two girls sing", "Two girls are singing on a stage"]
    scores = [one["scores"]["CIDEr-D"] for one in records]
    assert scores == sorted(scores)
    assert len(records) == 3


def test_the_page_is_written(data, results, tmp_path, capsys):
    """--html writes one file with the pictures inside."""
    path = tmp_path / "report.html"
    assert call(capsys, data, "--results", results(GOOD), "--html", path)[0] == 0
    assert "data:image/jpeg;base64" in path.read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nonsense", "not whole JSON (line 1, column 1"),
        ("", "not whole JSON"),
        ({"a.png": "A dog"}, "holds no results: they are a JSON list"),
        ([], "image without a result: 3 (a.png, b.png, c.png)"),
        (GOOD[:2], "image without a result: 1 (c.png)"),
        ([*GOOD, GOOD[0]], "image with several results: 1 (a.png)"),
        ([*GOOD, {"image_id": "z.png", "caption": "x"}], "result for an image that is not there: 1 (z.png)"),
        ([*GOOD[:2], {"image_id": "c.png", "caption": 5}], "malformed result: 1 (the caption of c.png is no text)"),
        (
            [*GOOD[:2], {"image_id": "c.png", "caption": "\ud800"}],
            "malformed result: 1 (the caption of c.png is no text)",
        ),
        (
            [*GOOD, {"caption": "x"}, 7, {"image_id": True}],
            "malformed result: 3 ([3] has no usable image_id, [4] has",
        ),
        ([{"image_id": 391895, "caption": "x"}], "choose another --split or data set"),
    ],
)
def test_wrong_results_are_named_and_counted(data, results, content, said, capsys):
    """One message and exit 2, nothing on standard output."""
    status, out, err = call(capsys, data, "--results", results(content))
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_skip_bad_scores_the_rest(data, results, capsys):
    """Images with exactly one usable caption are scored, and the number says so."""
    content = [*GOOD, GOOD[0], {"image_id": "z.png", "caption": "x"}]
    status, out, err = call(capsys, data, "--results", results(content), "--skip-bad")
    assert status == 0
    assert "Going on with 2 of 3 images" in err
    assert "2 images, 4 references" in out
    status, _, err = call(capsys, data, "--results", results([GOOD[0], GOOD[0]]), "--skip-bad")
    assert status == 2
    assert "Nothing is left" in err


def test_comparison_is_on_the_same_images(data, results, capsys):
    """Where one file lacks an image and --skip-bad is given, neither is scored on it."""
    first, second = results(GOOD[:2], "first.json"), results(GOOD[1:], "second.json")
    status, out, _ = call(capsys, data, "--results", first, "--compare", second, "--skip-bad")
    assert status == 0
    assert "1 images, 2 references" in out
    status, _, err = call(capsys, data, "--results", results(GOOD[:1], "first.json"), "--compare", second, "--skip-bad")
    assert status == 2
    assert "no image" in err


def test_empty_captions_are_scored_and_said(data, results, capsys):
    """An empty caption is a caption, if a bad one."""
    status, out, _ = call(capsys, data, "--results", results([*GOOD[:2], {"image_id": "c.png", "caption": " . "}]))
    assert status == 0
    assert re.search(r"have no word +33.3%", out)


def test_numbers_may_be_written_as_text(tmp_path, results, capsys):
    """COCO's ids are numbers; "7" is 7, and 7 and "7" together are one image twice."""
    annotations = {
        "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 8, "file_name": "8.jpg"}],
        "annotations": [{"image_id": 7, "caption": "a dog"}, {"image_id": 8, "caption": "a cat"}],
    }
    file = tmp_path / "captions_val2017.json"
    file.write_text(json.dumps(annotations))
    good = [{"image_id": "7", "caption": "a dog"}, {"image_id": 8, "caption": "a cat"}]
    status, out, err = call(capsys, file, "--results", results(good))
    assert status == 0, err  # no picture is needed, and the only split is taken
    assert "test: 2 images, 2 references (1.00 each)" in out
    status, _, err = call(capsys, file, "--results", results([*good, {"image_id": 7, "caption": "a dog"}]))
    assert status == 2
    assert "several results: 1 (7)" in err


def test_images_without_references_are_named(data, results, capsys):
    """A data set with a picture nobody captioned is not scored as if it were whole."""
    Image.new("RGB", (30, 40)).save(data / "e.png")
    status, _, err = call(capsys, data, "--results", results(GOOD))
    assert status == 2
    assert "picture without captions: 1 (e.png)" in err
    assert call(capsys, data, "--results", results(GOOD), "--skip-bad")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--results", "nowhere.json"], "nowhere.json cannot be read"),
        (["--results", "GOOD", "--model", "x"], "leave --model out"),
        (["--results", "GOOD", "--beam-size", "3"], "leave --beam-size out"),
        (["--results", "GOOD", "--fit", "pad"], "leave --fit out"),
        (["--results", "GOOD", "--resamples", "1"], "--resamples is 1"),
        (["--results", "GOOD", "--html", "FOLDER"], "a folder: name a file"),
        (["--results", "GOOD", "--split", "train", "--human"], "None of its images"),
        (["--results", "ONE", "--split", "train", "--human"], "1 of 1 images have fewer than two references"),
        (["--results", "GOOD", "--split", "test"], "no images in its test split"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(data, results, tmp_path, arguments, said, capsys):
    """Nothing on standard output, no traceback."""
    files = {
        "GOOD": results(GOOD),
        "ONE": results([{"image_id": "d.png", "caption": "x"}], "one.json"),
        "FOLDER": tmp_path,
    }
    status, out, err = call(capsys, data, *(files.get(argument, argument) for argument in arguments))
    assert (status, out) == (2, "")
    assert said in err


def test_a_file_that_cannot_be_written_loses_nothing(data, results, tmp_path, capsys):
    """The table and the other files come all the same; the status says that something failed."""
    (tmp_path / "file").write_text("in the way")
    bad, good = tmp_path / "file" / "report.html", tmp_path / "images.jsonl"
    status, out, err = call(capsys, data, "--results", results(GOOD), "--html", bad, "--per-image", good)
    assert status == 2
    assert f"{bad} could not be written" in err
    assert "BLEU-4" in out
    assert good.exists()


def test_bad_pictures_stop_it_unless_told_to_skip_them(data, model, tmp_path, capsys):
    """The check covers the split that is asked for: exit 2 with names, or the rest with --skip-bad."""
    (data / "b.png").write_bytes(b"no photo")
    arguments = [data, "--model", model, "--predictions", tmp_path / "out.json"]
    status, _, err = call(capsys, *arguments)
    assert status == 2
    assert "b.png" in err
    assert not (tmp_path / "out.json").exists()
    status, out, _ = call(capsys, *arguments, "--skip-bad")
    assert status == 0
    assert "2 images" in out


def test_scoring_results_needs_no_network_s_library(data, results):
    """Another system's captions are scored without torch, which takes seconds to import."""
    script = (
        "import sys; from captioner.cli import main; status = main(sys.argv[1:]); "
        "print(status, sorted({'torch', 'torchvision', 'gradio'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, "evaluate", str(data), "--results", str(results(GOOD)), "--human"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
