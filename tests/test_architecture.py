"""The floors of the house: imports point down only, and some packages are known to one room only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = [  # from the ground up; rooms of one floor do not import each other
    {"errors", "options", "files", "header", "captions", "sureness", "telling", "imports"},
    {"pictures", "text", "device", "formats", "card", "backends"},
    {"encoder", "decoder", "search", "onnx_files"},
    {"vision"},
    {"model"},
    {"tensors", "network", "onnx_network"},
    {"checkpoint", "datasets", "metrics", "archives", "download"},
    {"generation", "onnx_export"},
    {"evaluation"},
    {"captioner", "training", "report"},
    {"video", "bulk"},
    {"web"},
    {"cli"},
    {"__main__", "app", "train"},
]
ABOVE = {room: height for height, floor in enumerate(FLOORS) for room in floor}
ALLOWED_NEIGHBOURS = {
    ("options", "errors"),  # an option that is wrong is an error
    ("files", "errors"),  # and so is a file that cannot be read
    ("captions", "errors"),  # and so is what becomes of a picture without a caption
}
ONLY_IN = {
    "gradio": "web",
    "fastapi": "web",
    "fastapi_offline": "web",
    "jinja2": "web",
    "pydantic": "web",
    "uvicorn": "web",
    "starlette": "web",
    "nltk": "metrics",
    "torchvision": "encoder",
    "av": "video",
    "httpx": "download",
    "webdataset": "pictures",
    "ray": "bulk",
    "onnxruntime": "onnx_network",
    "onnxscript": "onnx_export",
    "onnx_ir": "onnx_export",
}
SHARED = {
    "pyarrow": {"formats", "bulk"},  # one reads its files, the other's tables are its
    "fsspec": {"pictures", "bulk"},  # one opens shards to train from, the other lists and reads what is to be captioned
}
TORCHLESS = {
    "backends",
    "errors",
    "options",
    "captions",
    "card",
    "files",
    "header",
    "sureness",
    "telling",
    "text",
    "formats",
    "download",
    "bulk",
    "cli",
} | {
    "__main__",
    "app",
    "train",
}


def sources():
    files = [*(ROOT / "captioner").rglob("*.py"), ROOT / "app.py", ROOT / "train.py"]
    return [path for path in files if path != ROOT / "captioner" / "__init__.py"]


def room_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "captioner" else parts[0]


def imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_down(path):
    """A room imports rooms of lower floors only."""
    room = room_of(path)
    if room == "pretrained":
        return
    assert room in ABOVE, f"{room} has no floor: give it one in this test and in CONTRIBUTING.md"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "captioner" or len(parts) < 2 or parts[1] not in ABOVE or parts[1] == room:
            continue
        if (room, parts[1]) not in ALLOWED_NEIGHBOURS:
            assert ABOVE[parts[1]] < ABOVE[room], f"{room} imports {parts[1]}, which is not below it"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_packages_stay_in_their_rooms(path):
    """gradio, fastapi and uvicorn in web/, nltk in metrics/, torchvision in the encoder, av in video/, ray in bulk/: the rest runs without them."""
    for name in imports(path):
        package = name.split(".")[0]
        homes = SHARED.get(package, {ONLY_IN.get(package, room_of(path))})
        assert room_of(path) in homes, f"{path.name} imports {name}"


def test_captioning_reads_no_data_sets():
    """Whoever captions pictures does not load the readers of data sets, nor what trains and scores."""
    script = "import sys, captioner.captioner; print(sorted(n for n in sys.modules if n.startswith('captioner.')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "captioner.captioner" in done.stdout
    for room in ("datasets", "training", "metrics", "evaluation", "formats", "video"):
        assert f"captioner.{room}" not in done.stdout


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_help_needs_no_torch(path):
    """What a command line needs to print its help does not import torch, directly or through a neighbour."""
    if room_of(path) not in TORCHLESS:
        return
    for name in imports(path, top_level_only=True):
        assert name.split(".")[0] not in ("torch", "torchvision", "gradio", "numpy", "av")
        if name.startswith("captioner."):
            assert name.split(".")[1] in TORCHLESS, f"{path.name} imports {name} at the top"


def test_nobody_reaches_through_a_captioner():
    """Faces and jobs ask a Captioner (its card, its search, a copy with other options), not the network behind it."""
    for path in sources():
        if room_of(path) == "captioner":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("file", "network", "vocabulary"):
                holder = ast.unparse(node.value)
                assert not holder.split("[")[0].endswith(("captioner", "captioners")), f"{path}: {ast.unparse(node)}"
