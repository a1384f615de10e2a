"""A sentence as tokens.

They are those of the COCO evaluation protocol (Chen et al. 2015, "Microsoft COCO Captions", section 3):
Penn-Treebank tokens (Marcus et al. 1993) in lower case, punctuation dropped, as the protocol's own tool writes them
(Stanford CoreNLP 3.4.1, PTBTokenizer). The rules below were found by watching what that tool answers to text;
`tests/metrics/test_tokeniser_parity.py` holds them against it, and lists where the two are known to differ.
"""

import re
from functools import cache, lru_cache
from unicodedata import category

TOKENISERS = ("ptb-1", "ptb-2")
"""Every version of the rules in `tokenise` so far, the present one last; model files carry theirs."""
TOKENISER = TOKENISERS[-1]

# What words are made of. Every character outside ASCII counts as a letter here: `_Respelling` has set the others apart.
_LETTER = r"[^\x00-@\[-`{-\x7f‘-”]"
_LETTER_OR_DIGIT = r"[^\x00-/:-@\[-`{-\x7f‘-”]"
_WORD = rf"{_LETTER_OR_DIGIT}+(?:_{_LETTER_OR_DIGIT}+)*"
_DOTTED = rf"{_LETTER}{_LETTER_OR_DIGIT}*(?:\.{_LETTER}{_LETTER_OR_DIGIT}*)+"
_APOSTROPHE = r"(?:['’]|&apos;)"
_CLITIC = rf"{_APOSTROPHE}(?i:[msd]|re|ve|ll)(?![A-Za-z])"
_NEGATION = r"(?i:n(?:['’`]|&apos;)t)"
_ABBREVIATIONS = r"""
    adj adm adv ala? alex apr ariz assn assoc asst attys? aug ave bhd bldg blvd brig bros calif capt cf cie cmdr co col
    colo comdr conn corp cos cpl ct dak dec dept det drs? elec ens esq est etc ext feb fla fri ft ga gen govs? hon inc
    ind insp intl invt jan jos jr jul jun kans? ky lieut lt ltd maj mar md messrs mfg mich minn mlle mme mo mont? mrs?
    ms msgr mt mtg natl neb nev nov oct okla penn pfc ph(?:\.d)? plc pptes? pptys? pres profs? ptes? ptys? pvt rd reps?
    rev rt sens? sept? seq sfc sgt spc sq sr ste? supts? sys tel tenn thu thurs treas tues? univ va vs vt wed wisc? wm
    wyo [a-z](?:\.[a-z])*
"""
_STATES = "ark az del ill la mass miss ore pa tex wash".split()  # abbreviations with a capital letter, else words
_STATE = "|".join(f"{state.title()}|{state.upper()}" for state in _STATES)
_ABBREVIATION = rf"(?:(?i:{'|'.join(_ABBREVIATIONS.split())})|{_STATE})\."
_SENTENCE_STARTS = r"""
    a about according additionally after an as at but earlier he her here however if in it last many more now once one
    other our she since so some such that the their then there these they this we what when while yet you mr\. ms\.
"""
_NEXT_SENTENCE = rf" (?:(?=[A-Z])(?i:{'|'.join(_SENTENCE_STARTS.split())})|<[/A-Za-z][^<>@]*>)(?= |$)"
_ELIDED = r"[DLOdlo]['’][A-Za-z]{2,}"  # O'Neil
_HYPHENATED = (
    rf"(?:{_ELIDED}|[Nn]['’][A-Za-z]{{2,}}|{_WORD}|{_LETTER_OR_DIGIT}+(?:[.,]{_LETTER_OR_DIGIT}+){{1,3}}|{_ABBREVIATION})"
    rf"(?:-(?:{_ELIDED}|[A-Za-z]\.(?:[A-Za-z]\.)+|{_WORD}))+"
)
_TERM = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_SLASHED = rf"{_TERM}(?:/{_TERM}){{1,2}}"
_JOINED = _DOTTED.replace(r"\.", "[.!?]")  # end.Then
_PATH = r"[^\s\"<>|(){}]+[^\s\"<>|(){}.!?,-]"
_NAME = "[A-Za-z][A-Za-z0-9.:_-]*"

# The tokens: what the first character may be, and the rule. At every place the rule that matches most text wins, the
# earlier one at a tie. What follows in a group `rest` counts for that and is left for the next token.
_RULES = [
    ("<", rf"<(?:{_NAME}(?: {_NAME}(?:=(?:\"[^\"]*\"|'[^']*'))?)* ?/?|/{_NAME} ?|[!?][A-Za-z-][^<>]*)>"),
    ("[A-Za-z]", "(?i)(?:can(?=not)|(?:gim|lem)(?=me)|(?:gon|wan)(?=na)|got(?=ta))(?P<rest>not|me|na|ta)"),
    ("[A-Za-z]", rf"[A-Za-z](?P<rest>\.(?:$|{_NEXT_SENTENCE}))"),
    (_LETTER_OR_DIGIT, rf"(?:{_HYPHENATED}|{_SLASHED}|{_JOINED}|{_ABBREVIATION}|{_WORD})(?P<rest>{_CLITIC})"),
    ("[A-Za-z]", rf"[A-Za-z]*[A-MO-Za-mo-z](?P<rest>{_NEGATION})"),
    ("[Nn]", _NEGATION),
    (_LETTER_OR_DIGIT, rf"(?:{_HYPHENATED}|{_JOINED}|{_WORD}|[Oo]['’][A-Za-z]+)\.(?P<rest>[,;:])"),
    ("['’&]", _CLITIC),
    ("['’&]", rf"{_APOSTROPHE}(?i:em|till?|cause)"),
    ("['’&]", rf"{_APOSTROPHE}[Nn](?:{_APOSTROPHE}|(?=\s|$))"),
    ("'", "'[Tt](?P<rest>(?i:is|was))"),
    ("['’&]", rf"{_APOSTROPHE}(?:[2-9]0[Ss]|\d\d(?=\s|$))"),  # '90s
    ("[DLONdlon]", rf"[DLONdlon]['’][A-Za-z]{_LETTER_OR_DIGIT}*"),  # o'clock, d'oh
    ("[A-XZ]", rf"[A-XZ]['’][A-Za-z]{{2}}{_LETTER_OR_DIGIT}*"),
    ("[Yy]", rf"[Yy]['’](?P<rest>{_LETTER})"),  # y'all
    ("[DJLOdjlo]", "(?i)(?:ol|dunkin|[dlj])['’]"),
    ("[EOeo]", "(?i)[eo]['’]er|o[‘’']clock"),
    (_LETTER, rf"{_LETTER}+[AEIOUYaeiouy]['’][aeiouA-Z]{_LETTER_OR_DIGIT}*"),  # ma'am
    ("[CNSWcns]", "(?i)cap['’]n|c['’]mon|nor['’]easter|s['’]mores"),
    (_LETTER_OR_DIGIT, _HYPHENATED),
    ("[A-Za-z0-9]", _SLASHED),
    (_LETTER, _JOINED),
    ("[A-Za-z]", _ABBREVIATION),
    (_LETTER_OR_DIGIT, _WORD),
    ("[ACFNOPacfnop]", r"(?i)(?:art|ca|figs?|nos?|op|pp|prop)\.(?P<rest> ?\d)"),
    (r"[+\-.:,\d]", r"[+-]?(?:\d+|[.:,]\d+)(?:[.:,]\d+)*"),
    (r"\d", r"(?:\d{1,4}[ -])?\d{1,4}/\d{1,4}|\d{1,2}/\d{1,2}/\d{2,4}"),
    (r"[(+\d]", r"\(\d{2,3}\) ?\d{3,4}[- ]?\d{3,5}|(?:\+?\d{1,4}[- ])?\d{2,4}[- ]\d{3,4}[- ]\d{3,5}"),  # telephone
    ("&", r"&(?i:amp|lt|gt|quot|nbsp|apos|[mn]dash);|&#\d+;"),
    ("[A-Z]", r"[A-Z]+(?:(?:[&+]|&(?i:amp);)[A-Z]+)+|[A-Z]+\$"),  # AT&T, US$
    ("[CFcf]", r"[Cc]\+\+|[CFcf]#"),
    ("#", rf"#{_LETTER}+"),
    ("@", "@[A-Za-z][A-Za-z0-9_]*"),
    ("[A-Za-z0-9<]", r"<?[A-Za-z0-9][^\s\"<>|(){}]{0,64}@(?:[^\s\"<>|(){}.]+\.)*[^\s\"<>|(){}.]+>?"),
    ("[Hh]", rf"(?i:https?://){_PATH}"),
    ("[Ww]", rf"(?i:www\.)(?:[^\s\"<>|.!?(){{}},]{{1,64}}\.){{1,8}}[A-Za-z]{{2,4}}(?:[/?]{_PATH})?"),
    ("[^\x00-`{-\x7f]", rf"(?:[^\x00-`{{-\x7f]{{1,64}}\.){{1,8}}(?i:com|net|org|edu)(?:[/?]{_PATH})?"),
    ("[<>:;=]", r"[<>]?[:;=][o'-]?[()DPpd\[\]\\|{](?![A-Za-z0-9])"),
    ("[‘’“”]", "[‘’“”]{2}"),
    (r"\(", r"\([-^=~<>'][-_.]?[-^=~<>']\)"),
    (r"[\^<>=@\\-]", r"\^_\^|-_-|[<>]_[<>]|=_=|@_@|<<|>>|\\[*/]"),
    ("[?!*#@_.'`-]", r"[?!]+|\*+|#+|@+|_+|-{5,}|-+|\.\.\.|''|``"),
    ("(?s:.)", "(?s:.)"),
]
_LONGEST_CACHED = 24
# Where a rule may look over white space or ask for the end of the caption. A caption without is scanned word by word.
_ACROSS_SPACES = re.compile(r"[<(]|\d\s\d|\.\s+\d|(?:(?<![a-z])[A-Za-z]|['’`;]\w{1,8})\.\s")

_SYMBOLS = re.compile(
    "[¡-£¥-©¬®-´¶-¹¼-¿×÷‖‗‚‟-•‰-‸※‾-⁂⁄⁰⁴-⁾₀-₎ℂ-℄℈℉℔№-℘℞-℣℥℧℩℮⅓-⅞←-⯿、。〒・！-／：-＠［-｀｛-･￠￡￥￦]"
)
_LAST_MARK = "\u0ecd"  # of the scripts whose combining marks the protocol takes for letters
_RESPELT = {
    "\xad": "", "\x91": "‘", "‘": "‘", "\x92": "’", "’": "’", "‛": "`", "‹": "`", "›": "'", "‐": "-", "‑": "-",
    "֊": "-", "\x93": "“", "“": "“", "«": "“", "\x94": "”", "”": "”", "»": "”",
    "€": "$", "¤": "$", "₠": "$", "\x80": "$",
}  # fmt: skip
_RESPELT_TOKENS = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "&lt;": "<", "&gt;": ">",
    "£": "#", "¢": "cents", "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
}  # fmt: skip
_UNKNOWN = "\x00"  # any character the protocol does not know: it parts words, and is dropped
_STRAIGHT = str.maketrans({"‘": "`", "’": "'", "“": "``", "”": "''"})
_DROPPED = frozenset(
    f"{_UNKNOWN} . ? ! , : ; ... - -- --- ---- ' '' ` `` \" &quot; &apos; &nbsp; &NBSP; &mdash; &ndash;".split()
)
_APOSTROPHE_RESPELT = re.compile(rf"{_CLITIC}|{_NEGATION}")


def tokenise(caption: str) -> list[str]:
    """The caption's tokens: lower case, Penn-Treebank splits ("don't" is `do n't`), punctuation dropped.

    Brackets are words (`-lrb-`), as in the protocol. White space of every kind separates; so do characters the protocol
    does not know (emoji, say), which are dropped. A caption without a word gives [].
    """
    chunks = caption.translate(_RESPELLING).split()
    plain = " ".join(chunks)
    if _ACROSS_SPACES.search(plain):
        return list(_scan(plain))
    tokens: list[str] = []
    for chunk in chunks:
        tokens += _scan_cached(chunk) if len(chunk) <= _LONGEST_CACHED else _scan(chunk)
    return tokens


def _scan(text: str) -> tuple[str, ...]:
    """The tokens of respelt text."""
    tokens: list[str] = []
    position = 0
    while position < len(text):
        longest = end = position
        for rule in _rules(text[position]):
            match = rule.match(text, position)
            if match and match.end() > longest:
                longest = end = match.end()
                if "rest" in rule.groupindex:
                    end = match.start("rest")
        tokens += _written(text[position:end])
        position = end
    return tuple(tokens)


_scan_cached = lru_cache(maxsize=1 << 16)(_scan)


@cache
def _rules(first: str) -> list[re.Pattern[str]]:
    return [re.compile(rule) for may_start, rule in _RULES if re.match(may_start, first)]


def _written(token: str) -> list[str]:
    """A token as the protocol writes it; none for punctuation; several where it holds spaces (as "<a b>" does)."""
    if not token.strip("‘’“”"):
        token = token.translate(_STRAIGHT)
    if token in _DROPPED:
        return []
    token = token.lower()
    if token in _RESPELT_TOKENS:
        return [_RESPELT_TOKENS[token]]
    if _APOSTROPHE_RESPELT.fullmatch(token):
        return [token.replace("’", "'").replace("&apos;", "'")]
    return token.replace("&amp;", "&").replace("(", "-lrb-").replace(")", "-rrb-").split()


class _Respelling(dict[int, str]):
    """For `str.translate`: how a character enters the rules. Filled as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in _RESPELT:
            respelt = _RESPELT[character]
        elif _SYMBOLS.match(character):
            respelt = f" {character} "
        elif character.isspace():
            respelt = " "
        else:
            respelt = character if _is_known(character) else f" {_UNKNOWN} "
        self[code] = respelt
        return respelt


def _is_known(character: str) -> bool:
    if character.isascii():
        return character.isprintable()
    if character.isalpha() or character.isdecimal():
        return character <= "\uffff"
    return category(character) in ("Mn", "Mc", "Sk") and character <= _LAST_MARK


_RESPELLING = _Respelling()
