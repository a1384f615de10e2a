"""Captions of millions of photos: from folders, lists, addresses and shards into parts of a table, on Ray Data.

    sources -> work -> read (tasks: fetch and decode) -> Worker (actors: a model each) -> Results (parts of a table)

Promises: one row a photo, of a bad one too, whatever dies on the way. The process that was started lists the sources
and is the only one that writes, so that a task which runs twice writes nothing twice; a part is there whole or not at
all; who starts again goes on behind the parts that are there. At no moment is more in memory than the tasks under way
hold, and 100 bytes for each photo that is done.

ray is imported in `engine` only, pyarrow here and in `formats`. `sources` says what there is to do, `addresses`
fetches, `shards` opens tar and parquet files, `reading` makes pixels, `worker` captions, `results` keeps, `run` leads.
"""

import importlib

from captioner.errors import ClusterError


def require() -> None:
    """Raises ClusterError where a package that only this room needs is missing."""
    try:
        for package in ("pyarrow", "ray", "fsspec"):
            importlib.import_module(package)
    except ImportError as error:
        reason = f"runs on Ray Data, and a package of it is missing ({error})"
        raise ClusterError("bulk", reason, "pip install -r requirements-cluster.txt") from error
