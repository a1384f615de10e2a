"""What the page shows of a caption, as HTML: the sentences word by word, and the tree of the search.

It knows captions, and nothing of Gradio. page.js brings the buttons to life: a word shows where the model looked, an
alternative takes the first sentence's place, and sentences are copied.
"""

import math
from collections.abc import Callable
from html import escape

from captioner.captions import Branch, Caption, Explanation, Word
from captioner.options import SearchOptions
from captioner.pictures import Window

EMPTY = '<p class="waiting">Its caption will appear here.</p>'

STOPPED = '<p class="sure" role="status">Stopped: what was captioned this far stays.</p>'
"""In the progress bar's place after a stop."""


def growing(text: str) -> str:
    """A sentence that is being written."""
    return f"<p class='sentence growing' aria-busy='true'>{escape(text)}</p>"


def problem(message: str) -> str:
    """What is wrong with a file or a setting."""
    return f"<p class='problem' role='alert'>{escape(message)}</p>"


EASY = 3
"""The widest beam whose tree a learner can follow."""

_LISTED = 5  # sentences that are seen without asking for more
_TOLD = 20  # problems that are shown at a time

_LIKELY, _UNLIKELY = 0.5, 0.2
"""Words less probable than the first look paler, than the second marked, too."""


def problems(found: list[str]) -> str:
    """What is wrong with some of many files; nothing where nothing is."""
    if not found:
        return ""
    rows = "".join(f"<li>{escape(text)}</li>" for text in found[:_TOLD])
    more = f"<li>and {len(found) - _TOLD:,} more.</li>" if len(found) > _TOLD else ""
    return f"<div class='problem' role='alert'><ul>{rows}{more}</ul></div>"


def explained(
    explanation: Explanation,
    *,
    by: str,
    seconds: float,
    search: SearchOptions,
    window: Window,
    name: str,
    unsure: Callable[[Caption], bool | None],
) -> str:
    """The caption of the photo called `name`, found in so many seconds, with the sentences that were considered.

    `by`: who found it, in a word or two. `unsure`: whether a caption may well be wrong, where that is known.
    """
    caption = explanation.caption
    sentences = (caption, *caption.alternatives)
    panels = "".join(
        _panel(sentence, place, _numbers(sentence, by, seconds, search), unsure(sentence) is True)
        for place, sentence in enumerate(sentences)
    )
    rows = [
        f"<tr><td><button type='button' class='pick' data-place='{place}' aria-pressed='{_flag(not place)}'>"
        f"{escape(sentence.text) or '(no words)'}</button></td>"
        f"<td>{percent(math.exp(sentence.score - caption.score))}</td></tr>"
        for place, sentence in enumerate(sentences)
    ]
    table = (
        "<table class='sentences'><caption>Other ways to say it</caption>"
        "<thead><tr><th scope='col'>Best first</th><th scope='col'>As good as the best</th></tr></thead>"
        f"<tbody>{''.join(rows[:_LISTED])}</tbody></table>"
    )
    if len(rows) > _LISTED:
        table += (
            f"<details><summary>{len(rows) - _LISTED} more</summary>"
            f"<table class='sentences'><tbody>{''.join(rows[_LISTED:])}</tbody></table></details>"
        )
    return (
        f"<div class='explained' data-window='{','.join(f'{edge:.4f}' for edge in window)}' data-name='{escape(name)}'>"
        f"<div role='status'>{panels}</div>{_ACTIONS}{table if len(sentences) > 1 else ''}</div>"
    )


_ACTIONS = (
    "<p class='actions'>"
    "<button type='button' class='copy' data-copies='text'>Copy</button>"
    "<button type='button' class='copy' data-copies='html' title='An image tag with this alternative text'>"
    "Copy as HTML</button><button type='button' class='edit' aria-pressed='false'>Edit</button></p>"
)


def _panel(caption: Caption, place: int, numbers: str, unsure: bool) -> str:
    """One of the sentences, of which the first is shown until another is picked."""
    chips = "".join(_chip(word) for word in caption.words)
    looks = " and where it looked" if any(word.attention for word in caption.words) else ""
    hint = f"Point at a word, or press it, to see how likely the model held it{looks}. " if chips else ""
    marked = any(word.probability < _UNLIKELY for word in caption.words)
    return (
        f"<div class='panel' data-place='{place}'{' hidden' if place else ''}>"
        f"<p class='sentence'>{escape(caption.text) or '(It found no words.)'}</p>{UNSURE if unsure else ''}"
        f"<div class='words' role='group' aria-label='The words, with how likely each is'>{chips}</div>"
        f"<p class='hint'>{hint}{'Dotted words are unlikely.' if marked else ''}</p>"
        f"<details class='numbers'><summary>In numbers</summary><p class='sure'>{numbers}</p></details></div>"
    )


UNSURE = "<p class='unsure'>The model is unsure: look whether this is right.</p>"


def _numbers(caption: Caption, by: str, seconds: float, search: SearchOptions) -> str:
    """What is known of a caption in the field's own words."""
    also = ", of two decoders, one of which reads from the end" if search.rerank else ""
    return (
        f"{escape(by)}: {percent(caption.word_probability)} mean probability per word, in {seconds:.2f} s. "
        f"Ranked by {caption.score:.2f}, the log-probability over the number of words to the power of "
        f"{search.length_penalty:g}{also}; how good another one is beside the best is e to the power of the difference."
    )


def _chip(word: Word) -> str:
    """A word as a button, with its probability, and where the model looked as numbers from 0 to 255, row by row."""
    look = " aria-pressed='false'"
    likely = "" if word.probability >= _LIKELY else " paler" if word.probability >= _UNLIKELY else " paler unlikely"
    if word.attention:
        most = max(map(max, word.attention))
        cells = ",".join(str(round(255 * share / most)) for row in word.attention for share in row)
        look = f" data-look='{cells}' data-columns='{len(word.attention[0])}' aria-pressed='false'"
    return (
        f"<button type='button' class='word{likely}'{look}>{escape(word.text)} "
        f"<span>{percent(word.probability)}</span></button>"
    )


def searched(explanation: Explanation, search: SearchOptions) -> str:
    """The tree of the search: nested lists, each word with its probability, what was given up paler.

    One that is too `wide` for a learner is marked: the page then offers a smaller beam.
    """
    wide = " wide" if search.beam_size > EASY else ""
    second = " A second decoder, which reads the sentences from their end, helped to choose among them."
    both = second if search.rerank else ""
    return (
        "<p class='hint'>Each word with its probability after the words before it; below it, further in, what it tried "
        "next. Bold is what it chose, which comes first, upright the other sentences it considered, slanted what it "
        f"gave up.{both}</p>"
        f"<div class='tree{wide}' tabindex='0' role='group' aria-label='The tree of the search'>"
        f"<p class='chosen'>{' '.join(map(_node, _chosen(explanation.tree)))}</p>{_branches(explanation.tree)}</div>"
    )


def _chosen(branches: tuple[Branch, ...]) -> list[Branch]:
    """The words of the sentence that was chosen, and its end: they stay in sight, however far one scrolls."""
    path = []
    while branch := next((one for one in branches if one.sentence == 0), None):
        path.append(branch)
        branches = branch.branches
    return path


def _branches(branches: tuple[Branch, ...]) -> str:
    winner_first = sorted(branches, key=lambda branch: branch.sentence != 0)  # however improbable it began
    return f"<ul>{''.join(map(_branch, winner_first))}</ul>" if branches else ""


def _branch(branch: Branch) -> str:
    """A row of words up to where the search went on in several ways, and those below it."""
    row = [_node(branch)]
    while len(branch.branches) == 1:
        (branch,) = branch.branches
        row.append(_node(branch))
    return f"<li>{' '.join(row)}{_branches(branch.branches)}</li>"


def _node(branch: Branch) -> str:
    fate = "lost" if branch.sentence is None else "found" if branch.sentence else "best"
    word = escape(branch.word) or "<abbr title='The sentence ends here'>end</abbr>"
    return f"<span class='{fate}'>{word} <small>{percent(branch.probability)}</small></span>"


def percent(probability: float) -> str:
    """A probability as people read it."""
    return f"{100 * probability:.0f}%" if probability >= 0.005 or not probability else "<1%".replace("<", "&lt;")


def _flag(value: bool) -> str:
    return "true" if value else "false"
