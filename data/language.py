# SPDX-License-Identifier: MIT
"""Is a text in the language asked for, and is it text at all?

English is told from its neighbours by the commonest words of each, which needs no model. For another language name a
callable of your own (text to reason or None) where a config takes ``language``.
"""

import re
import unicodedata

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+(?:[.,]\d+)*")
_ENGLISH = frozenset(
    """the of and to a in is it that for on with as was be are this by not or have from at i you we they but what can
    which their will would should there how about if more when who has all your do my our so people its than been
    think no yes any an these those""".split()
)
# The commonest words of German, French, Spanish, Italian, Portuguese and Dutch, less those that English has too
_OTHERS = frozenset(
    """der das und ist nicht ein eine einen dem den mit für auf von zu sich auch wir ich sie wird werden sind dass
    le les des et est une dans pour pas qui que sur avec nous vous sont cette mais plus
    el los las del y en un una por con para es se su al lo como más pero esta
    il di che non è per sono della dei nel gli anche questo
    o os não uma com em da na mais são seu ao pela
    het een van niet dat voor met zijn op te ook maar wij""".split()
)
MIN_OTHERS = 3  # fewer foreign words are a quotation or a name
MAX_OTHER_SCRIPT = 0.3  # share of letters that are not Latin
# What UTF-8 looks like when it was read as Latin-1 or Windows-1252, and what stands for a lost character
_GARBLED = re.compile(
    "\ufffd|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|â€|Ã[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ¡-¿]|Â[£§©«»°·]"
)


def words(text: str) -> list[str]:
    """Split into words; hyphens and apostrophes inside a word do not split it."""
    return _WORD.findall(text)


def lower_words(text: str) -> list[str]:
    """Split into words in lower case."""
    return [word.lower() for word in words(text)]


def not_english(text: str) -> str | None:
    """Say that a text is in another script, or that another language's commonest words outnumber those of English."""
    letters = [] if text.isascii() else [character for character in text if character.isalpha()]
    other_script = sum(not unicodedata.name(letter, "").startswith("LATIN") for letter in letters if letter > "\x7f")
    if letters and other_script / len(letters) > MAX_OTHER_SCRIPT:
        return f"not English: {other_script} of {len(letters)} letters are not Latin"
    tokens = lower_words(text)
    others, english = (sum(word in common for word in tokens) for common in (_OTHERS, _ENGLISH))
    if others >= MIN_OTHERS and others > english:
        return f"not English: {others} common words of other languages, {english} of English"
    return None


def garbled(text: str) -> str | None:
    """Name characters that show a text was read with a wrong encoding, or is no text."""
    match = _GARBLED.search(text)
    return f"garbled: {match[0]!r}" if match else None
