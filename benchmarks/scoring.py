"""How fast are captions scored? `python -m captioner evaluate` against pycocoevalcap, in one run, as a ratio.

    python -m benchmarks.scoring captions_val2017.json [--rounds 5] [--copies 1]

Both sides are whole processes, from the annotation file and a results file to printed scores: interpreter and imports,
tokens (pycocoevalcap: Java), BLEU-1 to BLEU-4, CIDEr-D and ROUGE-L; ours also draws 1,000 resamples for its intervals.
The results are one person's captions of other images. `--copies 20` makes 100,000 images of val2017's 5,000, each copy
with a word of its own in every caption, to see how memory grows; pycocoevalcap is then left out unless `--both`.
Needs pycocoevalcap and Java for the comparison.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THEIRS = """
import json, sys
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
references, results = {}, {}
for one in json.load(open(sys.argv[1]))["annotations"]:
    references.setdefault(one["image_id"], []).append(one)
for one in json.load(open(sys.argv[2])):
    results[one["image_id"]] = [one]
results = {key: results[key] for key in references}
references, results = PTBTokenizer().tokenize(references), PTBTokenizer().tokenize(results)
for metric in (Bleu(4), Cider(), Rouge()):
    print(metric.method(), metric.compute_score(references, results)[0])
"""


def write_corpus(annotations: Path, folder: Path, copies: int) -> tuple[Path, Path]:
    """The annotation file and a results file for it; copies of an image are images of their own."""
    content = json.loads(annotations.read_text(encoding="utf-8"))
    images, captions = [], []
    for copy in range(copies):
        word = f" thing{copy}" if copies > 1 else ""
        images += [
            {"id": one["id"] + copy * 10**6, "file_name": f"{copy}/{one['file_name']}"} for one in content["images"]
        ]
        captions += [
            {"image_id": one["image_id"] + copy * 10**6, "caption": one["caption"] + word}
            for one in content["annotations"]
        ]
    first = {one["image_id"]: one["caption"] for one in captions}
    texts = list(first.values())
    random.Random(1).shuffle(texts)
    results = [{"image_id": image, "caption": text} for image, text in zip(first, texts, strict=True)]
    (folder / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": captions}))
    (folder / "results.json").write_text(json.dumps(results))
    print(f"{len(images):,} images, {len(captions):,} references, {len(results):,} captions; {os.cpu_count()} cores")
    return folder / "captions_val2017.json", folder / "results.json"


def measure(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak memory in MB and standard output of a process."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command[:4]} failed"
    return time.perf_counter() - started, usage.ru_maxrss / 1024, output


def main() -> None:
    """Prints seconds, memory and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--both", action="store_true", help="pycocoevalcap too, however many copies")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [str(file) for file in write_corpus(chosen.annotations, Path(folder), chosen.copies)]
        commands = {"captioner": [sys.executable, "-m", "captioner", "evaluate", files[0], "--results", files[1]]}
        if chosen.copies == 1 or chosen.both:
            commands["pycocoevalcap"] = [sys.executable, "-c", THEIRS, *files]
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(chosen.rounds):  # by turns, so that a noisy minute meets both
            for name, command in commands.items():
                taken, memory, output = measure(command)
                seconds[name].append(taken)
                print(f"{name:14} {taken:6.2f} s  {memory:7.0f} MB", flush=True)
        print(output if "pycocoevalcap" not in commands else "")
    best = {name: min(values) for name, values in seconds.items()}
    print("fastest: " + ", ".join(f"{name} {value:.2f} s" for name, value in best.items()))
    if len(best) > 1:
        ratio = statistics.median(theirs / ours for ours, theirs in zip(*seconds.values(), strict=True))
        print(f"ratio: {best['pycocoevalcap'] / best['captioner']:.2f} (round by round, median {ratio:.2f})")


if __name__ == "__main__":
    main()
