"""The promises of `python -m captioner evaluate`, kept through the real door."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner import Captioner, cli, files
from captioner.text import TOKENISER

ROOT = Path(__file__).parents[2]

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
    for part in ("BLEU-1", "BLEU-4", "CIDEr-D", "ROUGE-L", "3, with 6 references (2.00 each)", "fit squash to 64"):
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
    assert (record["split"], record["images"], record["references"], record["tokeniser"]) == ("val", 3, 6, TOKENISER)
    assert (record["length"], record["distinct"]) == (10 / 3, 3)
    assert (record["seed"], record["resamples"]) == (1, 1000)  # as the README says
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
    assert "+0.00 (+0.00 to +0.00)        50.0% of resamples" in out
    assert "0.909, brevity penalty 0.905" in out
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
    assert not any(one["repeats"] or one["unfinished"] for one in records)


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
        ([], "holds no results"),
        ([{"id": "a.png", "text": "A dog"}], "malformed result: 1 ([0] has no usable image_id)"),
        (GOOD[:2], "image without a result: 1 (c.png)"),
        ([*GOOD, GOOD[0]], "image with several results: 1 (a.png)"),
        (
            [*GOOD, {"image_id": "z.png", "caption": "x"}],
            "result for an image that is not among those to score: 1 (z.png)",
        ),
        ([*GOOD[:2], {"image_id": "c.png", "caption": 5}], "malformed result: 1 (the caption of c.png is no text)"),
        (
            [*GOOD[:2], {"image_id": "c.png", "caption": "\ud800"}],
            "malformed result: 1 (the caption of c.png is no text)",
        ),
        (
            [*GOOD, {"caption": "x"}, 7, {"image_id": True}],
            "malformed result: 3 ([3] has no usable image_id, [4] has",
        ),
        ([{"image_id": 391895, "caption": "x"}], "choose another split or data set"),
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
    assert "2, with 4 references" in out
    status, _, err = call(capsys, data, "--results", results([GOOD[0], GOOD[0]]), "--skip-bad")
    assert status == 2
    assert "Nothing is left" in err


def test_comparison_is_on_the_same_images(data, results, capsys):
    """Where one file lacks an image and --skip-bad is given, neither is scored on it."""
    first, second = results(GOOD[:2], "first.json"), results(GOOD[1:], "second.json")
    status, out, _ = call(capsys, data, "--results", first, "--compare", second, "--skip-bad")
    assert status == 0
    assert "1, with 2 references" in out
    status, _, err = call(capsys, data, "--results", results(GOOD[:1], "first.json"), "--compare", second, "--skip-bad")
    assert status == 2
    assert "no image" in err


def test_empty_captions_are_scored_and_said(data, results, capsys):
    """An empty caption is a caption, if a bad one."""
    status, out, _ = call(capsys, data, "--results", results([*GOOD[:2], {"image_id": "c.png", "caption": " . "}]))
    assert status == 0
    assert re.search(r"have no word +1 of 3", out)


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
    assert "2, with 2 references (1.00 each)" in out
    status, _, err = call(capsys, file, "--results", results([*good, {"image_id": 7, "caption": "a dog"}]))
    assert status == 2
    assert "several results: 1 (7)" in err


def test_results_choose_their_split(data, results, tmp_path, capsys):
    """Without --split the one that the results are of is scored, all of them where they are of several."""
    one = {"image_id": "d.png", "caption": "x"}
    for content, split, count in ((GOOD, "val", 3), ([one], "train", 1), ([*GOOD, one], "all", 4)):
        status, out, err = call(capsys, data, "--results", results(content))
        assert status == 0, err
        assert f"split       {split}\nimages      {count}, with" in out
    status, out, _ = call(capsys, data, "--results", results([*GOOD, one]), "--split", "all")
    assert status == 0
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(40)]
    captions = [{"image_id": number, "caption": f"dog {number}"} for number in range(40)]
    file = tmp_path / "mine.json"  # a name that says nothing of a split: one is held out for training, not for scoring
    file.write_text(json.dumps({"images": images, "annotations": captions}))
    status, out, err = call(capsys, file, "--results", results(captions))
    assert status == 0, err
    assert "images      40, with 40 references" in out


def test_images_may_be_called_by_their_files_names(tmp_path, results, capsys):
    """COCO's by the file's name or a whole number with a point, as pandas writes it; not where two files share a name."""
    images = [
        {"id": number, "file_name": f"{folder}{number}.jpg"} for number, folder in ((7, "a/"), (8, "b/"), (9, ""))
    ]
    captions = [{"image_id": number, "caption": "a dog"} for number in (7, 8, 9)]
    file = tmp_path / "captions_val2017.json"
    file.write_text(json.dumps({"images": images, "annotations": captions}))
    good = [{"image_id": name, "caption": "a dog"} for name in ("7.jpg", 8.0, "9")]
    assert call(capsys, file, "--results", results(good))[0] == 0
    status, _, err = call(capsys, file, "--results", results([*good, {"image_id": 7, "caption": "a cat"}]))
    assert status == 2
    assert "several results: 1 (7)" in err
    images[1]["file_name"] = "b/7.jpg"
    file.write_text(json.dumps({"images": images, "annotations": captions}))
    status, _, err = call(capsys, file, "--results", results(good))
    assert status == 2
    assert "not among those to score: 1 (7.jpg)" in err


def test_the_other_system_is_looked_at_too(tmp_path, results, capsys):
    """--compare says what the other captions are like, and calls them out where they are degenerate."""
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(30)]
    captions = [{"image_id": number, "caption": f"the dog number {number} runs"} for number in range(30)]
    file = tmp_path / "captions_val2017.json"
    file.write_text(json.dumps({"images": images, "annotations": captions}))
    same = results([{**one, "caption": "a dog"} for one in captions], "same.json")
    status, out, _ = call(capsys, file, "--results", results(captions), "--compare", same)
    assert status == 0
    assert "theirs: different captions 1 of 30" in out
    assert f"{same}: Degenerate: only 1 different caption" in out


REMARKS = {
    "marks": (
        ["a square of red", "a square of blue"],
        ["<start> a square of red <end>", "<start> a dog <end>"],
        "2 of 2 captions begin with <start> and end with <end>",
    ),
    "one image": (["a red square on a plain ground"], ["a red square on a plain ground"], "CIDEr-D of a single image is 0"),
    "Chinese": (
        ["一只狗在草地上奔跑", "两个女孩在唱歌"],
        ["一只狗在草地上跑", "一个女孩在舞台上唱歌"],
        "2 of 2 captions are in a language without spaces",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REMARKS)
def test_scores_that_say_little_say_why(tmp_path, results, case, capsys):
    """The same scores as ever, and one line each in the table, the JSON, the page, and on standard error beside JSON."""
    references, captions, said = REMARKS[case]
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number, _ in enumerate(references)],
        "annotations": [{"image_id": number, "caption": text} for number, text in enumerate(references)],
    }
    file, page = tmp_path / "captions_val2017.json", tmp_path / "report.html"
    file.write_text(json.dumps(content))
    ours = results([{"image_id": number, "caption": text} for number, text in enumerate(captions)])
    status, out, err = call(capsys, file, "--results", ours, "--html", page, "--compare", ours)
    assert status == 0, err
    assert out.count(said) == 1
    assert html.escape(said) in page.read_text()
    status, out, err = call(capsys, file, "--results", ours, "--json")
    assert status == 0
    assert any(line.startswith(said) for line in json.loads(out)["remarks"])
    assert err.count(said) == 1


@pytest.mark.parametrize("case", ["results-start-end", "one-image-cider", "chinese-captions"])
def test_other_people_s_puzzles_are_explained(case, capsys):
    """The inputs of those who reported them."""
    folder = ROOT.parent / "shared" / "cases" / case
    if not folder.is_dir():
        pytest.skip(f"the case is not at {folder}")
    data = next(path for path in folder.glob("*.json") if path.name != "results.json")
    status, out, _ = call(capsys, data, "--results", folder / "results.json")
    assert status == 0
    assert re.search("take them off|0 by definition|without spaces", out)


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
        (["--results", "GOOD", "--resamples", "1000000000"], "it must be from 10 to 100,000"),
        (["--results", "GOOD", "--html", "FOLDER"], "a folder: name a file"),
        (["--results", "GOOD", "--html", "GOOD/report.html"], "cannot be written"),
        (["--results", "GOOD", "--html", "/proc/nowhere/report.html"], "cannot be written"),
        (["--results", "GOOD", "--split", "train", "--human"], "None of its images"),
        (["--results", "ONE", "--split", "train", "--human"], "1 of 1 images have fewer than two references"),
        (["--results", "GOOD", "--split", "test"], "no images in its test split"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(data, results, tmp_path, arguments, said, capsys):
    """Nothing on standard output, no traceback."""
    paths = {
        "GOOD": results(GOOD),
        "ONE": results([{"image_id": "d.png", "caption": "x"}], "one.json"),
        "FOLDER": tmp_path,
    }
    paths["GOOD/report.html"] = paths["GOOD"] / "report.html"
    status, out, err = call(capsys, data, *(paths.get(argument, argument) for argument in arguments))
    assert (status, out) == (2, "")
    assert said in err


def test_what_is_missing_is_said_before_captioning(data, model, capsys, monkeypatch, tmp_path):
    """METEOR without its Java is refused at once, not after an hour."""
    monkeypatch.setenv("PATH", str(tmp_path))
    status, out, err = call(capsys, data, "--model", model, "--meteor")
    assert (status, out) == (2, "")
    assert "METEOR needs" in err
    assert "Captioning" not in err


def test_links_and_devices_stay_what_they_are(data, results, tmp_path, capsys):
    """A link's target is written; what is no ordinary file is refused."""
    (tmp_path / "target.html").write_text("old")
    (tmp_path / "link.html").symlink_to("target.html")
    assert call(capsys, data, "--results", results(GOOD), "--html", tmp_path / "link.html")[0] == 0
    assert (tmp_path / "link.html").is_symlink()
    assert "<html" in (tmp_path / "target.html").read_text()
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "no ordinary file"), ("x" * 300, "name")):
        status, _, err = call(capsys, data, "--results", results(GOOD), "--html", tmp_path / name)
        assert status == 2
        assert said in err
        assert "Traceback" not in err


def test_a_stray_result_does_not_change_the_split(data, results, capsys):
    """One picture of another split is named; the split stays the one that the others are of."""
    with (data / "captions.csv").open("a") as file:
        file.write("".join(f"{name}.png,a dog,train\n" for name in "efgh"))
    status, _, err = call(capsys, data, "--results", results([*GOOD, {"image_id": "d.png", "caption": "x"}]))
    assert status == 2
    assert "1 problem:" in err or "malformed" in err or "missing" in err
    assert "not among those to score: 1 (d.png)" in err


def test_references_without_words_are_valid_json(tmp_path, results, capsys):
    """No Infinity, which no other program reads."""
    file = tmp_path / "captions_val2017.json"
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": "."}]}
    file.write_text(json.dumps(content))
    status, out, _ = call(capsys, file, "--results", results([{"image_id": 1, "caption": "a dog"}]), "--json")
    assert status == 0
    assert json.loads(out, parse_constant=lambda name: pytest.fail(name))["length_ratio"] is None


def test_a_narrow_terminal_costs_no_table(data, tmp_path):
    """What the output's encoding cannot show is written as an escape."""
    path = tmp_path / "résultats.json"
    path.write_text(json.dumps(GOOD))
    command = [sys.executable, "-m", "captioner", "evaluate", str(data), "--results", str(path)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert r"r\xe9sultats.json" in done.stdout


def test_a_file_that_cannot_be_written_loses_nothing(data, results, tmp_path, capsys, monkeypatch):
    """The table and the other files come all the same; the status says that something failed."""
    bad, good = tmp_path / "images.jsonl", tmp_path / "report.html"
    write = files.write_atomically

    def full(path, fill):
        if path == bad:
            raise OSError(28, "No space left on device")
        write(path, fill)

    monkeypatch.setattr(files, "write_atomically", full)
    status, out, err = call(capsys, data, "--results", results(GOOD), "--html", good, "--per-image", bad)
    assert status == 2
    assert f"{bad} could not be written: No space left on device." in err
    assert "BLEU-4" in out
    assert good.exists()


@pytest.mark.parametrize("output", ["--predictions", "--per-image", "--html"])
def test_no_input_is_overwritten(data, results, tmp_path, output, capsys):
    """An output that is the data, the results, the other results or another output is refused before anything is read."""
    ours, theirs, captions = results(GOOD), results(GOOD, "theirs.json"), data / "captions.csv"
    before = {path: path.read_bytes() for path in (ours, theirs, captions)}
    for path in (ours, theirs, captions, data / ".." / "results.json"):
        for source in (data, captions):
            status, out, err = call(capsys, source, "--results", ours, "--compare", theirs, output, path)
            assert (status, out) == (2, "")
            assert f"{output} is {path}" in err
            assert "name a" in err
    assert {path: path.read_bytes() for path in before} == before
    same = tmp_path / "same"
    status, _, err = call(capsys, data, "--results", ours, "--html", same, "--per-image", same, "--predictions", same)
    assert status == 2
    assert "which is --predictions too" in err
    assert not same.exists()


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
    assert "images      2, with" in out


def test_scoring_results_needs_no_network_s_library(data, results):
    """Another system's captions are scored without torch, which takes seconds to import."""
    script = (
        "import sys; from captioner.cli import main; status = main(sys.argv[1:]); "
        "print(status, sorted({'torch', 'torchvision', 'gradio'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, "evaluate", str(data), "--results", str(results(GOOD)), "--human"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
