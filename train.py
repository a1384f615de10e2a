"""Train a captioner.

    python train.py shapes                        drawn pictures, no download, some minutes on a laptop
    python train.py data/flickr8k                 Flickr8k, Flickr30k, COCO or a Karpathy split: recognised
    python train.py my_photos                     a folder of pictures with captions.csv or captions.jsonl
    python train.py my_photos --start-from fast --fine-tune all        go on from the model that ships
    python train.py data/flickr8k --output runs/a --resume             go on after a stop
    python train.py data/flickr8k --preset flickr8k                    a recipe of several runs, one after the other

A run lives in its --output folder: best.safetensors, last.safetensors, log.jsonl and resume.pt. A preset is several
runs, each in a folder below.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError, OptionError
from captioner.options import (
    DEVICES_HELP,
    PRESETS,
    DecoderOptions,
    EncoderOptions,
    ImageOptions,
    SearchOptions,
    TrainingOptions,
    add_arguments,
    given,
)

OPTIONS = (TrainingOptions, EncoderOptions, DecoderOptions, ImageOptions, SearchOptions)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", metavar="DATA", help="'shapes', or the folder or file of a data set (see data/README.md)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the run lives (default: runs/ and the data's name)"
    )
    parser.add_argument(
        "--preset", choices=PRESETS, help="a recipe of several stages; other options given go over those of each stage"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --output")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out what the data check finds, and train on the rest"
    )
    parser.add_argument(
        "--start-from", metavar="MODEL", help="a model to go on from: a bundled one by its name, or a model file"
    )
    parser.add_argument(
        "--teachers",
        nargs="+",
        metavar="MODEL",
        help="models whose ensemble teaches the one that training starts from; they have its vocabulary",
    )
    parser.add_argument(
        "--features",
        type=Path,
        default=Path("runs/features"),
        metavar="FOLDER",
        help="where a frozen encoder's features, and what the data check found whole, are kept (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help=DEVICES_HELP)
    for options in OPTIONS:
        add_arguments(parser, options)
    chosen = parser.parse_args(arguments)
    try:
        return run(chosen)
    except CaptionerError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def run(chosen: argparse.Namespace) -> int:
    """Reads and checks the data, trains, and says how to try the model."""
    for name, value in (("--start-from", chosen.start_from), ("--teachers", chosen.teachers)):
        if chosen.preset and value:
            raise OptionError(f"{name} does not go with --preset, whose stages decide it: leave it out.")
    from captioner.datasets import load_dataset
    from captioner.datasets.check import check_dataset
    from captioner.training.loop import check_choices, train
    from captioner.training.presets import check_preset, train_preset

    data = load_dataset(chosen.data)
    print(data.describe(), flush=True)
    output = chosen.output or Path("runs") / (Path(chosen.data).resolve().name if chosen.data != "shapes" else "shapes")
    choices: dict[str, Any] = {
        "given": {options.__name__: given(options, chosen) for options in OPTIONS},
        "output": output,
        "resume": chosen.resume,
    }
    if chosen.preset:
        choices["preset"] = chosen.preset
    else:
        choices |= {"start_from": chosen.start_from, "teachers": chosen.teachers or ()}
    check, go = (check_preset, train_preset) if chosen.preset else (check_choices, train)
    check(data, **choices)
    data = check_dataset(data, skip_bad=chosen.skip_bad, verdicts=chosen.features)
    best = go(data, **choices, features=chosen.features, device=chosen.device)
    if best is None:
        return 130
    print(f"Try it:\n  python app.py --model {best}\n  python -m captioner caption PHOTO --model {best}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
