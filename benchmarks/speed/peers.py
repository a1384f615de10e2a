"""What most people run: the attention decoder of the tutorials, image by image, as a reference for benchmarks.

"Show, Attend and Tell" (Xu et al. 2015) with soft attention, gated context and one LSTM cell, the way the most used
tutorials write it: every hypothesis projects all features anew at each word, the whole context goes into the cell, and
beam search is a Python loop over one image at a time. It does what they do, no more and no less. Sizes are theirs:
2,048 channels, 512 for everything else.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.decoder import Decoder, Memory

State = tuple[Tensor, ...]
"""Each (K, ...) for K hypotheses."""


@dataclass(frozen=True)
class Sizes:
    """Of the decoder."""

    vocabulary: int = 9490
    channels: int = 2048
    hidden: int = 512


class Writer(Protocol):
    """What `caption_alone` wants of a decoder."""

    def start(self, features: Tensor) -> State:
        """Features (K, R, C) -> the first state."""

    def write(self, words: Tensor, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Words (K,) and features (K, R, C) -> logits (K, V) of the next words, and the state after these."""


@torch.inference_mode()
def caption_alone(
    decoder: Writer, features: Tensor, *, start: int, end: int, beam_size: int, max_length: int
) -> list[int]:
    """Beam search for one image, features (R, C): the best finished hypothesis, or the best one."""
    beam = beam_size
    features = features.unsqueeze(0).expand(beam, *features.shape)
    sentences = torch.full((beam, 1), start, device=features.device)
    scores = torch.zeros(beam, 1, device=features.device)
    state = decoder.start(features)
    finished: list[tuple[float, list[int]]] = []
    for length in range(max_length + 1):
        logits, state = decoder.write(sentences[:, -1], features[: len(sentences)], state)
        totals = scores + logits.float().log_softmax(1)
        if length == 0:  # all hypotheses are the same still
            best, places = totals[0].topk(beam)
        else:
            best, places = totals.flatten().topk(beam)
        parents, words = places // logits.shape[1], places % logits.shape[1]
        sentences = torch.cat([sentences[parents], words.unsqueeze(1)], 1)
        ended = words == end
        for score, sentence in zip(best[ended].tolist(), sentences[ended].tolist(), strict=True):
            finished.append((score, sentence[1:-1]))
        going = ~ended
        beam -= int(ended.sum())
        if beam == 0:
            break
        sentences, scores = sentences[going], best[going].unsqueeze(1)
        state = tuple(part[parents[going]] for part in state)
    return max(finished)[1] if finished else sentences[0, 1:].tolist()


class InTheirLoop:
    """Our decoder with additive attention as the tutorials run theirs: each hypothesis makes its keys at each word.

    What theirs do not make anew, the first state and what attention averages, is made once here, too.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.values: Tensor | None = None

    def start(self, features: Tensor) -> State:
        """As `Writer` says."""
        memory = self.decoder.read(features)
        self.values = memory.values
        return tuple(part[:, 0] for part in memory.start)

    def write(self, words: Tensor, features: Tensor, state: State) -> tuple[Tensor, State]:
        """As `Writer` says."""
        assert self.values is not None
        seen = functional.layer_norm(features, features.shape[-1:]) if self.decoder.options.normalise else features
        keys = self.decoder.key(seen).unsqueeze(1)
        alone = tuple(part.unsqueeze(1) for part in state)
        memory = Memory(alone, keys, self.values[: len(words)])
        logits, after = self.decoder.step(words.unsqueeze(1), alone, memory)
        return logits.squeeze(1), tuple(part[:, 0] for part in after)


class TutorialDecoder(nn.Module):
    """features (R, C) of one image -> words."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        hidden, channels = sizes.hidden, sizes.channels
        self.sizes = sizes
        self.encoder_attention = nn.Linear(channels, hidden)
        self.decoder_attention = nn.Linear(hidden, hidden)
        self.full_attention = nn.Linear(hidden, 1)
        self.embedding = nn.Embedding(sizes.vocabulary, hidden)
        self.dropout = nn.Dropout(0.5)
        self.cell = nn.LSTMCell(hidden + channels, hidden)
        self.start_hidden = nn.Linear(channels, hidden)
        self.start_cell = nn.Linear(channels, hidden)
        self.gate = nn.Linear(hidden, channels)
        self.output = nn.Linear(hidden, sizes.vocabulary)

    def start(self, features: Tensor) -> State:
        """Features (B, R, C) -> the first state, two (B, hidden)."""
        mean = features.mean(1)
        return self.start_hidden(mean), self.start_cell(mean)

    def step(self, embedded: Tensor, features: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Embedded words (B, hidden), features (B, R, C), the state before them ->

        logits (B, V) of the next words, attention (B, R), and the state after these words.
        """
        hidden, _ = state
        seen, asked = self.encoder_attention(features), self.decoder_attention(hidden)
        attention = self.full_attention(functional.relu(seen + asked.unsqueeze(1))).squeeze(2).softmax(1)
        context = (features * attention.unsqueeze(2)).sum(1)
        context = torch.sigmoid(self.gate(hidden)) * context
        state = self.cell(torch.cat([embedded, context], 1), state)
        return self.output(self.dropout(state[0])), attention, state

    def write(self, words: Tensor, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Words (K,) and features (K, R, C) -> logits (K, V) of the next words, and the state after these."""
        logits, _, state = self.step(self.embedding(words), features, state)
        return logits, state

    def forward(self, features: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
        """Teacher forcing: features (B, R, C), captions (B, T), lengths (B,), the longest first -> the mean loss.

        Word by word for the captions that are so long, as the tutorials do; with their doubly stochastic attention.
        """
        state = self.start(features)
        logits = features.new_zeros(len(captions), int(lengths[0]) - 1, self.sizes.vocabulary)
        attention = features.new_zeros(len(captions), int(lengths[0]) - 1, features.shape[1])
        embedded = self.embedding(captions)
        for place in range(int(lengths[0]) - 1):
            going = int((lengths - 1 > place).sum())
            state = (state[0][:going], state[1][:going])
            logits[:going, place], attention[:going, place], state = self.step(
                embedded[:going, place], features[:going], state
            )
        targets = captions[:, 1 : int(lengths[0])]
        real = torch.arange(targets.shape[1], device=lengths.device) < (lengths - 1).unsqueeze(1)
        return functional.cross_entropy(logits[real], targets[real]) + ((1 - attention.sum(1)) ** 2).mean()
