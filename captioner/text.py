"""Captions as text: tokens from a sentence, ids from tokens, a readable sentence from tokens.

Training, evaluation and serving all come through here, so a word is the same word everywhere. This module knows no
torch and no nltk.

The tokens follow the COCO evaluation protocol (Chen et al. 2015, "Microsoft COCO Captions", section 3): Penn-Treebank
tokens in lower case with punctuation dropped.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

TOKENISERS = ("ptb-1",)
"""Every version of the rules in `tokenise` so far, the present one last; model files carry theirs."""
TOKENISER = TOKENISERS[-1]

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_WORDS = ("<pad>", "<start>", "<end>", "<unk>")

_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "..."})
_SPLIT_WORDS = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
    "'tis": ("'t", "is"),
    "'twas": ("'t", "was"),
}
_CLITIC = re.compile(r"(.+?)(n't|'s|'m|'d|'ll|'re|'ve)$")
_ABBREVIATIONS = frozenset(
    {"mr.", "mrs.", "ms.", "dr.", "st.", "jr.", "sr.", "vs.", "etc.", "no.", "mt.", "ft.", "co."}
)
_TOKEN = re.compile(
    r"""
      '(?:tis|twas)\b
    | \d+(?:[.,:/]\d+)+                     # 1,000   3.5   10:30   1/2
    | (?:[^\W\d_]\.){2,}                    # u.s.  p.m.
    | [^\W_]+(?:['./&_-]+[^\W_]+)*(?:'(?=\s|$))?\.?   # words: t-shirt, don't, and/or, at&t
    | [^\w\s]                               # anything else stands alone
    """,
    re.VERBOSE,
)
_WORD = re.compile(r"[^\W_]")
_KEPT_SYMBOLS = frozenset("&$%#@+*=/")


def tokenise(caption: str) -> list[str]:
    """The caption's tokens: lower case, Penn-Treebank splits ("don't" is `do n't`), punctuation dropped.

    A hyphenated word stays one token. White space of every kind separates; a caption without a word gives [].
    """
    tokens: list[str] = []
    for match in _TOKEN.findall(caption.translate(_QUOTES).lower()):
        tokens.extend(_split(match))
    return tokens


def _split(token: str) -> Iterable[str]:
    if not _WORD.search(token):
        return (token,) if token in _KEPT_SYMBOLS else ()
    if token.endswith(".") and token not in _ABBREVIATIONS and "." not in token[:-1]:
        token = token[:-1]
    if token in _SPLIT_WORDS:
        return _SPLIT_WORDS[token]
    clitic = _CLITIC.match(token)
    if clitic:
        return clitic.groups()
    return (token.rstrip("'"),)


def readable(words: Sequence[str]) -> str:
    """A sentence for people: clitics joined ("the dog 's" is "the dog's"), the first letter a capital."""
    sentence = ""
    for word in words:
        joined = word.startswith("'") or word == "n't" or not sentence
        sentence += word if joined else " " + word
    return sentence[:1].upper() + sentence[1:]


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
