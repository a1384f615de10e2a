"""The promises of captioner.text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.text import PAD, SPECIAL_WORDS, UNKNOWN, Vocabulary, readable, tokenise


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A child in a pink dress is climbing up a set of stairs in an entry way .", None),
        ("Two dogs, one black and one white; running!", "two dogs one black and one white running"),
        ("The man's dog doesn't bark.", "the man 's dog does n't bark"),
        ('A T-shirt that says "I\'m here"', "a t-shirt that says i 'm here"),
        ("The boys' team can’t win", "the boys team ca n't win"),
        ("It costs 1,000 dollars at 10:30 p.m.", "it costs 1,000 dollars at 10:30 p.m."),
        ("A cannot -- b...", "a can not b"),
        ("(a man) [a dog] {a cat}", "a man a dog a cat"),
        ("", ""),
        (" \t\n . , !", ""),
        ("été à la plage 北京", "été à la plage 北京"),
    ],
)
def test_tokens_follow_the_coco_protocol(caption, tokens):
    """Lower case, Penn-Treebank splits, punctuation dropped."""
    if tokens is None:
        tokens = caption.lower().replace(" .", "")
    assert tokenise(caption) == tokens.split()


@given(st.text())
def test_any_text_gives_tokens_without_white_space(text):
    """Whatever the text, a token is a non-empty run without white space, and in lower case."""
    for token in tokenise(text):
        assert token
        assert not any(character.isspace() for character in token)
        assert token == token.lower()


@given(st.lists(st.sampled_from("a man dog 's n't 'll t-shirt runs two 3.5 u.s. &".split()), min_size=1))
def test_readable_captions_tokenise_to_what_they_were_made_from(words):
    """Tokenising a readable caption gives back its tokens, wherever a clitic stands behind a word it can follow."""
    clitics = ("'s", "n't", "'ll")
    kept = []
    for word in words:
        if word in clitics and (not kept or not kept[-1].isalpha()):
            continue
        kept.append(word)
    assert tokenise(readable(kept)) == kept


def test_readable_starts_with_a_capital_and_joins_clitics():
    """The sentence reads as a person would write it."""
    assert readable("the dog 's owner does n't run".split()) == "The dog's owner doesn't run"
    assert readable([]) == ""


def test_vocabulary_keeps_words_used_often_enough_most_used_first():
    """`min_count` decides which words enter; ties are in alphabetical order; the special words come first."""
    vocabulary = Vocabulary.build([["b", "a", "c"], ["b", "a"], ["b", "d", "d"]], min_count=2)
    assert vocabulary.words == (*SPECIAL_WORDS, "b", "a", "d")
    assert vocabulary.encode(["a", "c"]) == [5, UNKNOWN]
    assert vocabulary.decode([PAD, 4]) == ["<pad>", "b"]


@pytest.mark.parametrize("words", [["a"], [*SPECIAL_WORDS, "a", "a"]])
def test_vocabulary_refuses_words_it_could_confuse(words):
    """Missing special words and repeated words are refused."""
    with pytest.raises(ValueError, match="vocabulary"):
        Vocabulary(words)
