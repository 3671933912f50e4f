# SPDX-License-Identifier: MIT
"""Personal data in a text: found and masked before anything is stored.

E-mail addresses, handles and phone numbers have a form that can be read. Names have none: only those that the record
itself gives as its author are masked; what a name-tagging model would find beyond that is not looked for.
"""

import re
from collections.abc import Iterable

_EMAIL = re.compile(r"(?<![\w.+@-])[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}")
# @name, @name@server and Reddit's u/name; not the @ of an address, which is masked first
_HANDLE = re.compile(r"(?<![\w@./])@\w{2,30}(?:@[\w-]+(?:\.[\w-]+)+)?|(?<![\w.])/?\bu/[\w-]{3,20}")
_NUMBER = re.compile(
    r"(?<![\w.,])(?!\d{4}-\d\d-\d\d)(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ .-]?)?\d{2,}(?:[ .-]\d{2,})*(?!\w)"
)
MASK = "[{} removed]"  # no model writes it, so it is told from a placeholder left by one
_YEAR = re.compile(r"(?:19|20)\d\d")


def mask_personal(text: str, names: Iterable[str] = ()) -> str:
    """Put ``[e-mail removed]``, or the same with handle, phone or name, where personal data stood.

    Args:
        text: A post or an answer.
        names: What its record calls its author; masked wherever it stands as a whole word.
    """
    text = _HANDLE.sub(MASK.format("handle"), _EMAIL.sub(MASK.format("e-mail"), text))
    text = _NUMBER.sub(lambda match: MASK.format("phone") if _is_phone(match[0]) else match[0], text)
    for name in sorted({name.strip() for name in names if len(name.strip()) > 2}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", MASK.format("name"), text, flags=re.IGNORECASE)
    return text


def personal_data(text: str) -> str | None:
    """Name the kind of personal data that a text holds, without repeating it."""
    masked = mask_personal(text)
    kinds = [
        kind
        for kind in ("e-mail", "handle", "phone")
        if masked.count(MASK.format(kind)) > text.count(MASK.format(kind))
    ]
    return f"personal data: {', '.join(kinds)}" if kinds else None


def _is_phone(found: str) -> bool:
    """Tell a phone number, of 10 to 15 digits or with a country's code, from years and other figures."""
    groups = re.findall(r"\d+", found)
    n_digits = sum(map(len, groups))
    if all(_YEAR.fullmatch(group) for group in groups):
        return False
    return 10 <= n_digits <= 15 or (found.startswith("+") and 8 <= n_digits <= 15)
