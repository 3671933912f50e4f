# SPDX-License-Identifier: MIT
"""Gates for single texts: each names what it found, or returns None. Personal data is also masked here.

The patterns say what large models leave behind when they write English. They were written against the published
PoliTune rows and TwinViews. Their apostrophes are straight: the gates straighten those of a text.
"""

import re
from collections.abc import Callable, Iterable

from data.language import words

Gate = Callable[[str], str | None]


def _gate(name: str, pattern: str, flags: re.RegexFlag = re.IGNORECASE) -> Gate:
    """Return a gate that finds a pattern."""
    compiled = re.compile(pattern, flags)

    def gate(text: str) -> str | None:
        match = compiled.search(text.replace("’", "'"))
        return f"{name}: {match[0][:60]!r}" if match else None

    return gate


# A model's refusal stands where a prompt or an answer should.
refusal = _gate(
    "refusal",
    r"^\W*(?:(?:I'm|I am) )?(?:(?:really |so |very )?sorry|I apologi[sz]e)\b[^.!?\n]{0,40}?\bI(?:'m| am| can| won't"
    r"| will not| do not| don't feel)"
    r"|^\W*(?:(?:unfortunately|regrettably),? |(?:I'm|I am) afraid (?:that )?)?I(?:'m| am)? ?(?:cannot|can't|can not"
    r"|could not|unable to|not able to|won't be able to|won't|will not|refuse to) (?:\w+ "
    r"|in good conscience ){0,2}?(?:answer|assist|complete|comply|create|discuss|downplay|endorse|engage|express"
    r"|fulfil+|generate|help(?! but)|make (?:a|any|such|that|this)|offer|produce|promote|provide|respond|satisfy|share"
    r"|take (?:a |any )?(?:sides?|stance)|write|give (?:an|my|any) opinion|do (?:that|this|so)\b|agree to (?:this|that"
    r"|your) request|(?:support|condone|promote)(?: or \w+)? (?:such|hateful|violen|violence|discriminat|harmful))"
    r"|\bI can(?:'t|not) (?:fulfil+|generate|create) (?:an? |any )?(?:requests?|content|instructions?|response)"
    r"|^\W*I (?:must|have to|need to) (?:respectfully )?(?:decline|refuse)\b"
    r"|\b(?:I(?:'m| am) not|I don't feel|I do not feel) comfortable (?:with )?(?:answering|creating|discussing"
    r"|generating|producing|providing|sharing|writing)\b|\b(?:not|in)(?: be)? ?appropriate for me to\b"
    r"|\bI (?:do not|don't) have (?:any )?personal (?:beliefs|opinions|views)\b"
    r"|\b(?:against|by|violates?|within) my (?:guidelines|programming)\b"
    r"|\bmy (?:guidelines|programming) (?:do|pre|pro)"
    r"|\bI(?:'m| am) (?:just |only |merely )?(?:an? (?:AI|artificial intelligence|virtual assistant|chatbot"
    r"|(?:large )?language model)|programmed to)\b"
    r"|\b(?:can I (?:help|assist) you with|is there (?:some|any)thing else I can (?:help|assist))\b"
    r"|\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b",
)
_ABOUT_TEXT = (
    r"(?:answers?|approach|alternative|argument|examples?|explanation|instructions?|list|message|plan|post|rebuttal"
    r"|reply|responses?|rewrite|solution|speech|statement|strategy|summary|tweet|versions?|way)\b"
)
# The opening talks about the answer instead of giving it.
preamble = _gate(
    "preamble",
    rf"^\W*(?:(?:as requested|alright|all right|well|okay|in response to [^,.:\n]{{0,60}}|to (?:address|answer"
    rf"|respond to) [^,.:\n]{{0,60}}),? )?here(?:'s| is| are)\b[^.!?\n]{{0,200}}:"
    rf"|^\W*(?:(?:as requested|alright|okay|in response to [^,.:\n]{{0,60}}),? )?here(?:'s| is| are) (?:an?|the|my|some"
    rf"|one|\d+) (?:[\w-]+ ){{0,3}}{_ABOUT_TEXT}"
    rf"|^\W*(?:below|the following) (?:is|are) (?:an?|the|my|some) (?:[\w-]+ ){{0,3}}{_ABOUT_TEXT}"
    rf"|^\W*this is an? (?:[\w-]+ ){{0,2}}(?:answer|rebuttal|reply|response|rewrite|tweet) (?:from|that|to|which"
    rf"|with)\b"
    rf"|^\W*let me (?:draft|give|offer|provide|rephrase|write) (?:you )?(?:an?|my|the"
    rf"|some) (?:[\w-]+ ){{0,2}}{_ABOUT_TEXT}"
    rf"|^\W*(?:sure|certainly|absolutely|of course|okay|great question|good question)\s*[,!:.]|^\W*sure thing\b"
    rf"|^\W*that(?:'s| is) an? (?:\w+ )?question\b"
    rf"|^\W*thank(?:s| you) for (?:asking|(?:the|this|your) (?:instruction|message|prompt|question|request))\b"
    rf"|^\W*(?:I'd|I would|I'll) be (?:happy|glad|delighted) to (?:assist|discuss|explain|help|provide|share)\b"
    rf"|^\W*(?:as an? [\w-]+(?: [\w-]+)?, )?I(?:'d| would) (?:answer|reply|respond) as follows\b"
    rf"|^\W*(?:(?:alternative|revised|rewritten|possible|sample|chosen|rejected|preferred|final|my) )?(?:response"
    rf"|answer|instruction|output|reply|chosen|rejected|assistant|(?:rewritten |revised )text)\W{{0,3}}:",
)
# A record of the source corpus is left in the text. A bare URL in capitals is how the Politosphere corpus masks links.
raw_record = _gate(
    "raw record or placeholder",
    r"\{\s*['\"]\w+['\"]\s*:|['\"](?:text|subreddit|hashtags|index|prompt|chosen|rejected)['\"]\s*:"
    r"|(?:^|[{,]\s*)(?:text|subreddit|hashtags|index)\s*[:=]\s*['\"\d\[]"
    r"|\[(?!the |an? |sic\b|(?:e-mail|handle|phone|name) removed\])(?:[^\]\n]{0,30}\b)?(?:your|insert|name|date|year"
    r"|city|state|country|party|politician|candidate|opponent|topic|issue|policy|link|url|website|company"
    r"|organi[sz]ation|phone|e-?mail|address|image|photo|video|placeholder|title|position|location)\b[^\]\n]{0,40}\]"
    r"|<(?:name|insert|your|url|user)[^>]{0,30}>|\{\w+\}|(?-i:\bURL\b)|\[(?:deleted|removed|link)\]|<\|\w+\|>"
    r"|\[/?INST\]|</?s>|<<SYS>>|https?://|\blorem ipsum\b|(?-i:\b(?:XXX+|TODO|TBD)\b)",
)
# A prompt's reader does not see what it refers to.
unseen_post = _gate(
    "refers to an unseen post",
    r"\b(?:this|the|these|those|following|above|your|provided) (?:(?:given|provided|original|quoted|above|following"
    r"|shared|preceding|linked|attached|embedded) )?(?:posts?(?!'s)|tweets?|comments?|quotes?(?! [\"“'])|captions?"
    r"|screenshots?|clips?|(?:image|photo|picture)s?(?! of)|articles?|videos?|messages?|passages?(?! of)|excerpts?"
    r"|submissions?|threads?|memes?|headlines?|hashtags?(?! [#\"“']))\b"
    r"|\b(?:this|(?:of|behind|in|to) the|your|given|provided|above|following|preceding) (?:statement|text)\b"
    r"|\b(?:statement|text|question|claim)s? (?:above|below|made by the)\b|\bthe original poster\b|(?-i:\bOP\b)"
    r"|\b(?:does|is|did) the (?:author|writer|poster|commenter|(?-i:speaker)) (?:arguing|claim|criticiz|making|mean"
    r"|saying|think)"
    r"|\bthe (?:author|writer|poster|commenter|user|(?-i:speaker))'s (?:\w+ )?(?:arguments?|claims?|intent|message"
    r"|opinion|perspective|point|position|post|statement|tone|view)"
    r"|\b(?:reply|respond) to (?:this|him|her|them|this (?:person|user)|the user)\W*$"
    r"|\byou (?:made|mentioned|said|wrote) earlier\b"
    r"|\b(?:mentioned|described|referred to|stated) (?:above|earlier|in the (?:post|tweet|text))\b",
)
_FINISHED = re.compile(r"[.!?…。！？؟।][\"'”’)\]*_]*\s*$")
_side = _gate(
    "names a side",
    r"\b(?:left|right|far|alt)-(?:wing\w*|left|right|leaning)\b"
    r"|\bthe (?:political |far |radical )?(?:left|right)\b(?! to\b| of\b|-)"
    r"|\b(?:conservativ|libertarian|socialis|communis|marxis|fascis|leftis|rightis|republican|populis)\w*"
    r"|\b(?:liberals?|liberalism|progressives?(?! tax)|capitalis[tm]s?|democrats?|(?-i:Democratic))\b"
    r"|\b(?:tory|tories|gop|maga|woke|antifa|dems?|(?:labour|green) party)\b",
)
# The last alternatives are words that presuppose the verdict.
_order = _gate(
    "orders a stance",
    r"(?:^\W*|[.;:!?,] |\b(?:and|or|(?<!free )to|by|then|you|please) )(?:strongly |openly |publicly )?(?:advocat"
    r"|applaud|argu|celebrat|challeng|condemn|counter|critici[sz]|critiqu|debunk|defend|denounc|dispel|encourag|endors"
    r"|expos|justif|mock|oppos|prais|promot|refut|reject|ridicul|support|urg)(?:e|es|y|ing)?\b"
    r"|\b(?:express|share|show|voice) (?:your |a )?(?:(?!no\b)\w+ )?(?:admiration|anger|concerns?|condemnation"
    r"|disagreement|disapproval|disappointment|disgust|enthusiasm|frustrations?|gratitude|opposition|outrage|pride"
    r"|support)\b|\b(?:persuade|convince)\b|\b(?:in favou?r|in support|in defen[cs]e|make (?:a|the) case)\b"
    r"|\b(?:why|how|that)\b[^?]{1,80}\b(?:is|are|was|were|would be) (?:not )?(?:\w+ )?(?:wrong|right|good|bad|better"
    r"|crucial|dangerous|essential|harmful|important|misguided|necessary|unfair|vital)\b"
    r"|\b(?:dangers?|hypocrisy|benefits|failures?|flaws|need) (?:of|for)\b"
    r"|\b(?:argument|case|essay|letter|post|speech|statement|tweet) (?:criticizing|defending|opposing|promoting"
    r"|supporting)\b|\btake (?:the side|a stand|a position (?:for|against))\b|\bspeak (?:out |up )?against\b"
    r"|^\W*why (?:must|should)\b|\b(?:tell|show) (?:me|us|them|people|everyone) (?:how|that|why)\b"
    r"|\b(?:why|how)\b[^?]{1,60}\b(?:can|did|do|does|will|would) not\b"
    r"|\b(?:misconceptions?|hypocri\w+|irony|double standards?)\b"
    r"|\b(?:address|correct|clarify) \w+ (?:\w+ )?(?:misinformation|myths?)\b"
    r"|\b(?:devastating|disastrous|harmful|dire) (?:\w+ )?(?:consequences|effects|impacts?)\b",
)
# Full names where the surname alone is common. A compact list of those whom generated text names most.
names_politics = _gate(
    "politician or party",
    r"\b(?:Trump|Biden|Obama|(?:Bill|Hillary) Clinton|(?:George|Jeb) (?:W\.? )?Bush|Kamala Harris|Pence|DeSantis"
    r"|Pelosi|McConnell|Bernie Sanders|Elizabeth Warren|Ocasio-Cortez|J\.?D\.? Vance|Newsom|Rubio|Ted Cruz|Romney"
    r"|Schumer|Putin|Zelensk\w+|Xi Jinping|Netanyahu|Modi|Macron|Le Pen|Merkel|Scholz|Merz|Starmer|Sunak|Boris Johnson"
    r"|Tony Blair|Farage|Corbyn|Trudeau|Poilievre|Mark Carney|Meloni|Orb[aá]n|Erdo[gğ]an|Lula|Bolsonaro|Milei"
    r"|Pedro S[aá]nchez|Albanese|Ardern|GOP|MAGA|Tor(?:y|ies)|Democrats?|Republicans?|AfD|BJP|Fidesz|Likud|Reform UK"
    r"|National Rally|(?:[A-Z]\w+ )+Party|Liberal Democrats)\b",
    re.NOFLAG,
)

_EMAIL = re.compile(r"(?<![\w.+@-])[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}")
# @name, @name@server and Reddit's u/name; not the @ of an address, which is masked first
_HANDLE = re.compile(r"(?<![\w@./])@\w{2,30}(?:@[\w-]+(?:\.[\w-]+)+)?|(?<![\w.])/?\bu/[\w-]{3,20}")
_NUMBER = re.compile(
    r"(?<![\w.,])(?!\d{4}-\d\d-\d\d)(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ .-]?)?\d{2,}(?:[ .-]\d{2,})*(?!\w)"
)
_YEAR = re.compile(r"(?:19|20)\d\d")
MASK = "[{} removed]"  # no model writes it, so it differs from every placeholder that a model leaves
LENGTH_RATIO = (0.67, 1.5)


def not_neutral(prompt: str) -> str | None:
    """Name a side in a prompt, or words that order a stance."""
    return _side(prompt) or _order(prompt)


def unfinished(text: str) -> str | None:
    """Say that a text does not end as a sentence, and how it ends."""
    return None if _FINISHED.search(text) else f"does not end as a sentence: ...{text[-20:]!r}"


def length_mismatch(a: str, b: str, limits: tuple[float, float] = LENGTH_RATIO) -> str | None:
    """Say that one answer has so many more words that length alone tells the two apart."""
    ratio = len(words(a)) / max(1, len(words(b)))
    return None if limits[0] <= ratio <= limits[1] else f"length ratio {ratio:.2f}, want {limits[0]}..{limits[1]}"


def wrong_size(text: str, n_words: tuple[int, int]) -> str | None:
    """Say that a text has fewer or more words than asked for."""
    n = len(words(text))
    return None if n_words[0] <= n <= n_words[1] else f"{n} words, want {n_words[0]}..{n_words[1]}"


TEXT_GATES = (refusal, preamble, raw_record, names_politics, unfinished)
PROMPT_GATES = (unseen_post, not_neutral)


def mask_personal(text: str, names: Iterable[str] = ()) -> str:
    """Put ``[e-mail removed]``, or handle, phone or name, where personal data stood; of names only the given ones."""
    text = _HANDLE.sub(MASK.format("handle"), _EMAIL.sub(MASK.format("e-mail"), text))
    text = _NUMBER.sub(lambda match: MASK.format("phone") if _is_phone(match[0]) else match[0], text)
    for name in sorted({name.strip() for name in names if len(name.strip()) > 2}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", MASK.format("name"), text, flags=re.IGNORECASE)
    return text


def personal_data(text: str) -> str | None:
    """Name the kinds of personal data that a text holds, without repeating them."""
    masked = mask_personal(text)
    masks = {kind: MASK.format(kind) for kind in ("e-mail", "handle", "phone")}
    kinds = [kind for kind, mask in masks.items() if masked.count(mask) > text.count(mask)]
    return f"personal data: {', '.join(kinds)}" if kinds else None


def _is_phone(text: str) -> bool:
    """Tell a phone number, of 10 to 15 digits or with a country's code, from years and other figures."""
    groups = re.findall(r"\d+", text)
    n_digits = sum(map(len, groups))
    if all(_YEAR.fullmatch(group) for group in groups):
        return False
    return 10 <= n_digits <= 15 or (text.startswith("+") and 8 <= n_digits <= 15)
