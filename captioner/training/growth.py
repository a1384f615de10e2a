"""New words for a trained model: its vocabulary grows by what the new captions say, and keeps all that it had.

A model that goes on to learn birds has never written "kingfisher". Its embeddings get a row for each new word, and what
it knew stays as it was.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captioner.checkpoint import ModelFile
from captioner.decoder import Decoder
from captioner.model import CaptionModel
from captioner.text import SPECIAL_WORDS, Vocabulary

SHOWN = 8


@dataclass(frozen=True)
class Coverage:
    """What of some captions a vocabulary can write."""

    known: int
    """Words of the captions, each as often as it is used, that the vocabulary had."""
    total: int
    new: tuple[str, ...]
    """Words that were added, the most used first."""
    left_out: tuple[str, ...]
    """Words that are used too seldom to be added."""

    def describe(self) -> str:
        """One sentence: the share of the words that could be written already, and which are new."""
        share = f"The model can write {100 * self.known / max(1, self.total):.1f}% of the captions' words already"
        new = f"{_some(self.new)} {'is' if len(self.new) == 1 else 'are'} new" if self.new else "none is new"
        left = f"; used too seldom to be learnt (--min-count): {_some(self.left_out)}" if self.left_out else ""
        return f"{share}; {new}{left}."


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - SHOWN:,} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def grow_vocabulary(
    vocabulary: Vocabulary, captions: Iterable[Sequence[str]], *, min_count: int
) -> tuple[Vocabulary, Coverage]:
    """The vocabulary with the words behind it that the tokenised captions use `min_count` times or more."""
    had = set(vocabulary.words)
    counts = Counter(word for caption in captions for word in caption if word not in SPECIAL_WORDS)
    unknown = sorted((word for word in counts if word not in had), key=lambda word: (-counts[word], word))
    new = tuple(word for word in unknown if counts[word] >= min_count)
    left_out = tuple(word for word in unknown if counts[word] < min_count)
    known = sum(count for word, count in counts.items() if word in had)
    coverage = Coverage(known, sum(counts.values()), new, left_out)
    return Vocabulary((*vocabulary.words, *new)), coverage


@torch.no_grad()
def grow_model(model: CaptionModel, vocabulary_size: int) -> CaptionModel:
    """A model with the same weights and room for more words, on the CPU.

    A new word starts near the mean of the words there are, as improbable as the rarest tenth of them: captions stay
    what they were until it is learnt (the mean: Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language
    Models").
    """
    grown = CaptionModel(replace(model.options, vocabulary_size=vocabulary_size))
    grown.encoder.load_state_dict(model.encoder.state_dict())
    grown.encoder.trusts_statistics = model.encoder.trusts_statistics
    for old, new in ((model.decoder, grown.decoder), (model.reverse, grown.reverse)):
        if old is not None and new is not None:
            _grow_decoder(old, new)
    return grown


def in_order(file: ModelFile, vocabulary: Vocabulary) -> ModelFile:
    """The same model with its words in the order of a vocabulary that has the same ones.

    A model that grew has the new words behind its old ones, one that was trained on all at once the frequent ones
    first: as teacher and student they must mean the same word by a number.
    """
    if file.vocabulary.words == vocabulary.words:
        return file
    places = {word: place for place, word in enumerate(file.vocabulary.words)}
    order = torch.tensor([places[word] for word in vocabulary.words])
    for decoder in (file.model.decoder, file.model.reverse):
        if decoder is not None:
            state = decoder.state_dict()
            rows = {name: state[name][order] for name in ("embedding.weight", "output.weight", "output.bias")}
            decoder.load_state_dict({**state, **rows})
    return replace(file, vocabulary=vocabulary)


def _grow_decoder(old: Decoder, new: Decoder) -> None:
    state = old.state_dict()
    words = new.embedding.num_embeddings - old.embedding.num_embeddings
    state["embedding.weight"] = _with_rows(state["embedding.weight"], words)
    tied = old.options.tied
    state["output.weight"] = state["embedding.weight"] if tied else _with_rows(state["output.weight"], words)
    bias = state["output.bias"]
    rare = bias[len(SPECIAL_WORDS) :].float().quantile(0.1).to(bias.dtype)
    state["output.bias"] = torch.cat([bias, rare.expand(words)])
    new.load_state_dict(state)


def _with_rows(weight: Tensor, count: int) -> Tensor:
    """A matrix with `count` rows more: the mean of those of ordinary words, and a tenth of their spread around it."""
    words = weight[len(SPECIAL_WORDS) :]
    noise = torch.randn(count, weight.shape[1], dtype=weight.dtype) * words.std(0) / 10
    return torch.cat([weight, words.mean(0) + noise])


def usual_min_count(captions: int) -> int:
    """The least uses of a word worth a row, where nobody says: 1 up to 500 training captions, then 2, 3 from 5,000, 5
    from 20,000. A small set has few words more than once: of 300 everyday photos' 1,340 words, 5 loses 78%, 2 loses 46%
    (means of ten draws).
    """
    return 1 if captions <= 500 else 2 if captions < 5_000 else 3 if captions < 20_000 else 5
