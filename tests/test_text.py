"""The promises of captioner.text."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.text import PAD, SPECIAL_WORDS, UNKNOWN, Vocabulary, readable, tokenise
from captioner.text.tokens import _RESPELLING, _scan


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A child in a pink dress is climbing .", "a child in a pink dress is climbing"),
        ("Two dogs, one black and one white; running!", "two dogs one black and one white running"),
        ("The man's dog doesn't bark.", "the man 's dog does n't bark"),
        ('A T-shirt that says "I\'m here"', "a t-shirt that says i 'm here"),
        ("The boys' team can’t win", "the boys team ca n't win"),
        ("It costs 1,000 dollars at 10:30 p.m.", "it costs 1,000 dollars at 10:30 p.m."),
        ("A cannot -- b...", "a can not b."),
        ("gonna wanna gotta gimme lemme 'tis y'all", "gon na wan na got ta gim me lem me 't is y' all"),
        ("rock 'n' roll o'clock ma'am jack-o'-lantern '90s '90", "rock 'n' roll o'clock ma'am jack-o lantern '90s '90"),
        ("o’clock it’s ’em", "o’clock it 's ’em"),
        ("(a man) [a dog] {a cat}", "-lrb- a man -rrb- -lsb- a dog -rsb- -lcb- a cat -rcb-"),
        ("Mr. Smith of 5th Ave. no. 5, says no.", "mr. smith of 5th ave. no. 5 says no"),
        ("U.S. Army, e.g. J. R. Smith", "u.s. army e.g. j. r. smith"),
        ("reads K. The end is a K.", "reads k the end is a k"),
        ("he is ill. Miss. x Ill. x", "he is ill miss. x ill. x"),
        ("$5 £5 €5 5¢ 50% #1 #tag @name", "$ 5 # 5 $ 5 5 cents 50 % # 1 #tag @name"),
        ("½ 1/2 2 1/2-inch 24/7 5-year-old +1 -5", "1/2 1/2 2 1/2 inch 24/7 5-year-old +1 -5"),
        ("call (555) 123-4567", "call -lrb-555-rrb- 123-4567"),
        ("and/or w/o w/ AT&T at&t R&amp;B", "and/or w/o w / at&t at & t r&b"),
        ("see http://a.com/b?c=d. or foo.com, a@b.com", "see http://a.com/b?c=d or foo.com a@b.com"),
        ("a :) b :-( c ;D d <3 e ^_^", "a :-rrb- b :--lrb- c ;d d < 3 e ^_^"),
        ('<b>a</b> <a href="x y"> <unk> a < b', '<b> a </b> <a href="x y"> <unk> a < b'),
        ("a * b ** c = d + e / f ! !! ?!", "a * b ** c = d + e / f !! ?!"),
        ("grey colour centre", "grey colour centre"),
        ("a 😀 b\u200bc ™ ♥", "a b c ™ ♥"),
        ("a 1.5l. bottle, 10:30p. today", "a 1.5 l. bottle 10:30 p. today"),
        ("a sign _A. man", "a sign _ a. man"),
        ("cap'n c'mon nor'easter s'mores e'er", "cap'n c'mon nor'easter s'mores e'er"),
        ("a “” b ‘’ hi (^_^) you (=.=)", "a ``'' b `' hi -lrb-^_^-rrb- you -lrb-=.=-rrb-"),
        ("hello.There dog., cat.", "hello.there dog. cat"),
        ("", ""),
        (" \t\n . , !", ""),
        ("été à la plage 北京", "été à la plage 北京"),
        ("\ud800a\x00b", "a b"),
    ],
)
def test_tokens_follow_the_coco_protocol(caption, tokens):
    """Lower case, Penn-Treebank splits, punctuation dropped; expected is what the protocol's own tool answered."""
    assert tokenise(caption) == tokens.split()


@given(st.text())
def test_any_text_gives_tokens_without_white_space(text):
    """Whatever the text, a token is a non-empty run without white space, and in lower case."""
    for token in tokenise(text):
        assert token
        assert not any(character.isspace() for character in token)
        assert token == token.lower()


@given(st.text())
def test_white_space_of_every_kind_separates_and_no_more(text):
    assert tokenise(" \t" + text.replace(" ", "\u3000\n ") + "\r\n") == tokenise(text)


@given(st.text("a1B.,_-'&$( éDr", max_size=25))
def test_words_scanned_alone_are_those_of_the_whole(text):
    """The quick way, word by word, gives what scanning the whole caption gives."""
    whole = " ".join(text.translate(_RESPELLING).split())
    assert tokenise(text) == list(_scan(whole))


def test_callers_may_change_the_tokens_they_got():
    tokenise("a dog").append("x")
    assert tokenise("a dog") == ["a", "dog"]


@pytest.mark.parametrize(
    "piece",
    [
        *"aé.'-<_@#&!1(😀",
        *"1, a- (1 a' a, a.1 n't K._ http:// www.-. <a_ <a_b=' A& a/ 1/2_ a.b- a@ 't y' (555 ~. ’a. “a.m. é.’ 北京‘".split(),
    ],
)
def test_long_and_odd_captions_take_no_time(piece):
    """No rule looks further and further over the same text: with one that does, this takes minutes."""
    tokenise(piece.replace("_", " ") * (100_000 // len(piece)))


VOCABULARY = (
    "a man dog is all can not gon na do n't 's 'm 'll 're t-shirt o'clock 'n' 3.5 1/2 10 u.s. k. mr. five & at&t"
    " -lrb- -rrb- $ # % / * !! ?! = 's :-rrb- <unk> #tag us$ c++ 555 1,000 foo.com/bar jr. ill. cents ’em 'em the an < >"
).split()


@given(st.lists(st.sampled_from(VOCABULARY), max_size=12))
def test_readable_captions_tokenise_to_what_they_were_made_from(words):
    """Whatever words a model writes, in whatever order, its sentence has these words."""
    assert tokenise(readable(words)) == words


@given(st.text("aZ.'&-/()K12 ,$\"<>n't:s’é!"))
def test_readable_tokens_of_any_text_tokenise_to_themselves(text):
    words = tokenise(text)
    assert tokenise(readable(words)) == words


def test_readable_gives_every_real_caption_s_tokens_back(flickr8k, coco):
    """All 60,014 captions of COCO val2017 and of Flickr8k's train and dev."""
    with (coco / "annotations" / "captions_val2017.json").open(encoding="utf-8") as file:
        captions = [annotation["caption"] for annotation in json.load(file)["annotations"]]
    with (flickr8k / "captions.txt").open(encoding="utf-8", newline="") as file:
        captions += [row["caption"] for row in csv.DictReader(file)]
    assert len(captions) == 60_014
    for tokens in map(tokenise, captions):
        assert tokenise(readable(tokens)) == tokens


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("the dog 's owner does n't run", "The dog's owner doesn't run"),
        ("a man -lrb- in red -rrb- can not stop !!", "A man (in red) cannot stop!!"),
        ("they are gon na pay $ 5 or 50 % at at&t", "They are gonna pay $5 or 50% at AT&T"),
        ("'t is y' all :-rrb-", "'tis y'all :)"),
        ("can n't 's", "Can n't's"),
        ("", ""),
    ],
)
def test_readable_writes_as_people_do(words, sentence):
    """A capital first, clitics joined, brackets as brackets; a space stays where joining would change the words."""
    assert readable(words.split()) == sentence


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
