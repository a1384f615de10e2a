"""Results files and ids as other programs write them: read, or called by their name."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner import cli
from captioner.datasets import load_dataset
from captioner.datasets.dataset import CaptionedImage
from captioner.datasets.ids import finder
from captioner.datasets.results import ids_of, match_results, split_of
from captioner.errors import DataError
from captioner.formats import csv_lines, json_lines, read_results

ROOT = Path(__file__).parents[2]
IDS = (7, 42, 391895)
FORMS = {
    "numbers": "{}",
    "text with zeros": "{:012}",
    "COCO's names of 2017": "{:012}.jpg",
    "COCO's names of 2014": "COCO_val2014_{:012}.jpg",
    "short names": "{}.jpg",
    "paths": "images/{}.jpg",
    "COCO's paths": "/data/coco/val2017/{:012}.jpg",
    "paths of Windows": "data\\val2017\\{:012}.jpg",
    "without the suffix": "val2017/{:012}",
    "capitals": "./{:012}.JPG",
}
LINES = {
    "csv": "image_id,caption\n{}",
    "semicolons": '"image_id";"caption"\r\n{}',
    "JSON lines": "{}",
}


@pytest.fixture
def coco(tmp_path):
    """COCO's captions of three images."""
    images = [{"id": number, "file_name": f"{number:012}.jpg"} for number in IDS]
    captions = [{"image_id": number, "caption": f"a dog and {number} cats"} for number in IDS]
    file = tmp_path / "captions_val2017.json"
    file.write_text(json.dumps({"images": images, "annotations": captions}))
    return file


def evaluate(capsys, *arguments):
    status = cli.main(["evaluate", *map(str, arguments)])
    output = capsys.readouterr()
    return status, output.out, output.err


def image(name, image_id=None):
    return CaptionedImage(name, name if image_id is None else image_id, Path(name), ("a",), "val")


@pytest.mark.parametrize("form", FORMS)
def test_an_id_may_be_written_in_many_ways(coco, form):
    """In results each finds its image; so it does in references whose annotations call images so."""
    images = load_dataset(coco).images
    entries = [{"image_id": FORMS[form].format(number), "caption": f"of {number}"} for number in IDS]
    found = match_results(Path("r.json"), entries, images)
    assert found == {one.name: f"of {one.image_id}" for one in images}
    assert split_of(entries, load_dataset(coco)) == "test"
    content = json.loads(coco.read_text())
    content["annotations"] = [{**entry, "caption": "a dog"} for entry in entries]
    coco.write_text(json.dumps(content))
    again = load_dataset(coco)
    assert not again.problems
    assert [one.image_id for one in again.images] == list(IDS)


@pytest.mark.parametrize(
    ("names", "key", "fitting"),
    [
        (["a/1.jpg", "b/1.jpg"], "a/1.jpg", [0]),
        (["a/1.jpg", "b/1.jpg"], "x/b/1.jpg", [1]),
        (["a/1.jpg", "b/1.jpg"], "1.jpg", [0, 1]),
        (["a/1.jpg", "b/1.jpg"], "c/1.jpg", [0, 1]),
        (["1.jpg", "001.jpg"], "1.jpg", [0]),
        (["1.jpg", "001.jpg"], "1", [0]),
        (["1.jpg", "001.jpg"], "01", [0, 1]),
        (["A.jpg", "a.jpg"], "a.jpg", [1]),
        (["A.jpg", "a.jpg"], "x/A.JPG", [0, 1]),
        (["1.jpg", "1.png"], "1.png", [1]),
        (["1.jpg", "1.png"], "1", [0, 1]),
        (["cafe\u0301.jpg"], "café.jpg", [0]),
        (["12_ab.jpg"], "12", []),
        (["shot.v2"], "shot", []),
        (["1.jpg"], "2", []),
        (["1.jpg"], ".", []),
    ],
)
def test_what_fits_several_is_ambiguous(names, key, fitting):
    """The strictest way of reading that fits anything decides, and never between two."""
    assert finder([(name,) for name in names])(key) == fitting


def test_an_ambiguous_id_is_one_sentence(tmp_path):
    """In results and in references."""
    entries = [{"image_id": "1.jpg", "caption": "a"}]
    with pytest.raises(DataError, match=r"fits several images, .*: 1 \(1\.jpg\)"):
        match_results(Path("r.json"), entries, [image("a/1.jpg"), image("b/1.jpg")])
    content = {"images": [{"id": 1, "file_name": "a/7.jpg"}, {"id": 2, "file_name": "b/7.jpg"}]}
    content["annotations"] = [{"image_id": "7", "caption": "a"}]
    (tmp_path / "captions_val2017.json").write_text(json.dumps(content))
    problems = load_dataset(tmp_path / "captions_val2017.json").problems
    assert any(problem.name.endswith("annotations[0]: 7 fits several images") for problem in problems)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text("aA.é/\\0 1_-7", min_size=1, max_size=8), min_size=1, max_size=6, unique=True))
def test_every_name_means_itself(names):
    """Whatever else there is: loose ways of reading take nothing from exact ones."""
    find = finder([(name,) for name in names])
    assert [find(name) for name in names] == [[place] for place in range(len(names))]
    images = [image(f"x/{name}", name) for name in names]
    assert match_results(Path("r"), [{"image_id": one, "caption": "a"} for one in ids_of(images)], images)


def test_joined_data_sets_predictions_are_read_back():
    """Images of two data sets with one id are called by their names there."""
    images = [image("x/1.jpg", "1.jpg"), image("y/1.jpg", "1.jpg"), image("y/2.jpg", "2.jpg")]
    assert ids_of(images) == ["x/1.jpg", "y/1.jpg", "2.jpg"]
    entries = [{"image_id": one, "caption": one} for one in ids_of(images)]
    assert match_results(Path("r"), entries, images) == dict(
        zip(("x/1.jpg", "y/1.jpg", "y/2.jpg"), ids_of(images), strict=True)
    )


@pytest.mark.parametrize(
    ("form", "suffix"),
    [(form, ".json") for form in LINES]
    + [("csv", ".csv"), ("semicolons", ".csv"), ("csv", ".txt"), ("JSON lines", ".txt"), ("JSON lines", ".jsonl")],
)
def test_lines_are_results_too(coco, tmp_path, capsys, form, suffix):
    """JSON lines and csv, whatever the file is called: scored as the JSON list is."""
    entries = [{"image_id": number, "caption": f"a dog, {number} cats"} for number in IDS]
    if form == "JSON lines":
        text = "\n".join(map(json.dumps, entries))
    else:
        rows = (f'{entry["image_id"]}{";" if form == "semicolons" else ","}"{entry["caption"]}"' for entry in entries)
        text = LINES[form].format("\n".join(rows))
    (tmp_path / f"ours{suffix}").write_text(text)
    (tmp_path / "list.json").write_text(json.dumps(entries))
    assert evaluate(capsys, coco, "--results", tmp_path / f"ours{suffix}", "--json")[0] == 0
    one, other = (
        json.loads(evaluate(capsys, coco, "--results", tmp_path / name, "--json")[1])
        for name in (f"ours{suffix}", "list.json")
    )
    assert one["metrics"] == other["metrics"]


def test_what_caption_writes_is_results(coco, tmp_path, capsys):
    """`--format csv` and `--json`: by `image` and `path`."""
    named = [(f"photos/{number:012}.jpg", f"dog, {number}") for number in IDS]
    (tmp_path / "ours.csv").write_text("\n".join(csv_lines(named)))
    (tmp_path / "ours.jsonl").write_text("\n".join(json_lines({"path": n, "caption": c} for n, c in named)))
    images = load_dataset(coco).images
    for name in ("ours.csv", "ours.jsonl"):
        found = match_results(Path(name), read_results(tmp_path / name), images)
        assert found == {one.name: f"dog, {one.image_id}" for one in images}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("r.jsonl", '{"file_name": "1.jpg", "text": "a"}', "line 1 has file_name, text: the keys must be image_id and"),
        ("r.jsonl", '{"image_id": 7}\nno', "line 1 has image_id: the keys must be image_id and caption, line 2 is no JSON"),
        ("r.json", '[{"file_name": "1.jpg", "text": "a"}]', "[0] has file_name, text: the keys must be image_id and"),
        ("r.json", '[{"id": 7, "caption": "a"}, 3]', "[0] has id, caption: the keys must be image_id and caption"),
        ("r.csv", "file_name,text\n1.jpg,a", "r.csv is 'file_name,text': it must name the columns image_id,caption"),
        ("r.csv", "image_id,score,caption\n7", "line 2 has 1 fields for 3 columns"),
        ("r.json", '{"image_id": 7, "caption"', "is not whole JSON"),
        ("r.json", '{"images": [], "annotations": []}', "holds no results"),
        ("r.csv", "", "it must name the columns"),
        ("r.jsonl", "", "holds no results"),
    ],
)  # fmt: skip
def test_what_is_no_result_is_called_by_its_keys(coco, tmp_path, capsys, name, text, said):
    """The key found and the key wanted, or what the file is: exit 2, nothing on standard output."""
    (tmp_path / name).write_text(text)
    status, out, err = evaluate(capsys, coco, "--results", tmp_path / name)
    assert (status, out) == (2, "")
    assert said in err


def test_commas_in_captions_that_nobody_quoted(coco, tmp_path):
    """They belong to the caption, where it comes last."""
    (tmp_path / "r.csv").write_text("image_id,caption\n7,a dog, a cat\n\n42,x\n391895,y\n")
    found = match_results(Path("r"), read_results(tmp_path / "r.csv"), load_dataset(coco).images)
    assert found["val2017/000000000007.jpg"].split(", ") == ["a dog", "a cat"]


@pytest.mark.parametrize("name", ["results.jsonl", "results.csv"])
def test_the_case_that_was_reported(name, capsys):
    """The inputs of whoever reported it."""
    folder = ROOT.parent / "shared" / "cases" / "results-jsonl-csv"
    if not folder.is_dir():
        pytest.skip(f"the case is not at {folder}")
    status, out, err = evaluate(capsys, folder / "captions_val2017.json", "--results", folder / name)
    assert status == 0, err
    assert "6, with 6 references" in out
