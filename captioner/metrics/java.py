"""METEOR 1.5 (Denkowski & Lavie 2014) and SPICE (Anderson et al. 2016), whose authors' programs are written in Java.

The programs come with the package pycocoevalcap and run as one child process a call, which reads everything, answers
everything and ends. Neither the package nor Java is needed for anything else: where one is missing, these two metrics
say so.
"""

import contextlib
import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from captioner.errors import OptionError
from captioner.metrics.statistics import Array, Statistics, Tokens, check, mean

# METEOR's parameters for English, tuned to human rankings: what its program takes where it is not told otherwise.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.20, 0.60, 0.75
MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])
"""What a match is worth: of the same word, stem, synonym, paraphrase."""
CHUNKS = 20
"""METEOR's column of the number of chunks: runs of matches in the same order on both sides."""


def meteor(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Statistics:
    """METEOR of one tokenised hypothesis an image against the reference it matches best.

    METEOR's program aligns the captions and counts what matched; the score of a set of images is the formula of the
    summed counts, not the mean of the images' scores. Java takes seconds to start, however few images there are. Raises
    OptionError without pycocoevalcap or Java, and ValueError and TypeError where `statistics.check` does.
    """
    check(hypotheses, references)
    java, folder = _program("METEOR")
    lines = (
        " ||| ".join(("SCORE", *map(_text, group), _text(hypothesis)))
        for hypothesis, group in zip(hypotheses, references, strict=True)
    )
    arguments = ("-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm")
    answers = _run("METEOR", [java, *arguments], folder, "".join(line + "\n" for line in lines)).splitlines()
    if len(answers) != len(hypotheses):
        raise OptionError(f"METEOR's program gave {len(answers)} answers for {len(hypotheses)} captions.")
    try:
        counts = np.array([answer.split() for answer in answers], dtype=np.float64).reshape(-1, CHUNKS + 3)
    except ValueError:
        raise OptionError(f"METEOR's program did not answer with counts: {answers[0]!r}.") from None
    # A caption matched as a whole, in one chunk, is not fragmented at all: METEOR counts no chunk then.
    whole = (counts[:, CHUNKS] == 1) & (counts[:, CHUNKS + 1 :] == counts[:, :2]).all(axis=1)
    counts[whole, CHUNKS] = 0.0
    return Statistics("METEOR", counts, _meteor)


def _meteor(sums: Array) -> Array:
    """The score of METEOR's 23 counts (the paper's section 2): (..., 23) -> (...).

    In pairs, hypothesis first and reference second: words; function words; for each of the four matchers, matched
    content words and matched function words. Then chunks, and the pair of all matched words.
    """
    content, function = sums[..., 0:2] - sums[..., 2:4], sums[..., 2:4]
    matches = sums[..., 4:CHUNKS].reshape(*sums.shape[:-1], len(MATCHERS), 2, 2)  # by matcher, kind of word and side
    matched = (MATCHERS[:, None] * (DELTA * matches[..., 0, :] + (1 - DELTA) * matches[..., 1, :])).sum(axis=-2)
    share = _divide(matched, DELTA * content + (1 - DELTA) * function)
    precision, recall = share[..., 0], share[..., 1]
    f_mean = _divide(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    penalty = GAMMA * _divide(sums[..., CHUNKS], sums[..., CHUNKS + 1 :].mean(axis=-1)) ** BETA
    return 100.0 * f_mean * (1 - penalty)


def spice(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Statistics:
    """SPICE of one tokenised hypothesis an image against its tokenised references: the mean of the images' F-scores.

    Its first use downloads a parser of 400 MB into pycocoevalcap's folder. Raises OptionError where that fails and
    without pycocoevalcap or Java, and ValueError and TypeError where `statistics.check` does.
    """
    check(hypotheses, references)
    java, folder = _program("SPICE")
    parser = importlib.import_module("pycocoevalcap.spice.get_stanford_models")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it tells of its progress, and standard output is for data
            parser.get_stanford_models()
    except (OSError, zipfile.BadZipFile) as error:
        raise OptionError(
            f"SPICE needs a parser that could not be downloaded ({error}): try again with a connection to "
            "nlp.stanford.edu, or leave SPICE out."
        ) from None
    captions = [
        {"image_id": number, "test": _text(hypothesis), "refs": [_text(reference) for reference in group]}
        for number, (hypothesis, group) in enumerate(zip(hypotheses, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as temporary:
        asked, answered = Path(temporary, "captions.json"), Path(temporary, "scores.json")
        asked.write_text(json.dumps(captions), encoding="utf-8")
        arguments = ("-Xmx8G", "-jar", "spice-1.0.jar", str(asked), "-out", str(answered), "-silent")
        _run("SPICE", [java, *arguments], folder)
        answers = json.loads(answered.read_text(encoding="utf-8"))
    scores = {int(answer["image_id"]): float(answer["scores"]["All"]["f"]) for answer in answers}
    return mean("SPICE", np.array([scores[number] for number in range(len(hypotheses))]))


def _program(metric: str) -> tuple[str, Path]:
    """Where `java` is, and the folder of the metric's program."""
    java = shutil.which("java")
    try:
        package = importlib.util.find_spec(f"pycocoevalcap.{metric.lower()}")
    except ModuleNotFoundError:
        package = None
    if package is None or not package.submodule_search_locations:
        raise OptionError(
            f"{metric} needs the package pycocoevalcap: pip install pycocoevalcap, or leave {metric} out."
        )
    if java is None:
        raise OptionError(f"{metric} needs Java, and there is no java on the PATH: install one, or leave {metric} out.")
    return java, Path(package.submodule_search_locations[0])


def _run(metric: str, command: Sequence[str], folder: Path, text: str = "") -> str:
    """What the program prints when it is given `text`; raises OptionError where it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, input=text, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError as error:
        raise OptionError(f"{metric}'s program cannot be run by {command[0]}: {error.strerror or error}.") from None
    if done.returncode != 0:
        lines = (done.stderr + done.stdout).splitlines() or ["no message"]
        reason = next((line for line in lines if "Error" in line or "Exception" in line), lines[-1])
        raise OptionError(f"{metric}'s program failed with exit status {done.returncode}: {reason.strip()}")
    return done.stdout


def _text(tokens: Tokens) -> str:
    """The caption in one line, without the three bars that divide captions in METEOR's."""
    return " ".join(" ".join(tokens).replace("|||", "").split())


def _divide(numerator: Array, denominator: Array) -> Array:
    """Their quotient; 0 where nothing is divided by nothing, as for an empty caption."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
