"""`shards`: a data set as tar shards in the WebDataset layout, or an index of shards that others wrote."""

import argparse
from pathlib import Path

from captioner.cli.parser import Commands
from captioner.errors import OptionError
from captioner.files import check_output, remove_parts
from captioner.telling import OUT


def add(commands: Commands) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("shards", help="write a data set as tar shards, which train.py reads from anywhere")
    parser.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="a data set as train.py reads it; with --index, addresses of shards (.../train-{00000..00189}.tar)",
    )
    written = parser.add_mutually_exclusive_group(required=True)
    written.add_argument("--output", type=Path, metavar="FOLDER", help="write shards and their index into a new folder")
    written.add_argument("--index", type=Path, metavar="FILE", help="write an index (.jsonl) of shards at addresses")
    parser.add_argument(
        "--size", type=int, default=100, metavar="MB", help="of a shard, in 10^6 bytes (default: %(default)s)"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out what the data check finds")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Reads and checks the data, and writes."""
    if chosen.size < 1:
        raise OptionError("size", f"is {chosen.size}", "give 1 or more", field="size")
    from captioner.datasets import check_dataset, load_datasets
    from captioner.datasets.sharding import write_index, write_shards
    from captioner.files import is_address
    from captioner.pictures.shards import expanded

    if chosen.index:
        if chosen.index.suffix.lower() != ".jsonl":
            raise OptionError(f"--index is {chosen.index}: give it a name that ends in .jsonl.")
        if others := [path for path in chosen.data if not is_address(path)]:
            raise OptionError(f"{others[0]} is no address: shards on a disk need no index, give them to train.py.")
        check_output(chosen.index, "--index")
        data = write_index(expanded(chosen.data), chosen.index, skip_bad=chosen.skip_bad)
        OUT.say(f"{data.describe()}\nTrain with it:\n  {chosen.program} train {chosen.index}")
        return 0
    data = load_datasets(chosen.data)
    OUT.say(data.describe())
    data = check_dataset(data, skip_bad=chosen.skip_bad)
    remove_parts(chosen.output.parent, f"{chosen.output.name}.*.part")
    count = write_shards(data, chosen.output, size=chosen.size * 10**6)
    OUT.say(f"{count:,} shards. Train with them:\n  {chosen.program} train {chosen.output}")
    return 0
