"""Words and their ids."""

from collections import Counter
from collections.abc import Iterable, Sequence

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_WORDS = ("<pad>", "<start>", "<end>", "<unk>")


class Vocabulary:
    """The words a model can write, each with its id (its position).

    The first four are `<pad>`, `<start>`, `<end>` and `<unk>`. A model file carries its vocabulary; it is built once,
    from the training captions, and never rebuilt.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """Takes every word in id order, the four special ones first; raises ValueError otherwise."""
        if tuple(words[:4]) != SPECIAL_WORDS or len(set(words)) != len(words):
            raise ValueError(f"A vocabulary starts with {' '.join(SPECIAL_WORDS)} and holds each word once.")
        self.words = tuple(words)
        self._ids = {word: number for number, word in enumerate(words)}

    @classmethod
    def build(cls, captions: Iterable[Iterable[str]], *, min_count: int) -> "Vocabulary":
        """The vocabulary of tokenised captions: words used at least `min_count` times, the most used first."""
        counts = Counter(word for caption in captions for word in caption)
        kept = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        return cls((*SPECIAL_WORDS, *(word for word in kept if word not in SPECIAL_WORDS)))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Iterable[str]) -> list[int]:
        """Ids of words; a word outside the vocabulary becomes `<unk>`."""
        return [self._ids.get(word, UNKNOWN) for word in words]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words of ids."""
        return [self.words[number] for number in ids]
