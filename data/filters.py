# SPDX-License-Identifier: MIT
"""Gates for single rows: a gate looks at one text (or one pair of answers) and gives a reason or None.

The patterns were written against the published PoliTune rows and TwinViews; they look for what large models
leave behind when they write preference data, in English.
"""

import re
from collections.abc import Callable, Sequence

LENGTH_RATIO = (0.67, 1.5)

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+(?:[.,]\d+)*")

_REFUSAL = re.compile(
    r"^\W*(?:(?:I'm|I am) sorry|I apologi[sz]e),? but (?:as|I (?:can|am|won't|will not|do not|don't feel))"
    r"|^\W*I (?:cannot|can't|can not|could not|am (?:un|not )able to|won't|will not) (?:\w+ )?"
    r"(?:answer|assist|comply|create|discuss|downplay|endorse|engage|express|fulfil+|generate|help|make|"
    r"offer|produce|promote|provide|respond|satisfy|share|write)\b"
    r"|\bI can(?:'t|not) (?:fulfil+|generate|create) (?:an? |any )?"
    r"(?:requests?|content|instructions?|response)"
    r"|\b(?:can I (?:help|assist) you with|is there (?:some|any)thing else I can (?:help|assist))\b"
    r"|\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(
    r"^\W*here(?:['’]s| is| are)\b[^.!?\n]{0,200}:"
    r"|^\W*here(?:['’]s| is| are) (?:an?|the|my|some|one|\d+) (?:[\w-]+ ){0,3}"
    r"(?:answers?|approach|alternative|argument|examples?|explanation|instructions?|list|message|plan|post|"
    r"rebuttal|reply|responses?|rewrite|solution|speech|statement|strategy|summary|tweet|versions?|way)\b"
    r"|^\W*(?:sure|certainly|absolutely|of course|okay|great question)\s*[,!:.]"
    r"|^\W*(?:I'd|I would|I'll) be (?:happy|glad|delighted) to "
    r"(?:assist|discuss|explain|help|provide|share)\b"
    r"|^\W*(?:(?:alternative|revised|rewritten|possible|sample) )?(?:response|answer|instruction|output):",
    re.IGNORECASE,
)
# A bare URL in capitals is how the Politosphere corpus masks links.
_RAW_RECORD = re.compile(
    r"\{\s*['\"]\w+['\"]\s*:|['\"](?:text|subreddit|hashtags|index|prompt|chosen|rejected)['\"]\s*:"
    r"|\[(?:your|insert|name|date|city|state|country|party|politician|candidate|topic|link|url)\b[^\]]{0,40}\]"
    r"|<(?:name|insert|your|url|user)[^>]{0,30}>|\{\w+\}|(?-i:\bURL\b)|\[(?:deleted|removed)\]",
    re.IGNORECASE,
)
_UNSEEN_POST = re.compile(
    r"\b(?:this|the|these|those|following|above|your|provided) "
    r"(?:(?:given|provided|original|quoted|above|following|shared|preceding) )?"
    r"(?:posts?(?!['’]s)|tweets?|comments?|quotes?(?! [\"“'])|"
    r"articles?|videos?|messages?|passages?(?! of)|excerpts?|submissions?|threads?|memes?|headlines?|"
    r"hashtags?(?! [#\"“']))\b"
    r"|\b(?:this|(?:of|behind|in|to) the|your|given|provided|above|following|preceding) (?:statement|text)\b"
    r"|\b(?:mentioned|described|referred to|stated) (?:above|earlier|in the (?:post|tweet|text))\b",
    re.IGNORECASE,
)
_FINISHED = re.compile(r"[.!?…][\"'”’)\]*_]*\s*$")
_SIDE = re.compile(
    r"\b(?:left|right|far|alt)-(?:wing\w*|left|right|leaning)\b"
    r"|\bthe (?:political |far |radical )?(?:left|right)\b(?! to\b| of\b|-)"
    r"|\b(?:conservativ|libertarian|socialis|communis|marxis|fascis|leftis|rightis|republican|populis)\w*"
    r"|\b(?:liberals?|liberalism|progressives?(?! tax)|capitalis[tm]s?|democrats?|(?-i:Democratic))\b"
    r"|\b(?:tory|tories|gop|maga|woke|antifa|dems?|(?:labour|green) party)\b",
    re.IGNORECASE,
)
_ORDER = re.compile(
    r"(?:^\W*|[.;:!?,] |\b(?:and|or|(?<!free )to|by|then|you|please) )(?:strongly |openly |publicly )?"
    r"(?:advocat|applaud|argu|celebrat|challeng|condemn|counter|critici[sz]|critiqu|debunk|defend|denounc|"
    r"dispel|encourag|endors|expos|justif|mock|oppos|prais|promot|refut|reject|ridicul|support|urg)(?:e|es|y|ing)?\b"
    r"|\b(?:express|share|show|voice) (?:your |a )?(?:admiration|anger|concerns?|condemnation|disagreement|"
    r"disapproval|disappointment|disgust|enthusiasm|frustrations?|gratitude|"
    r"opposition|outrage|pride|support)\b"
    r"|\b(?:persuade|convince)\b|\b(?:in favou?r|in support|in defen[cs]e|make (?:a|the) case)\b"
    r"|\b(?:why|how|that)\b[^?]{1,80}\b(?:is|are|was|were|would be) (?:not )?(?:\w+ )?"
    r"(?:wrong|right|good|bad|better|crucial|dangerous|essential|harmful|important|misguided|necessary|unfair|vital)\b"
    r"|\b(?:dangers?|hypocrisy|benefits|failures?|flaws|need) (?:of|for)\b",
    re.IGNORECASE,
)
# Full names where the surname alone is common. A compact list of those whom generated text names most.
_POLITICS = re.compile(
    r"\b(?:Trump|Biden|Obama|(?:Bill|Hillary) Clinton|(?:George|Jeb) (?:W\.? )?Bush|Kamala Harris|Pence|"
    r"DeSantis|Pelosi|McConnell|Bernie Sanders|Elizabeth Warren|Ocasio-Cortez|J\.?D\.? Vance|Newsom|Rubio|"
    r"Ted Cruz|Romney|Schumer|Putin|Zelensk\w+|Xi Jinping|Netanyahu|Modi|Macron|Le Pen|Merkel|Scholz|Merz|"
    r"Starmer|Sunak|Boris Johnson|Tony Blair|Farage|Corbyn|Trudeau|Poilievre|Mark Carney|Meloni|Orb[aá]n|"
    r"Erdo[gğ]an|Lula|Bolsonaro|Milei|Pedro S[aá]nchez|Albanese|Ardern|GOP|MAGA|Tor(?:y|ies)|Democrats?|"
    r"Republicans?|AfD|BJP|Fidesz|Likud|Reform UK|National Rally|(?:[A-Z]\w+ )+Party|Liberal Democrats)\b"
)


def refusal(text: str) -> str | None:
    """Name the refusal of a model that stands where a prompt or an answer should."""
    return _found("refusal", _REFUSAL, text)


def preamble(text: str) -> str | None:
    """Name an opening that talks about the answer instead of giving it."""
    return _found("preamble", _PREAMBLE, text)


def raw_record(text: str) -> str | None:
    """Name a record of the source corpus, a masked link or a placeholder left in the text."""
    return _found("raw record or placeholder", _RAW_RECORD, text)


def names_politics(text: str) -> str | None:
    """Name a living politician or a party found in the text."""
    return _found("politician or party", _POLITICS, text)


def unfinished(text: str) -> str | None:
    """Say that a text does not end as a sentence, and how it ends."""
    return None if _FINISHED.search(text) else f"does not end as a sentence: ...{text[-20:]!r}"


def unseen_post(prompt: str) -> str | None:
    """Name a prompt's reference to a post, quote or article that the reader does not see."""
    return _found("refers to an unseen post", _UNSEEN_POST, prompt)


def not_neutral(prompt: str) -> str | None:
    """Name a side in a prompt, or words that order a stance."""
    return _found("names a side", _SIDE, prompt) or _found("orders a stance", _ORDER, prompt)


def words(text: str) -> list[str]:
    """Split into words; hyphens and apostrophes inside a word do not split it."""
    return _WORD.findall(text)


def length_mismatch(a: str, b: str, ratio: tuple[float, float] = LENGTH_RATIO) -> str | None:
    """Say that one answer is so much longer, in words, that length alone tells the two apart."""
    found = len(words(a)) / max(1, len(words(b)))
    return None if ratio[0] <= found <= ratio[1] else f"length ratio {found:.2f}, want {ratio[0]}..{ratio[1]}"


def wrong_size(text: str, n_words: tuple[int, int]) -> str | None:
    """Say that a text has fewer or more words than asked for."""
    found = len(words(text))
    return None if n_words[0] <= found <= n_words[1] else f"{found} words, want {n_words[0]}..{n_words[1]}"


TEXT_GATES: tuple[Callable[[str], str | None], ...] = (
    refusal,
    preamble,
    raw_record,
    names_politics,
    unfinished,
)
PROMPT_GATES: tuple[Callable[[str], str | None], ...] = (unseen_post, not_neutral)


def row_reasons(prompt: str, answers: Sequence[str], n_words: tuple[int, int] | None = None) -> list[str]:
    """List every reason for which a row fails; an empty list passes.

    Args:
        prompt: What both answers reply to.
        answers: The two answers, in any order.
        n_words: Fewest and most words of an answer; None does not ask.

    Returns:
        Reasons, each with the field and what was found in it.
    """
    reasons = [("prompt", gate(prompt)) for gate in TEXT_GATES + PROMPT_GATES]
    for number, answer in enumerate(answers, start=1):
        reasons += [(f"answer {number}", gate(answer)) for gate in TEXT_GATES]
        if n_words:
            reasons.append((f"answer {number}", wrong_size(answer, n_words)))
    reasons.append(("answers", length_mismatch(*answers)))
    return [f"{field}: {reason}" for field, reason in reasons if reason]


def _found(name: str, pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return f"{name}: {match[0][:60]!r}" if match else None
