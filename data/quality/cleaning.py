# SPDX-License-Identifier: MIT
"""What can be taken out of a text without a guess: markup, a wrong encoding, outer blanks and quotes, personal data.

All else that spoils a text is left as it is, for a gate to find.
"""

import html
import re

from data.pairs.records import Pair
from data.quality.leftovers import BREAKS, TAGS
from data.quality.likeness import unwrapped
from data.quality.personal import mask_personal

_INVISIBLE = re.compile("[\u00ad\u200b\u200c\u200e\u200f\u2060\ufeff]")
_BLANKS = re.compile("[\u00a0\u2007\u202f]")
# A run of characters that may be UTF-8 which was read as Windows-1252 or Latin-1
_MISREAD = re.compile("[\x80-\xff€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]{2,}")
_BREAK = re.compile(rf"[ \t]*</?(?:{BREAKS})(?:\s[^<>]*)?/?>[ \t]*", re.IGNORECASE)
_TAG = re.compile(rf"</?(?:{TAGS})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_BOLD = re.compile(r"(\*\*|(?<!\w)__(?=\w))(\w[^*_\n]{0,80}?)\1(?!\w)")
_HEADING = re.compile(r"^[ \t]*#{1,6} (?=\w)", re.MULTILINE)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}\d?|#\d{1,6}|#[xX][0-9a-fA-F]{1,5});")


def clean_pair(pair: Pair) -> Pair:
    """Return a pair with cleaned texts."""
    return pair._replace(prompt=clean(pair.prompt), chosen=clean(pair.chosen), rejected=clean(pair.rejected))


def clean(text: str) -> str:
    """Return a text without what can be taken out safely; a text that has nothing of it stays as it is."""
    text = _MISREAD.sub(_read_again, text)
    text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    text = _TAG.sub("", _BREAK.sub("\n", text))
    text = _BOLD.sub(r"\2", _HEADING.sub("", text))
    text = _BLANKS.sub(" ", _INVISIBLE.sub("", text))
    return mask_personal(unwrapped(text))


def _read_again(match: re.Match[str]) -> str:
    """Return a run of characters as UTF-8, if its bytes are that."""
    for encoding in ("cp1252", "latin-1"):
        try:
            return match[0].encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
    return match[0]
