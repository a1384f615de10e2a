"""Captions as files, each form's reader beside its writer: `tables` (csv, JSON), `coco` (COCO's results), `sidecars`
(files to lie beside the photos), `embedded` (in the photos) and `subtitles`; `parquet` is read only. `rows` and
`fields` are what readers share.

Promises: every form takes every name and caption, and what it holds is read back exactly, but for white space around
it, and line ends in text files beside photos: by `train.py` and `evaluate` as one's own folder, COCO's results by
`evaluate --results` too. Writers make text; only readers, and `embedded`, open files. It knows no pictures, no
networks, no data sets.
"""

from captioner.formats.coco import coco_results, read_results, results_of_ids
from captioner.formats.parquet import read_parquet
from captioner.formats.sidecars import read_embedded, read_sidecar, sidecar_names, text_sidecars, xmp_sidecars
from captioner.formats.subtitles import timestamp, to_srt, to_webvtt
from captioner.formats.tables import csv_lines, json_lines, read_csv, read_json_rows

__all__ = [
    "coco_results",
    "csv_lines",
    "json_lines",
    "read_csv",
    "read_embedded",
    "read_json_rows",
    "read_parquet",
    "read_results",
    "read_sidecar",
    "results_of_ids",
    "sidecar_names",
    "text_sidecars",
    "timestamp",
    "to_srt",
    "to_webvtt",
    "xmp_sidecars",
]
