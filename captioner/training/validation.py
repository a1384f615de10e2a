"""Captions of the validation pictures and their scores; and the search that does best on them."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from captioner.captions import Caption
from captioner.checkpoint import ModelFile
from captioner.datasets.dataset import CaptionedImage
from captioner.evaluation import Evaluation, evaluate
from captioner.generation import caption_features
from captioner.model import CaptionModel
from captioner.network import network_of
from captioner.options import SearchOptions
from captioner.sureness import choose_threshold
from captioner.telling import Telling
from captioner.text import Vocabulary
from captioner.training.features import BATCH, encoded
from captioner.training.processes import ALONE, Processes
from captioner.training.step import finite


def validate(
    model: CaptionModel,
    images: Sequence[CaptionedImage],
    vocabulary: Vocabulary,
    search: SearchOptions,
    *,
    features: Tensor | None,
    precision: str,
    telling: Telling,
    processes: Processes = ALONE,
) -> tuple[Evaluation, list[str]]:
    """The scores of the images' captions, and the captions. `features` (N, R, C) where the encoder is frozen.

    Each of several processes captions its share, once, and has all of them in the end.
    """
    texts: list[str] = []
    mine = processes.share(images)
    device = next(model.parameters()).device
    model.eval()
    if features is None:
        parts: Iterable[Tensor] = encoded(model, mine, precision=precision)
    else:
        parts = torch.split(features[processes.rank :: processes.count], BATCH) if mine else ()
    with telling.bar(len(mine), "picture", "validating") as bar:
        for batch in parts:
            with finite():
                captions = caption_features(network_of(model), batch.to(device).float(), vocabulary, search)
            texts += [caption.text for caption in captions]
            bar.update(len(batch))
    texts = processes.gather(texts)
    return evaluate(images, texts), texts


def choose_search(
    file: ModelFile,
    images: Sequence[CaptionedImage],
    fixed: Mapping[str, Any],
    telling: Telling,
) -> tuple[ModelFile, bool]:
    """Tries searches on the images, all with the same `fixed` fields; the file with the best one and its scores, and
    whether its captions are sound: not those of a degenerate model.

    The best has the greatest sum of BLEU-4 and CIDEr-D: by CIDEr-D alone, a length penalty bought half a point of it
    for more than half a point of BLEU-4 (measured: see docs/experiments.md). Searched in float32, so
    that every machine chooses alike: bfloat16 moved BLEU-4 by 0.1 to 0.4 on Flickr8k's 1,000 dev pictures (measured).
    """
    telling.say("Choosing the search on the validation split.")
    found: dict[SearchOptions, list[Caption]] = {
        replace(option, **fixed): [] for option in _searches(file.model, file.search)
    }
    with telling.bar(len(images), "picture", "searching") as bar:
        for features in encoded(file.model, images, precision="float32"):
            for option, captions in found.items():
                captions += caption_features(network_of(file.model), features, file.vocabulary, option)
            bar.update(len(features))
    results = {option: evaluate(images, [caption.text for caption in captions]) for option, captions in found.items()}
    for option, evaluation in results.items():
        telling.say(
            f"  {_describe(option)}: val BLEU-1 {evaluation.scores['BLEU-1']:.2f}, "
            f"BLEU-4 {evaluation.scores['BLEU-4']:.2f}, CIDEr-D {evaluation.scores['CIDEr-D']:.2f} "
            f"({evaluation.references_each:.3g} references)"
        )

    def merit(option: SearchOptions) -> tuple[float, ...]:
        evaluation = results[option]
        return (sum(evaluation.rank[:2]), *evaluation.rank)

    best = max(results, key=merit)
    telling.say(f"Chosen: {_describe(best)}.")
    sureness = choose_threshold([caption.word_probability for caption in found[best]], results[best].image_ciders)
    telling.say(f"The model is {sureness.describe()}.")
    scores = {"val": results[best].summary(), "sureness": asdict(sureness)}
    if results[best].complaint:
        telling.say(results[best].complaint)
    return replace(file, search=best, provenance={**file.provenance, **scores}), not results[best].complaint


def _searches(model: CaptionModel, search: SearchOptions) -> Iterator[SearchOptions]:
    """The beam sizes, length penalties and shares of the right-to-left decoder that are tried."""
    yield replace(search, beam_size=1, length_penalty=0.0, rerank=0.0)
    for beam, penalty in itertools.product((3, 5), (0.0, 0.5, 1.0)):
        yield replace(search, beam_size=beam, length_penalty=penalty, rerank=0.0)
    if model.reverse:  # the longer the list, the more there is to choose from
        for beam, penalty, share in itertools.product((5, 10), (0.0, 0.5), (0.25, 0.5, 0.75)):
            yield replace(search, beam_size=beam, length_penalty=penalty, rerank=share)


def _describe(search: SearchOptions) -> str:
    second = f", right-to-left share {search.rerank}" if search.rerank else ""
    return f"beam {search.beam_size}, length penalty {search.length_penalty}{second}"
