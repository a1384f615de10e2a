"""Captions as files, each form's reader beside its writer: `tables` (csv, JSON lines), `coco` (COCO's results),
`sidecars` (files to lie beside the photos), `embedded` (in the photos) and `subtitles`; `rows` is what readers share.

Promises: every form takes every name and caption, and what it holds is read back exactly, but for white space around
it: csv and JSON lines by `train.py` and `evaluate` as one's own folder, COCO's results by `evaluate --results`. Writers
make text; only readers, and `embedded`, open files. It knows no pictures, no networks and no data sets.
"""

from captioner.formats.coco import coco_results, read_results, results_of_ids
from captioner.formats.sidecars import text_sidecars, xmp_sidecars
from captioner.formats.subtitles import timestamp, to_srt, to_webvtt
from captioner.formats.tables import csv_lines, json_lines, read_csv, read_jsonl

__all__ = [
    "coco_results",
    "csv_lines",
    "json_lines",
    "read_csv",
    "read_jsonl",
    "read_results",
    "results_of_ids",
    "text_sidecars",
    "timestamp",
    "to_srt",
    "to_webvtt",
    "xmp_sidecars",
]
