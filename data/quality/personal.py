# SPDX-License-Identifier: MIT
"""Personal data in a text: e-mail addresses, handles and phone numbers, named by kind and masked."""

import re
from collections.abc import Iterable

MASK = "[{} removed]"  # no model writes it, so it differs from every placeholder that a model leaves
KINDS = ("e-mail", "handle", "phone")
_AT = r"(?:\s?[@＠]\s?|\s*[\[({<]\s*at\s*[\])}>]\s*)"
_DOT = r"(?:[.．]|\s*[\[({<]\s*(?:dot|\.)\s*[\])}>]\s*|\s+dot\s+)"
_EMAIL = re.compile(
    rf"(?<![\w.+@-])(?:mailto:)?[\w.+-]*\w{_AT}[\w-]+(?:{_DOT}[\w-]+)*{_DOT}[A-Za-z]{{2,}}\b"
    # written out, which only the brackets or the last "dot" tell from words
    r"|(?<![\w.+@-])[\w.+-]*\w\s*[\[({<]\s*at\s*[\])}>]\s*[\w-]+"
    rf"|(?<![\w.+@-])[\w.+-]*\w\s+at\s+[\w-]+(?:\s+dot\s+[\w-]+)*\s+dot\s+[A-Za-z]{{2,}}\b",
    re.IGNORECASE,
)
_PLATFORM = (
    "insta(?:gram)?|ig|fb|facebook|snap(?:chat)?|tiktok|telegram|tg|twitter|threads|bluesky|bsky|mastodon|discord"
    "|twitch|reddit|wechat|kik|skype|youtube|yt|linkedin|tumblr|pinterest"
)
# @name, @name@server, Reddit's u/name, and a platform before a name that no word looks like; not the @ of an address,
# which is masked first
_HANDLE = re.compile(
    r"(?<![\w@＠./])[@＠]\w{2,30}(?:@[\w-]+(?:\.[\w-]+)+)?|(?<![\w.])/?\bu/[\w-]{3,20}"
    rf"|\b(?:{_PLATFORM})(?: (?:user|handle|name|id|account))?\s?[:/]\s?@?"
    r"(?=[\w.-]*[\d_.]\w)(?=[\w.-]*[a-z])[\w.-]{3,30}\b"
    r"|(?<![\w/.<|{$%\[(])(?-i:[a-z][a-z0-9]*(?:_[a-z0-9]+)+)\b(?!\.\w)|\b[\w.]{2,30}#\d{4}\b"
    rf"|\b(?:on|via) (?:{_PLATFORM})(?: as| under|,)? (?=[\w.-]*[\d_.]\w)(?=[\w.-]*[a-z])[\w.-]{{3,30}}\b"
    r"|\b(?:(?:user ?name|screen name|gamertag)(?: is)?\s?:?|handle(?: is|\s?:))\s?(?=[\w.-]*[\d_.]\w)"
    r"(?=[\w.-]*[a-z])[\w.-]{3,30}\b",
    re.IGNORECASE,
)
_SEPARATOR = r"[ .\-/\u00a0\u2010-\u2015]"
_NUMBER = re.compile(
    rf"(?<![\w.,])(?!\d{{4}}-\d\d-\d\d)(?:\+\d{{1,3}}{_SEPARATOR}?)?(?:\(\d{{1,4}}\){_SEPARATOR}?)?\d+"
    rf"(?:{_SEPARATOR}?\(\d{{1,4}}\))?(?:{_SEPARATOR}\d{{2,}})*(?!\w)"
)
_YEAR = re.compile(r"(?:19|20)\d\d")
# Words before a number that say it is one to call; a short number counts only then.
_CALL = re.compile(
    r"\b(?:call|dial|fax|hotline|mobile|cell|phone|phoned?|ring|sms|tel|telephone|text(?: me)?|whatsapp|reach (?:me"
    r"|us))\b[^\n.!?]{0,25}$",
    re.IGNORECASE,
)


def mask_personal(text: str, names: Iterable[str] = ()) -> str:
    """Put ``[e-mail removed]``, or handle, phone or name, where personal data stood; of names only the given ones."""
    text = _HANDLE.sub(MASK.format("handle"), _EMAIL.sub(MASK.format("e-mail"), text))
    text = _NUMBER.sub(lambda match: MASK.format("phone") if _is_phone(match) else match[0], text)
    for name in sorted({name.strip() for name in names if len(name.strip()) > 2}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", MASK.format("name"), text, flags=re.IGNORECASE)
    return text


def personal_data(text: str) -> str | None:
    """Name the kinds of personal data that a text holds, without repeating them."""
    masked = mask_personal(text)
    masks = {kind: MASK.format(kind) for kind in KINDS}
    kinds = [kind for kind, mask in masks.items() if masked.count(mask) > text.count(mask)]
    return f"personal data: {', '.join(kinds)}" if kinds else None


def _is_phone(match: re.Match[str]) -> bool:
    """Tell a phone number from years and other figures.

    It has 10 to 15 digits, or 8 with a country's code, or 7 after a word that says so or in the form 555-0123.
    """
    groups = re.findall(r"\d+", match[0])
    n_digits = sum(map(len, groups))
    if n_digits > 15 or all(_YEAR.fullmatch(group) for group in groups):
        return False
    if n_digits >= 10 or (match[0].startswith("+") and n_digits >= 8) or match[0].startswith("555-"):
        return n_digits >= 7
    return n_digits >= 7 and bool(_CALL.search(match.string[: match.start()]))
