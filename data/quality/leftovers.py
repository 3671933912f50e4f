# SPDX-License-Identifier: MIT
"""What pages, corpora and chats leave in a text: markup, web addresses, masks, placeholders, records, turns of a chat.

Each gate names what it found, or returns None.
"""

import re
from collections.abc import Callable

from data.quality.personal import KINDS, MASK

Gate = Callable[[str], str | None]
_MASKS = [MASK.format(kind) for kind in (*KINDS, "name", "link")]


def pattern_gate(name: str, pattern: str, flags: re.RegexFlag = re.IGNORECASE) -> Gate:
    """Return a gate that finds a pattern, whose apostrophes are straight; ours for removed data are not looked at."""
    compiled = re.compile(pattern, flags)

    def gate(text: str) -> str | None:
        for mask in _MASKS if "removed]" in text else ():
            text = text.replace(mask, "…")
        match = compiled.search(text.replace("’", "'"))
        return f"{name}: {match[0][:60]!r}" if match else None

    return gate


# Tags that end a line, and all of them
BREAKS = "article|blockquote|br|div|footer|form|h[1-6]|header|hr|li|ol|p|section|table|tr|ul"
TAGS = (
    "a|abbr|article|aside|b|big|blockquote|body|br|button|center|cite|code|del|div|em|embed|figure|font|footer|form"
    "|h[1-6]"
    "|head|header|hr|html|i|iframe|img|input|ins|label|li|link|main|mark|meta|nav|ol|option|p|pre|q|s|script|section"
    "|select|small|source|span|strike|strong|style|sub|sup|svg|table|tbody|td|tfoot|th|thead|title|tr|tt|u|ul|video"
)
# Markup of a page or of an editor; "&" with a name is an entity with or without its semicolon
markup = pattern_gate(
    "markup",
    rf"</?(?:{TAGS})(?:\s[^<>]*)?/?>|<!--|-->|<!doctype|<!\[CDATA|&lt;|&(?:[a-z]{{2,8}}\d?|#\d{{1,6}}"
    rf"|#x[0-9a-f]{{1,5}});|&(?:nbsp|amp|quot|apos|lt|gt|rsquo|lsquo|ldquo|rdquo|mdash|ndash|hellip)\b|\[/?(?:b|i|u|s"
    rf"|url|img|quote|code|color|size|list|center|font|spoiler)(?:=[^\]]*)?\]|\b(?:class|style|href|src|target|rel"
    rf"|onclick)=[\"'][^\"']*[\"']|\\u[0-9a-f]{{4}}|\\x[0-9a-f]{{2}}|\\[nrt](?![a-z])"
    # of Markdown: a fence, the line under a table's head, a row of one, a heading, bold, an image or a rule
    r"|`{3}|\|\s?:?-{3,}|(?:^|\n)\s*\|.*\|\s*(?:\n|$)|(?:^|\n|[.!?] )#{1,6} (?=[A-Z])|\*\*\w[^*\n]{0,80}\*\*"
    r"|(?<!\w)__\w[^_\n]{0,80}__(?!\w)|!\[[^\]\n]*\]\(|(?:^|\n)(?:-{3,}|\*{3,}|={3,})\s*(?:\n|$)"
    rf"|(?<=[.!?,;:])\\n|\{{\{{|\}}\}}|\[\[|\]\]|<ref\b|'''",
)
_DOMAINS = (
    "com|org|net|edu|gov|mil|int|info|biz|co|io|uk|us|ca|de|fr|eu|au|nz|ie|nl|ch|se|dk|fi|es|pt|pl|cz|jp|cn|in|br|ru"
    "|news|tv|app|dev|blog|online|site|ly|gg|xyz|club|shop|store|press|media|page|example|test|invalid|local"
)
_ENDING = f"(?:{_DOMAINS.replace('|in|', '|')})"
web_address = pattern_gate(
    "web address",
    r"\b(?:h(?:tt|xx)ps?|ftp)\s?:\s?/\s?/|\bwww\s?\.\s?\w"
    rf"|(?<![\w@.-])(?:[a-z0-9][a-z0-9-]*\.)+(?-i:{_ENDING})(?![\w-]|\.\w)(?:/\S*)?"
    rf"|(?<![\w@.-])(?:[a-z0-9][a-z0-9-]*\.)+[a-z]{{2,}}/\w"
    rf"|\w\s?[\[({{]\s*(?:dot|\.)\s*[\])}}]\s?\w|\b\w+ dot (?:com|org|net|edu|gov|co|info|io)\b"
    r"|\b(?-i:URL)\b|\[link\]|\]\(\S+\)|\bdoi:\s?\d|\b\w+\.(?:html?|php|aspx?)\b",
)
# How corpora mask what they removed: a word in capitals that names a kind, or such a word in brackets
_MASKED = (
    "USER|USERNAME|SUBREDDIT|HASHTAG|MENTION|NUMBER|NUM|DIGIT|EMAIL|E-MAIL|PHONE|PHONE_NUMBER|PERSON|PER|NAME"
    "|FIRSTNAME|LASTNAME|FIRST_NAME|LAST_NAME|LOCATION|LOC|ORG|ORGANI[SZ]ATION|GPE|DATE|TIME|ADDRESS|REDACTED"
    "|ANONYMI[SZ]ED"
    "|MASK|MASKED|UNK|EMOJI|IMAGE|IMG|VIDEO|QUOTE|PAD|EOS|BOS|SEP|CLS|TITLE|PARTY|CANDIDATE|CITY|STATE|COUNTRY|HANDLE"
    "|RETWEET|PLACEHOLDER|INSERT|TOPIC|ENTITY|SPEAKER|AUTHOR"
)
# A record of the source corpus, a mask of it, or a place that nobody filled is left in the text.
raw_record = pattern_gate(
    "raw record or placeholder",
    r"\{\s*['\"]\w+['\"]\s*:|['\"](?:text|body|title|subreddit|hashtags|index|prompt|chosen|rejected|score|author|id)['\"]\s*:"
    r"|(?:^|[{,]\s*)(?:text|subreddit|hashtags|index)\s*[:=]\s*['\"\d\[]"
    # square brackets with a capital or with a word that asks to be replaced; "[the law]" and "[sic]" are editors'
    r"|\[(?!the |an? |sic\b)(?:[^\]\n]{0,30}\b)?(?:your|insert|name|date|year|city|state|country|party|politician"
    r"|candidate|opponent|topic|issue|policy|link|url|website|company|organi[sz]ation|phone|e-?mail|address|image|photo"
    r"|video|placeholder|title|position|location|number|amount|example|statistic|source|reason|group"
    r"|user)\b[^\]\n]{0,40}\]|(?-i:\[(?!/?INST\b|SYS\b|URL\b)[^\]\n]{0,20}[A-Z_]{2,}[^\]\n]{0,20}\])"
    r"|(?-i:\[(?:[A-Z][a-z]+ )+[A-Z]?\w+\])"
    rf"|(?-i:(?<![A-Z] )\b(?:{_MASKED})(?:_?\d+)?\b(?! [A-Z]{{2}}))|(?-i:\b[A-Z]+_[A-Z0-9_]+\b)|<(?:{_MASKED}|your"
    rf"|insert)[^>]{{0,30}}>|<[a-z]+_[a-z0-9_]+>|\{{[^{{}}\n]{{1,40}}\}}|\[(?:deleted|removed|redacted)\]"
    r"|@@\w+@@|\[\s*\]|<(?!br>|hr>)[a-z][a-z ]{2,25}>|<<\s?[\w -]{2,30}\s?>>|«?\{\{?\s?[\w -]{2,30}\s?\}\}?"
    r"|(?-i:#[A-Z_]{4,}#|\*{2}[A-Z_]{4,}\*{2}|~[A-Z_]{4,}~)|</s>|<\|?/?(?:bos|eos|pad|unk)\|?>|\blorem ipsum\b"
    r"|(?-i:\b(?:XX+|TODO|TBD|TBA|FIXME|TK|XYZ)\b)|_{3,}|%\(?\w*\)?s\b|%[A-Z_]{3,}%|\$\{|\$[A-Z_]{3,}\b|\((?:insert"
    r"|your|add|fill in|name of|e\.g\. your)\b[^)\n]{1,50}\)|\b(?:insert|fill in|add|put|enter) (?:(?:your|the|an?"
    r"|some) )?(?:\w+ ){1,3}here\b|\bRT @|(?-i:^RT\b)",
)
_ROLES = (
    r"human|user|assistant|system|ai|bot|chat ?bot|gpt|chatgpt|model|llm|prompter|instructor|interviewer|interviewee"
    r"|moderator|host|speaker|person|questioner|respondent|customer|operator|client|agent|narrator|debater|participant"
    r"|opponent|proponent|commenter|redditor|op|student|teacher|reporter|caller|guest"
)
_HEADS = r"instructions?|response|input|output|prompt|question|answer|completion|context|assistant|user|human|system"
# Turns of a chat, as a label of who speaks (also in mid-text) or as a template's marks
chat_turn = pattern_gate(
    "turn of a chat",
    rf"(?:^|[\n\r]|[.!?…\"')*\]] ?)\W{{0,4}}(?:the )?(?:{_ROLES})(?: ?[a-d1-4])?(?: says| said"
    rf"| \([^)\n]*\))?\W{{0,3}}:(?=\W*\w)|(?:^|[\n\r]"
    rf"|[.!?…\"')] ?)\W{{0,4}}[\[<(](?:{_ROLES})(?: ?[a-d1-4])?[\])>]\s*:?"
    r"|(?:^|[\n\r]|[.!?…\"')] )\W{0,4}(?-i:Q|A)\d?\s?:\s"
    rf"|(?:^|\s)#{{1,4}}\s?(?:{_HEADS})\b|<\|[^|<>\n]{{1,40}}\|>|<\|?(?:im_start|im_end|eot|start_of_turn"
    rf"|end_of_turn)\b|\[/?INST\]|<</?SYS>>|</?(?:think|thinking|user|assistant|human|system|answer|response)>|(?:^"
    rf"|[\n\r]|[.!?…\"')] )(?-i:(?:USER|ASSISTANT|HUMAN|SYSTEM|BOT|AI))\s?[>:|-]",
)
