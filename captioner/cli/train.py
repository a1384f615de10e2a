"""Train a captioner.

    %(prog)s shapes                        drawn pictures, no download, some minutes on a laptop
    %(prog)s data/flickr8k                 Flickr8k, Flickr30k, COCO or a Karpathy split: recognised
    %(prog)s my_photos                     a folder of pictures with captions.csv or captions.jsonl
    %(prog)s data/flickr8k my_photos       several at once: one vocabulary, one model, scores for each
    %(prog)s my_photos --start-from fast --fine-tune all        go on from the model that ships
    %(prog)s data/flickr8k --output runs/a --resume             go on after a stop
    %(prog)s data/flickr8k --preset flickr8k                    a recipe of several runs, one after the other
    torchrun --nproc-per-node 4 train.py data/coco       on four GPUs, each with a quarter of every batch

A run lives in its --output folder: best.safetensors, last.safetensors, log.jsonl and resume.pt. A preset is several
runs, each in a folder below.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.errors import OptionError
from captioner.options import DEVICES_HELP, GROUPS, PRESETS, add_arguments, given
from captioner.telling import OUT, SILENT, Telling

if TYPE_CHECKING:
    from captioner.datasets import Dataset
    from captioner.training.processes import Processes

SHOWN = ("training", "encoder", "decoder", "image", "search")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="'shapes', or the folder or file of a data set; several are learnt together (see data/README.md)",
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
        default=(),
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
    for name in SHOWN:
        add_arguments(parser, GROUPS[name])


def run(chosen: argparse.Namespace) -> int:
    """Reads and checks the data, trains, and says how to try the model."""
    for name, value in (("--start-from", chosen.start_from), ("--teachers", chosen.teachers)):
        if chosen.preset and value:
            raise OptionError(f"{name} does not go with --preset, whose stages decide it: leave it out.")
    from captioner.training.processes import joined

    with joined(chosen.device) as (processes, device):
        best = _run(chosen, processes, device)
        if best is None:
            return 130
        if processes.leads:
            OUT.say(f"Try it:\n  {chosen.page} --model {best}\n  {chosen.program} caption PHOTO --model {best}")
    return 0


def _run(chosen: argparse.Namespace, processes: "Processes", device: str) -> Path | None:
    """Reads the data, and trains in a folder that nobody else writes to."""
    from captioner.datasets import load_datasets
    from captioner.files import check_folder, remove_parts
    from captioner.metrics.remarks import SINGLE, remarks
    from captioner.training.folder import FEATURE_PARTS, RecipeFolder, RunFolder, held
    from captioner.training.processes import restarted

    telling = OUT if processes.leads else SILENT
    data = processes.together(lambda: load_datasets(chosen.data))
    telling.say(data.describe())
    captions = [caption for image in data.images if image.split != "test" for caption in image.captions]
    for line in remarks(captions, list(map(str.split, captions)), "references"):
        telling.say(f"  {line}")
    if sum(image.split == "val" for image in data.images) == 1:
        telling.say(f"  One picture validates. CIDEr-D of a single image {SINGLE}.")
    names = [path if path == "shapes" else Path(path).resolve().stem for path in chosen.data]
    output = chosen.output or Path("runs") / "-".join(names)
    (again,) = processes.any(restarted())
    resume = chosen.resume or (again and output.exists())
    if resume and (RecipeFolder(output) if chosen.preset else RunFolder(output)).unsaved:
        telling.say(f"The run in {output} was stopped before it saved anything: it starts again.")
        resume = False
    if not processes.leads:
        return _train(chosen, data, output, resume, processes, device, telling)
    check_folder(chosen.features, "--features")
    remove_parts(chosen.features, *FEATURE_PARTS)
    with held(output, telling):
        return _train(chosen, data, output, resume, processes, device, telling)


def _train(
    chosen: argparse.Namespace,
    data: "Dataset",
    output: Path,
    resume: bool,
    processes: "Processes",
    device: str,
    telling: Telling,
) -> Path | None:
    """Plans, checks the pictures and trains; the best model's file, or None if someone asked for a stop."""
    from captioner.datasets import check_dataset
    from captioner.training.plan import Plan
    from captioner.training.run import run as run_plan
    from captioner.training.stages import StagesPlan, run_stages

    choices = {name: given(options, chosen) for name, options in GROUPS.items()}
    where: dict[str, Any] = {"output": output, "device": device}

    def planned() -> Plan | StagesPlan:
        if chosen.preset and resume:
            return StagesPlan.resumed(choices, preset=chosen.preset, **where)
        if chosen.preset:
            return StagesPlan.new(data, choices, preset=chosen.preset, **where)
        if resume:
            return Plan.resumed(data, choices, teachers=chosen.teachers, **where)
        return Plan.new(data, choices, start_from=chosen.start_from, teachers=chosen.teachers, **where)

    plan = processes.together(planned)
    verdicts = chosen.features if processes.leads else None  # one process keeps them
    checked: dict[str, Any] = {"skip_bad": chosen.skip_bad, "verdicts": verdicts, "telling": telling}
    data = processes.together(lambda: check_dataset(data, **checked))
    if isinstance(plan, StagesPlan):
        return run_stages(plan, data, features=chosen.features, telling=telling, processes=processes)
    return run_plan(plan, data, features=chosen.features, telling=telling, processes=processes)
