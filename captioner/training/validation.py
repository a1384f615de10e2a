"""Captions of the validation pictures and their scores; and the search that does best on them."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from captioner.checkpoint import ModelFile
from captioner.datasets.dataset import CaptionedImage
from captioner.evaluation import Evaluation, evaluate
from captioner.generation import caption_features
from captioner.model import CaptionModel
from captioner.network import network_of
from captioner.options import SearchOptions
from captioner.text import Vocabulary

_BATCH = 64


def validate(
    model: CaptionModel,
    images: Sequence[CaptionedImage],
    vocabulary: Vocabulary,
    search: SearchOptions,
    *,
    features: Tensor | None,
    precision: str,
) -> tuple[Evaluation, list[str]]:
    """The scores of the images' captions, and the captions. `features` (N, R, C) where the encoder is frozen."""
    texts: list[str] = []
    device = next(model.parameters()).device
    model.eval()
    with tqdm(total=len(images), desc="validating", unit="picture", leave=False, disable=None) as bar:
        for batch in _encode(model, images, precision) if features is None else torch.split(features, _BATCH):
            captions = caption_features(network_of(model), batch.to(device).float(), vocabulary, search)
            texts += [caption.text for caption in captions]
            bar.update(len(batch))
    return evaluate(images, texts), texts


def _encode(model: CaptionModel, images: Sequence[CaptionedImage], precision: str) -> Iterator[Tensor]:
    """The features of the images, batch by batch."""
    return model.vision.encode_all([image.source for image in images], batch=_BATCH, precision=precision)


def choose_search(
    file: ModelFile,
    images: Sequence[CaptionedImage],
    fixed: Mapping[str, Any],
    report: Callable[[str], None],
) -> ModelFile:
    """Tries searches on the images, all with the same `fixed` fields; the file with the best one and its scores.

    The best has the greatest sum of BLEU-4 and CIDEr-D: by CIDEr-D alone, a length penalty bought half a point of it
    for more than half a point of BLEU-4 (measured: see docs/experiments.md). Searched in float32, so
    that every machine chooses alike: bfloat16 moved BLEU-4 by 0.1 to 0.4 on Flickr8k's 1,000 dev pictures (measured).
    """
    report("Choosing the search on the validation split.")
    file.model.eval()
    texts: dict[SearchOptions, list[str]] = {
        replace(option, **fixed): [] for option in _searches(file.model, file.search)
    }
    for features in _encode(file.model, images, "float32"):
        for option, found in texts.items():
            captions = caption_features(network_of(file.model), features, file.vocabulary, option)
            found += [caption.text for caption in captions]
    results = {option: evaluate(images, found) for option, found in texts.items()}
    for option, evaluation in results.items():
        report(
            f"  {_describe(option)}: val BLEU-1 {evaluation.scores['BLEU-1']:.2f}, "
            f"BLEU-4 {evaluation.scores['BLEU-4']:.2f}, CIDEr-D {evaluation.scores['CIDEr-D']:.2f} "
            f"({evaluation.references_each:g} references)"
        )

    def merit(option: SearchOptions) -> tuple[float, ...]:
        evaluation = results[option]
        return (sum(evaluation.rank[:2]), *evaluation.rank)

    best = max(results, key=merit)
    report(f"Chosen: {_describe(best)}.")
    return replace(file, search=best, provenance={**file.provenance, "val": results[best].summary()})


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
