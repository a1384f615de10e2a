"""What scores do not say of themselves: marks that count as words, sentences that count as one, an image alone.

The metrics take captions as they are, as the field's own do; a line here says where that is not what somebody meant.
"""

import re
from collections import Counter
from collections.abc import Sequence

from captioner.metrics.statistics import Tokens

SINGLE = "is 0 by definition, whatever the caption: its weights come from the other images"
"""Of the CIDEr-D of one image."""

# What models put around sentences, as <start>, </s>, <|endoftext|>, [CLS] or startseq.
_NAME = "s|go|stop|pad|cls|sep|[bes]o[st]|(?:start|end|begin)(?:_?(?:of_?)?(?:text|sentence|sequence|seq|caption))?"
_MARK = rf"(?i:<[/|]?(?:{_NAME})\|?>|\[/?(?:{_NAME})\]|\b(?:start|end)seq\b)"
_FIRST, _LAST = re.compile(rf"^\s*({_MARK})"), re.compile(rf"({_MARK})[\s.]*$")

_UNSPACED = (  # letters of scripts that put no spaces between words, and how many make a longer word than there are
    (re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"), 4),  # Chinese, Japanese
    (re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"), 9),  # Thai, Lao, Burmese, Khmer
)


def remarks(texts: Sequence[str], sentences: Sequence[Tokens], what: str) -> list[str]:
    """Both of the lines below, as far as there is something to say, on captions and their tokens."""
    return [*filter(None, [marked(texts, what), unparted(sentences, what)])]


def marked(captions: Sequence[str], what: str) -> str:
    """One line on captions, called `what`, that stand between marks such as <start> and <end>; "" for others."""
    found = []
    for verb, pattern in (("begin", _FIRST), ("end", _LAST)):
        marks = Counter(match[1] for caption in captions if (match := pattern.search(caption)))
        if marks:
            found.append((marks.total(), f"{verb} with {marks.most_common(1)[0][0]}"))
    if not found:
        return ""
    count, said = found[0]
    for others, also in found[1:]:
        said += f" and {also}" if others == count else f" and {others:,} {also}"
    return f"{count:,} of {len(captions):,} {what} {said}: such marks are scored as words, so take them off."


def unparted(sentences: Sequence[Tokens], what: str) -> str:
    """One line on tokenised sentences if most are in no words, as Chinese and Thai are written; "" for others."""
    count = sum(map(_is_unparted, sentences))
    if 2 * count <= len(sentences):
        return ""
    return (
        f"{count:,} of {len(sentences):,} {what} are in a language without spaces, and a sentence counts as one word: "
        "put spaces between the words, or the scores say next to nothing."
    )


def _is_unparted(tokens: Tokens) -> bool:
    if all(map(str.isascii, tokens)):
        return False
    for letters, most in _UNSPACED:
        counts = [count for token in tokens if (count := len(letters.findall(token)))]
        if sum(counts) >= most * max(1, len(counts)):
            return True
    return False
