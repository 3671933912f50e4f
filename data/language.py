# SPDX-License-Identifier: MIT
"""Is a text in the language asked for, and is it text at all?

English is told from its neighbours by the commonest words of each, which needs no model. For another language name a
callable of your own (text to reason or None) where a config takes ``language``.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+(?:[.,]\d+)*")
_ENGLISH = frozenset(
    """the of and to a in is it that for on with as was be are this by not or have from at i you we they but what can
    which their will would should there how about if more when who has all your do my our so people its than been
    think no yes any an these those he she his her him them me us were had did does could may might must into over out
    up only just because where why while also such each every own most some one two other then very too much many
    between without against through before after even never always still both few less rather since until upon
    don't doesn't isn't can't won't it's that's i'm they're we're you're let make get""".split()
)
# The commonest words of other languages in Latin letters, less those that English has too
_OTHERS = (
    frozenset(
        """der das und ist nicht ein eine einen einem einer dem den mit für auf von zu sich auch wir ich sie wird werden
    sind dass aber oder wenn nur noch wie bei nach kein keine muss kann mehr über unser unsere haben hat
    le les des et est une dans pour pas qui que sur avec nous vous sont cette mais plus du aux ce ces ont leur leurs ne
    sans être fait tout tous comme il elle je au
    el los las del y en un una por con para es se su al lo como más pero esta este sin sobre también ser está son muy
    nuestro nuestra porque cuando todos hay sus nos
    di che non è per sono della dei nel gli anche questo delle alla più ma hanno tutti nella degli
    os não uma com em da na seu ao pela dos das mais são também pelo nossa nosso isso
    het een van niet dat voor met zijn op te ook maar wij worden moet naar deze aan wordt geen ons onze
    och att det som är för inte av på har till ett vi med kan de
    og er ikke til jeg det på som vil skal ble blir være eller
    nie się jest że dla ale jak tylko przez musi są oraz tak co być
    je na se že jsou není pro ale jako musí nebo
    și este care nu pe mai din sau sunt pentru să
    hogy nem egy és az van csak
    ve bir bu için değil ile daha olarak çok
    yang dan tidak untuk dengan dari ini itu adalah pada akan
    ja ei että on ovat mutta niin myös kun
    kwa ya wa ni na katika hii kuwa
    ang ng mga sa ay hindi
    không và của là một cho
    est et non sunt ad cum quod sed""".split()
    )
    - _ENGLISH
)
MIN_OTHERS = 3  # fewer foreign words are a quotation or a name
MAX_OTHER_SCRIPT = 0.3  # share of letters that are not Latin
N_WINDOW = 8  # words that are looked at together: one sentence or clause in another language is enough
MIN_WINDOW = 3  # foreign words of a window that holds at most MAX_ENGLISH of English
MAX_ENGLISH = 1
MARGIN = 1.0  # log-odds; twice as many without a foreign common word or a letter beyond ASCII
MIN_WORDS = 4  # of a sentence whose letters are looked at
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|\n+")
_CLAUSE_END = re.compile(r"(?<=[.!?…;:])[\"')\]]*\s+|\n+|[()\"“”«»—–]")
MIN_RUN = 6  # letters of another script in one place: fewer are a name or a word that is quoted
# What UTF-8 looks like when it was read as Latin-1, Windows-1252 or Mac Roman (a byte that opens a character and one
# that goes on with it), and what stands for a lost character or for a byte order mark
_GARBLED = re.compile(
    "\ufffd|\ufeff.|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|â€"
    "|[ÂÃÅÄâãðïœ\u0178][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ¡¢£¤¥¦§¨©ª«¬®¯°±²³´µ¶·¸¹º»¼½¾¿]"
    "|‚Ä|√[\x80-\xff©®±¥º∂°´¨§¶ß¢£•]|Ã(?=[\x80-\xbf]| [a-z])|Â(?= )|ï»¿|ÔÇ|вЂ|Ð[\xa0-\xbf]"
    "|\\b\\w+\\?[a-z]{1,2}\\b(?=[ ,.])"
    "|ï¿½|(?<=\\w)¬|\u00ad{2}"
    # Mac Roman's quotes, read as Windows-1252: a capital with an accent inside a word, or beside a quoted one
    "|(?<=[a-z])[ÒÓÔÕÐÑ](?=[a-z]{1,2}\\b)|(?<![A-ZÀ-Þ])Ò(?=[A-Za-z])|(?<=[a-z.,!?])[ÓÒ](?![\\w])|(?<=[a-z ])Ñ(?= )"
    # of Windows-1251, of Code page 437, of UTF-7, and percent signs
    "|(?<=[a-z])[™](?=[a-z]{1,2}\\b)|ΓÇ|(?<=[a-z])\\+AC[0-9A-Z]-|(?<=[a-z])%(?:E2|C3|27|20)%?"
)


def words(text: str) -> list[str]:
    """Split into words; hyphens and apostrophes inside a word do not split it."""
    return _WORD.findall(text)


def lower_words(text: str) -> list[str]:
    """Split into words in lower case."""
    return [word.lower() for word in words(text)]


def sentences(text: str) -> list[str]:
    """Split where a sentence or a line ends."""
    return [part for part in _SENTENCE_END.split(text) if part.strip()]


def not_english(text: str) -> str | None:
    """Say that a text, or a sentence of it, is in another script or has the commonest words of another language."""
    return mostly_not_english(text) or _foreign_passage(lower_words(text)) or _foreign_sentence(text)


def mostly_not_english(text: str) -> str | None:
    """Say that a text as a whole is in another script, or that another language's words outnumber those of English."""
    letters = [] if text.isascii() else [character for character in text if character.isalpha()]
    other_script = sum(not unicodedata.name(letter, "").startswith("LATIN") for letter in letters if letter > "\x7f")
    if letters and other_script / len(letters) > MAX_OTHER_SCRIPT:
        return f"not English: {other_script} of {len(letters)} letters are not Latin"
    tokens = lower_words(text)
    others, english = (sum(word in common for word in tokens) for common in (_OTHERS, _ENGLISH))
    if others >= MIN_OTHERS and others > english:
        return f"not English: {others} common words of other languages, {english} of English"
    return f"not English: {other_script} letters are not Latin" if other_script >= MIN_RUN else None


def letter_runs(text: str) -> set[str]:
    """Return the runs of one to four letters in the words of a text, with the ends of words as blanks."""
    return {
        padded[start : start + n]
        for word in lower_words(text)
        for padded in [f" {word} "]
        for n in (1, 2, 3, 4)
        for start in range(len(padded) - n + 1)
    }


def _foreign_sentence(text: str) -> str | None:
    """Name a sentence whose runs of letters are those of another language."""
    for sentence in _CLAUSE_END.split(text):
        tokens = lower_words(sentence)
        if len(tokens) >= MIN_WORDS and sum(word in _ENGLISH for word in tokens) <= len(tokens) / 5:
            bias, weights = _letters()
            is_marked = not sentence.isascii() or any(word in _OTHERS for word in tokens)
            if bias + sum(weights.get(run, 0.0) for run in letter_runs(sentence)) > (
                MARGIN if is_marked else 2 * MARGIN
            ):
                return f"not English: {sentence.strip()[:60]!r}"
    return None


@cache
def _letters() -> tuple[float, dict[str, float]]:
    stored = json.loads(files("data").joinpath("language.json").read_text(encoding="utf-8"))
    return stored["bias"], stored["weights"]


def _foreign_passage(tokens: Sequence[str]) -> str | None:
    """Name the first few words of a text that hold common words of other languages and hardly one of English."""
    kinds = [(word in _OTHERS) - (word in _ENGLISH) for word in tokens]
    for start in range(max(1, len(tokens) - N_WINDOW + 1)):
        window = kinds[start : start + N_WINDOW]
        if window.count(1) >= MIN_WINDOW and window.count(-1) <= MAX_ENGLISH:
            return f"not English: {' '.join(tokens[start : start + N_WINDOW])!r}"
    return None


def garbled(text: str) -> str | None:
    """Name characters that show a text was read with a wrong encoding, or is no text."""
    match = _GARBLED.search(text)
    return f"garbled: {match[0]!r}" if match else None
