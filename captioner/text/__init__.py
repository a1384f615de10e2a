"""Captions as text: tokens from a sentence, ids from tokens, a readable sentence from tokens.

Training, evaluation and serving all come through here, so a word is the same word everywhere. This room knows no torch
and no nltk.
"""

from captioner.text.sentences import readable
from captioner.text.tokens import TOKENISER, TOKENISERS, tokenise
from captioner.text.vocabulary import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary

__all__ = [
    "END",
    "PAD",
    "SPECIAL_WORDS",
    "START",
    "TOKENISER",
    "TOKENISERS",
    "UNKNOWN",
    "Vocabulary",
    "readable",
    "tokenise",
]
