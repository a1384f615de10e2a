"""The recurrent network that writes the words, with or without attention to the features.

It knows ids, not words, and features, not images. `step` writes one more word for many hypotheses; `forward` scores
whole captions at once (teacher forcing). Both use the same parameters and agree; they differ in what they can do in
one go. What depends on the image alone is computed once, by `read`, and is shared by all hypotheses (or reference
captions) of that image: that is the K axis.

Attention follows the recurrent step (Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine
Translation", section 3): the new state asks, the context joins it in the output layer. So the recurrence does not wait
for attention, and in training all words of all captions attend in a single matrix product.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.options import DecoderOptions
from captioner.text import END, PAD, START

State = tuple[Tensor, ...]
"""The recurrent state: one tensor (B, K, layers, hidden) for rnn and gru, two (hidden, cell) for lstm."""


_COMPARED = 2**22
"""Most numbers that additive attention makes at once, unless one query for each image makes more: 16 MB. All queries of
a batch of captions together make a gigabyte, which took ten times as long on a CPU (measured)."""

_ROWS = 8192
"""Most words scored together, where an image has many sequences: the logits are 330 MB at 10,000 words."""


class Memory(NamedTuple):
    """What the decoder computed once from each image."""

    start: State  # the recurrent state before the first word, each (B, 1, layers, hidden)
    keys: Tensor | None  # what attention compares with: (B, heads, R, hidden / heads), in additive attention one head
    values: Tensor | None  # what attention averages: the same shape


class Decoder(nn.Module):
    """features (B, R, C) and words so far -> the next word's logits over the vocabulary."""

    def __init__(self, options: DecoderOptions, *, channels: int, vocabulary_size: int) -> None:
        """`channels` is C of the features; `vocabulary_size` counts the special words too."""
        super().__init__()
        self.options = options
        hidden, width = options.hidden_size, options.embedding_size
        recurrent = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[options.cell]
        self.states = 2 if options.cell == "lstm" else 1

        self.embedding = nn.Embedding(vocabulary_size, width)
        self.start_state = nn.Linear(channels, self.states * options.layers * hidden)
        self.cell = recurrent(
            width,
            hidden,
            options.layers,
            batch_first=True,
            dropout=options.dropout if options.layers > 1 else 0.0,
        )
        if options.attention != "none":
            self.key = nn.Linear(channels, hidden)
            self.value = nn.Linear(channels, hidden)
            self.query = nn.Linear(hidden, hidden, bias=False)
        if options.attention == "additive":
            self.score = nn.Linear(hidden, 1, bias=False)
        self.combine = nn.Linear(hidden if options.attention == "none" else 2 * hidden, width)
        self.output = nn.Linear(width, vocabulary_size)
        self.dropout = nn.Dropout(options.dropout)
        self.word_inputs: Tensor | None
        self.register_buffer("word_inputs", None, persistent=False)
        """What the recurrence adds for each word, (V, gates * hidden), once `fuse` has computed it."""

        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        nn.init.zeros_(self.output.bias)
        if options.tied:  # Press and Wolf 2017, "Using the Output Embedding to Improve Language Models"
            self.output.weight = self.embedding.weight

    def read(self, features: Tensor) -> Memory:
        """Features (B, R, C) -> what every hypothesis of each image shares; called once per image."""
        batch = features.shape[0]
        if self.options.normalise:
            features = functional.layer_norm(features, features.shape[-1:])
        start = torch.tanh(self.start_state(features.mean(1)))
        start = start.view(batch, 1, self.states, self.options.layers, self.options.hidden_size)
        if self.options.attention == "none":
            return Memory(start.unbind(2), None, None)
        # Whole channels are dropped, and from what is seen, not from where to look: with noise in the keys attention
        # stays close to even (measured: see docs/experiments.md).
        seen = features * self.dropout(features.new_ones(batch, 1, features.shape[2]))
        return Memory(start.unbind(2), self._heads(self.key(features)), self._heads(self.value(seen)))

    def start(self, memory: Memory) -> State:
        """The recurrent state before the first word: one hypothesis an image, tensors (B, 1, layers, hidden)."""
        return memory.start

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        """Tokens (B, K), state (B, K, ...) -> logits (B, K, V) of the next word, and the state after `tokens`."""
        outputs, state = self._advance(tokens, state)
        outputs, _ = self._look(outputs, memory)
        return self._write(outputs), state

    def step_and_look(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        """`step`, and the mean over heads of its attention (B, K, R), None without: what is exported as a graph."""
        outputs, state = self._advance(tokens, state)
        outputs, attention = self._look(outputs, memory)
        return self._write(outputs), state, None if attention is None else attention.mean(1)

    def forward(self, features: Tensor, tokens: Tensor, real: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Teacher forcing: features (B, R, C), tokens (B, K, T) -> logits (B, K, T, V), attention (B, K, T, R).

        Position t of the logits is the prediction after reading tokens 0..t. Attention weights are the mean over
        heads and sum to 1 over the R features; without attention they are None.

        `real` (B, K, T), a caption's real positions before its others, asks for those logits alone: (M, V), in the
        order of `tokens[real]`. Half of a batch of captions is padding, and the vocabulary's layer is the widest.
        """
        return self.follow(tokens, self.read(features), real)

    def follow(self, tokens: Tensor, memory: Memory, real: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """`forward` from what `read` gave."""
        captions = tokens.shape[1]
        state = tuple(part.expand(-1, captions, -1, -1) for part in self.start(memory))
        outputs, _ = self._run(tokens, state)
        outputs, attention = self._look(outputs.flatten(1, 2), memory)
        outputs = outputs.view(*tokens.shape, outputs.shape[-1])
        if attention is not None:
            attention = attention.mean(1).view(*tokens.shape, attention.shape[-1])
        return self._write(outputs if real is None else outputs[real]), attention

    @torch.no_grad()
    def fuse(self) -> None:
        """Multiplies the embeddings with the recurrence's input weights, once for all words, for `step` to look up.

        It takes as much memory as four embeddings (LSTM, equal sizes: 80 MB for 10,000 words). For inference: what was
        fused does not follow the parameters when they change.
        """
        self.eval()
        weight, _, bias, _ = self.cell.all_weights[0]
        self.word_inputs = functional.linear(self.embedding.weight, weight, bias)

    def _advance(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The recurrence over one token each (B, K): outputs (B, K, hidden) and the state after it.

        What `_run` computes, cell by cell: for a single word, torch's recurrent layers spend more time on rearranging
        their weights than on multiplying with them (measured on a CPU).
        """
        outputs = None if self.word_inputs is not None else self.dropout(self.embedding(tokens)).flatten(0, 1)
        layers: list[State] = []
        for before, weights in zip(
            zip(*(part.flatten(0, 1).unbind(1) for part in state), strict=True), self.cell.all_weights, strict=True
        ):
            input_weight, hidden_weight, input_bias, hidden_bias = weights
            if outputs is None:
                assert self.word_inputs is not None
                inputs = self.word_inputs[tokens.flatten()]
            else:
                if layers:
                    outputs = functional.dropout(outputs, self.options.dropout, self.training)
                inputs = functional.linear(outputs, input_weight, input_bias)
            layers.append(_CELLS[self.options.cell](inputs, before, hidden_weight, hidden_bias))
            outputs = layers[-1][0]
        assert outputs is not None
        stacked = (torch.stack(part, 1) for part in zip(*layers, strict=True))
        return outputs.view(*tokens.shape, -1), tuple(part.view(*tokens.shape, *part.shape[1:]) for part in stacked)

    def _run(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The recurrence over tokens (B, K, T): outputs (B, K, T, hidden) and the state after the last token.

        Padding is run over too: on a CPU, packed sequences leave the LSTM's fused kernel and take longer (measured).
        """
        batch, captions, _ = tokens.shape
        inputs = self.dropout(self.embedding(tokens)).flatten(0, 1)
        # torch's cells want (layers, B * K, hidden); one layer needs no copy for it
        before = tuple(part.flatten(0, 1).transpose(0, 1).contiguous().to(inputs.dtype) for part in state)
        start = before if self.states == 2 else before[0]
        outputs, after = self.cell(inputs, start)
        after = after if self.states == 2 else (after,)
        return (
            outputs.unflatten(0, (batch, captions)),
            tuple(part.transpose(0, 1).unflatten(0, (batch, captions)) for part in after),
        )

    def _heads(self, features: Tensor) -> Tensor:
        """(B, N, hidden) -> (B, heads, N, hidden / heads), one head in additive attention."""
        if self.options.attention == "additive":
            return features.unsqueeze(1)
        batch, count, hidden = features.shape
        heads = self.options.heads
        return features.view(batch, count, heads, hidden // heads).transpose(1, 2).contiguous()

    def _look(self, outputs: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Recurrent outputs (B, Q, hidden) -> the same with contexts behind them, and attention (B, heads, Q, R)."""
        if memory.keys is None or memory.values is None:
            return outputs, None
        queries = self._heads(self.query(outputs))
        if self.options.attention == "additive":
            weights = self._compare(queries, memory.keys)
        else:  # Vaswani et al. 2017, equation 1, with heads as in section 3.2.2
            scale = queries.shape[-1] ** -0.5
            weights = (queries * scale @ memory.keys.transpose(2, 3)).softmax(-1)
        context = (weights @ memory.values).transpose(1, 2).flatten(2)
        return torch.cat([outputs, context], -1), weights

    def _compare(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Queries (B, 1, Q, hidden), keys (B, 1, R, hidden) -> weights (B, 1, Q, R).

        Bahdanau et al. 2015, appendix A.1.2: score = v' tanh(W query + U key).
        """
        kind = keys.dtype
        batch, _, features, hidden = keys.shape
        few = 0 if torch.compiler.is_exporting() else max(1, _COMPARED // max(1, batch * features * hidden))
        weight = self.score.weight
        if kind == torch.bfloat16 and keys.device.type == "cpu" and not torch.is_grad_enabled():
            # A CPU's tanh takes twice as long in bfloat16 (measured). In training float32 would take twice the memory.
            queries, keys, weight = queries.float(), keys.float(), weight.float()
        scores = [
            functional.linear((part.unsqueeze(3) + keys.unsqueeze(2)).tanh_(), weight).squeeze(-1)
            # An exported step has few queries, and a graph knows no loop whose length depends on them.
            for part in ([queries] if torch.compiler.is_exporting() else torch.split(queries, few, 2))
        ]
        return torch.cat(scores, 2).softmax(-1).to(kind)

    def _write(self, outputs: Tensor) -> Tensor:
        """What `_look` gives, (..., 2 * hidden), or hidden without attention -> logits (..., V)."""
        combined = torch.tanh(self.combine(self.dropout(outputs)))
        return self.output(self.dropout(combined))


def stack_captions(captions: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """Ids of the captions of B images -> tokens (B, K, T), int64, filled up with <pad>."""
    most = max(map(len, captions))
    longest = max(len(ids) for group in captions for ids in group)
    tokens = torch.full((len(captions), most, longest), PAD)
    for row, group in enumerate(captions):
        for column, ids in enumerate(group):
            tokens[row, column, : len(ids)] = torch.tensor(ids)
    return tokens


def sequence_log_probabilities(
    decoder: Decoder, memory: Memory, sequences: Sequence[Sequence[Sequence[int]]]
) -> Tensor:
    """What `read` gave for B images, and each one's token sequences -> their log-probabilities (B, K).

    A sequence has neither start nor end; its natural log-probability, in float32, is the sum over its tokens and its
    end, by the decoder's own softmax over all tokens, as in search. K is the most sequences of an image; places without
    one hold 0. A decoder that reads from right to left wants its sequences reversed. Gradients flow.
    """
    tokens = stack_captions([[[START, *sequence, END] for sequence in group] for group in sequences])
    tokens = tokens.to(memory.start[0].device)
    together = max(1, _ROWS // (tokens.shape[0] * tokens.shape[2]))
    parts = []
    for part in torch.split(tokens, together, dim=1):
        targets = part[..., 1:]
        real = targets != PAD
        logits, _ = decoder.follow(part[..., :-1], memory, real)
        chosen = logits.log_softmax(-1, dtype=torch.float32).gather(-1, targets[real].unsqueeze(-1)).squeeze(-1)
        parts.append(chosen.new_zeros(targets.shape).masked_scatter(real, chosen).sum(-1))
    return torch.cat(parts, 1)


def _rnn(inputs: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    """Elman 1990: inputs (N, hidden), with their bias, and state -> the state after them."""
    return (torch.tanh(inputs + functional.linear(state[0], weight, bias)),)


def _gru(inputs: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    """Cho et al. 2014, with torch's place for the second bias: inputs (N, 3 * hidden) and state -> the state after."""
    (hidden,) = state
    read, update, new = inputs.chunk(3, 1)
    hidden_read, hidden_update, hidden_new = functional.linear(hidden, weight, bias).chunk(3, 1)
    update = torch.sigmoid(update + hidden_update)
    new = torch.tanh(new + torch.sigmoid(read + hidden_read) * hidden_new)
    return (new + update * (hidden - new),)


def _lstm(inputs: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    """Hochreiter and Schmidhuber 1997, Gers et al. 2000: inputs (N, 4 * hidden) and state -> the state after."""
    hidden, cell = state
    write, keep, new, show = (inputs + functional.linear(hidden, weight, bias)).chunk(4, 1)
    cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(new)
    return torch.sigmoid(show) * torch.tanh(cell), cell


_CELLS = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}
