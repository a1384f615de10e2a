"""`captioner.text.tokenise` against the tokeniser of the COCO caption evaluation itself, which runs on Java.

The evaluation writes one caption a line, and the tokeniser looks at the start of the next line to see whether "K." at
the end of a line is an initial or the end of a sentence. So that a caption's tokens do not depend on its neighbour here,
every caption is followed by one that starts as captions do.
"""

import csv
import json
import random
import shutil

import pytest

from captioner.text import tokenise

oracle = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer", reason="pycocoevalcap is not installed")
pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="the evaluation's tokeniser needs Java")

PIECES = [
    "a man dog the A The In People Street colour grey café CAFÉ naïve ÉTÉ 北京 日本語 한국어 Ñandú t-shirt two ROCK",
    "gonna Wanna cannot gimme lemme GOTTA d'ye 'tis 'twas y'all 'em 'til can't won't DON'T I'm they're we've he'd she'll",
    "it's dogs' o'brien ma'am rock'n'roll 'n' '90s 90's don’t it’s o’clock ain't d'artagnan 'cause ol' don`t T'ang C'mon",
    "1 2 10 1,000 1,00 3.5 .5 1/2 3/4 10:30 2nd 21st $5 $ 50% 1990s 5-year-old 555-1234 1080p -5 +5 5x7 #1 #5 12/25/2010",
    "24/7 5' 6'2\" 5pm ½ 2½ £5 €5 5¢ 1,000,000 (555) 123-4567 m² 1-1/2 -inch 2 1/2-inch 1/2-inch 10k 3d a5 007",
    "mr. Dr. st. Ave. u.s. U.S. P.M. a.m. etc. No. no. inc. jr. vs. e.g. Ph.D. ft. oz. in. K. J.R. D.C. fig. Dec. miss.",
    ". , ; : ! ? ... .. … - -- – — / \\ | * ** & &amp; @ # % + = < > ( ) [ ] { } \" ' ` `` '' “ ” ‘ ’ _ __ ^ ~ ?! !! •",
    "http://a.com www.flickr.com/photos foo.com foo.com/bar IMG_1234.jpg a@b.com @name #tag AT&T at&t Q&A M&M's US$ C++",
    ":) :-) ;) :( :D :P =) <3 :/ ^_^ -_- o_O xD :3 😀 ❤️ 👍🏽 🇺🇸 ♥ ★ © ° ™ → « » × ´ ¿ \u200b a\u200bb e\u0301 \ue000 ！ 。",
    "and/or w/ w/o his/her a/b/c black-and-white jack-o-lantern x--y non-U.S. semi- -ish a_b a*b a+b a=b end.Then He!Go",
    "<b> </b> <br/> <a <i>x</i> -> <- << <a@b.com> &lt; &gt; &quot; &apos; &#39; &nbsp; \u00a0 \t \u3000",
]

ODDER = [
    "y'know whatcha more'n 5p.m. 1,00 3/4 ¾ pp. approx. lb. i.e. e.t.c. w.c. t.v. B.B.Q. A.B 3-d x-ray jack-o'-lantern",
    "http://flickr.com/photos/x_y-1. https://x.org/a?b=c foo.co.uk www.a.org/b x.y@z.org @5 n° №5 5° m² red/white/blue",
    "soft\u00adhyphen \ufeff \x07 a\x07b ﬁ ㎡ ก ñ ß İ ẞ Σ ΟΣ ος हिन्दी العربية עברית 日本語、です。 ａｂｃ １２ 𝐀 𠀀 <b <br",
]

DIFFERENT = [
    # caption, the evaluation's tokens, ours
    ("♥foo.com", "♥foo.com", "♥ foo.com"),  # a symbol can start the name of a web site there
    ("h&eacute;llo", "h&eacute;llo", "h & eacute llo"),  # entities of letters
    ("blvd.a", "blvd. a", "blvd.a"),  # what is glued to an abbreviation that can end a sentence
    ("etc.-5", "etc. -5", "etc.-5"),
    ("Dec.Σ x", "dec. σ x", "dec.ς x"),
    ("don`tgo", "do n`tgo", "do n`t go"),  # words and numbers glued to a contraction
    ("don't5", "do n't 5", "do n't5"),
    ("’man", "'m an", "man"),  # a curly apostrophe glued to a word it does not belong to
    ("#5हिन्दी", "# 5ह िन्दी", "# 5हिन्दी"),  # vowel signs after numbers
    ("m²³", "m ²³", "m ² ³"),  # digits above and below the line
    ("1⁄2", "1⁄2", "1 ⁄ 2"),  # numbers with the points and strokes of other scripts
    ("١٫٥", "١٫٥", "١ ٥"),
    ("a\u0378b", "a\u0378b", "a b"),  # about 1% of all characters: letters of 2001 and unassigned ones, mostly
]


def evaluation_tokens(captions):
    """The tokens the COCO caption evaluation gives each caption."""
    lines = [line for caption in captions for line in (" ".join(caption.split()), "A")]
    tokens = oracle.PTBTokenizer().tokenize({number: [{"caption": line}] for number, line in enumerate(lines)})
    assert len(tokens) == len(lines)
    return [tokens[number][0].split() for number in range(0, len(lines), 2)]


def assert_identical(captions):
    different = [
        f"{caption!r}: {' '.join(theirs)!r}, ours {' '.join(tokenise(caption))!r}"
        for caption, theirs in zip(captions, evaluation_tokens(captions), strict=True)
        if tokenise(caption) != theirs
    ]
    assert not different, f"{len(different)} of {len(captions)}:\n" + "\n".join(different[:20])


@pytest.fixture(autouse=True)
def utf8(monkeypatch):
    """The tokeniser reads in the locale's encoding, captions come in UTF-8."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dfile.encoding=UTF-8")


def test_every_coco_validation_caption_has_the_evaluations_tokens(coco):
    with (coco / "annotations" / "captions_val2017.json").open(encoding="utf-8") as file:
        captions = [annotation["caption"] for annotation in json.load(file)["annotations"]]
    assert len(captions) == 25014
    assert_identical(captions)


def test_every_flickr8k_caption_has_the_evaluations_tokens(flickr8k):
    with (flickr8k / "captions.txt").open(encoding="utf-8", newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    assert len(captions) == 35000
    assert_identical(captions)


def test_generated_captions_have_the_evaluations_tokens():
    """Sentences of odd pieces, in odd order and capitals, glued to punctuation: 30,000 of them, always the same."""
    chance = random.Random(1)
    pieces = [group.split(" ") for group in PIECES]

    def piece():
        text = chance.choice(chance.choice(pieces))
        text = chance.choice([str, str, str, str, str.upper, str.capitalize])(text)
        if not text[0].isalnum():
            return text
        return chance.choice(["{}"] * 6 + ["({})", '"{}"', "{},", "{}!", "{};", "{}?", "“{}”", "[{}]"]).format(text)

    assert_identical([" ".join(piece() for _ in range(chance.randint(1, 7))) for _ in range(30_000)])


@pytest.mark.slow
@pytest.mark.parametrize(("glued", "most"), [(0.0, 0.0005), (0.1, 0.01)])
def test_odd_mixtures_hardly_differ(glued, most):
    """Of 100,000 captions of odd pieces, with a share of the spaces between them taken away, at most this share differs."""
    chance = random.Random(2)
    pieces = [group.split(" ") for group in (*PIECES, *ODDER)]

    def caption():
        text = ""
        for _ in range(chance.randint(1, 7)):
            text += chance.choice([str] * 8 + [str.upper, str.capitalize])(chance.choice(chance.choice(pieces)))
            text += "" if chance.random() < glued else " "
        return text

    captions = [caption() for _ in range(100_000)]
    theirs = evaluation_tokens(captions)
    differ = sum(tokenise(one) != tokens for one, tokens in zip(captions, theirs, strict=True))
    print(f"{differ} of {len(captions):,} differ with {glued:.0%} of the spaces taken away")
    assert differ <= most * len(captions)


def test_where_the_two_are_known_to_differ():
    """A list to be kept short and true: what the evaluation gives, and what `tokenise` gives."""
    captions = [caption for caption, _, _ in DIFFERENT]
    assert [" ".join(tokens) for tokens in evaluation_tokens(captions)] == [theirs for _, theirs, _ in DIFFERENT]
    assert [" ".join(tokenise(caption)) for caption in captions] == [ours for _, _, ours in DIFFERENT]
