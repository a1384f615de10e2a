"""`info` and `export`: what a model file holds, and a copy of it for shipping."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from captioner.cli.parser import Commands
from captioner.errors import OptionError
from captioner.files import check_output
from captioner.options import MODEL_HELP


def add(commands: Commands) -> None:
    """Adds the commands and their options."""
    info = commands.add_parser("info", help="say what a model file holds and where it came from")
    info.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    info.add_argument("--json", action="store_true", help="the whole header as JSON")
    info.set_defaults(run=run_info)

    export = commands.add_parser("export", help="copy a model file with 8-bit weights, for shipping")
    export.add_argument("model", metavar="MODEL", help="a model file, such as best.safetensors of a run")
    export.add_argument("output", nargs="?", type=Path, help="the file to write")
    export.add_argument(
        "--onnx",
        type=Path,
        metavar="FOLDER",
        help="write that copy into a folder instead, with ONNX graphs and a JSON card beside it, for --backend onnx",
    )
    export.add_argument("--note", help="what whoever uses the model should know: its terms, what it gets wrong")
    export.set_defaults(run=run_export)


def run_info(chosen: argparse.Namespace) -> int:
    """Prints a model file's header."""
    from captioner.card import model_path, read_header

    path = model_path(chosen.model)
    header = read_header(path)
    if chosen.json:
        print(json.dumps(header, ensure_ascii=False))
        return 0
    print(f"file           {path} ({path.stat().st_size / 1e6:.1f} MB, format {header['format']})")
    for name in ("image", "encoder", "decoder", "search"):
        print(f"{name:14} " + ", ".join(f"{key} {value}" for key, value in header[name].items()))
    print(f"{'directions':14} left to right{' and right to left' if header.get('reverse') else ''}")
    print(f"vocabulary     {len(header['vocabulary']):,} words, tokeniser {header['tokeniser']}")
    origin = header.get("provenance", {})
    for key, value in origin.items():
        if value is None:  # the commit of what was trained outside a source tree
            continue
        if key == "sureness" and isinstance(value, dict):
            value = _sureness(value)
        elif key == "starting_weights" and isinstance(value, dict):
            value = _trained_model(value)
        elif key == "teachers" and isinstance(value, list):
            value = ", ".join(map(_trained_model, value)) or "none"
        elif isinstance(value, dict):
            value = ", ".join(f"{name} {part}" for name, part in value.items()) or "nothing"
        print(f"{key:14} {value}")
    return 0


def _sureness(record: dict[str, Any]) -> Any:
    """When the model calls itself unsure, and what that is worth."""
    from captioner.sureness import Sureness

    try:
        return Sureness(**record).describe()
    except (TypeError, ValueError):  # another version's, or a stranger's
        return record


def _trained_model(record: Any) -> str:
    """A model that another one came from, in a few words; --json has its whole record."""
    return f"a model trained on {record.get('data', 'other data') if isinstance(record, dict) else record}"


def run_export(chosen: argparse.Namespace) -> int:
    """Writes the copy, or the folder."""
    if (chosen.output is None) == (chosen.onnx is None):
        raise OptionError("export writes either a file or, with --onnx, a folder: name one of them.")
    if chosen.onnx is not None:
        return _export_onnx(chosen)
    from captioner.checkpoint import load_model, model_path, save_model

    path = model_path(chosen.model)
    check_output(chosen.output, "the output", kind="model", inputs={"the model": path})
    file = load_model(path)
    if chosen.note:
        file = replace(file, provenance={**file.provenance, "note": chosen.note})
    save_model(chosen.output, file, small=True)
    print(f"{chosen.output}: {chosen.output.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    return 0


def _export_onnx(chosen: argparse.Namespace) -> int:
    if chosen.note:
        raise OptionError("--note goes into a model file: export to a file first, then that with --onnx.")
    if chosen.onnx.exists() and not chosen.onnx.is_dir():
        raise OptionError(f"--onnx is {chosen.onnx}, which is a file: name a folder.")
    from captioner.card import model_path
    from captioner.onnx_export import export_onnx

    for path in export_onnx(model_path(chosen.model), chosen.onnx):
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB", file=sys.stderr)
    return 0
