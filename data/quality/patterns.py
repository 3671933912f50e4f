# SPDX-License-Identifier: MIT
"""The patterns of the gates in ``data/quality/phrases.py``: what large models leave behind when they write, in English.

Written against the published PoliTune rows and TwinViews. Apostrophes are straight: the gates straighten a text's.
"""

import re

REFUSAL = re.compile(
    r"^\W*(?:(?:I'm|I am) )?(?:(?:really |so |very )?sorry|I apologi[sz]e)\b[^.!?\n]{0,40}?\bI(?:'m| am| can"
    r"| won't| will not| do not|"
    r" don't feel)"
    r"|^\W*(?:(?:unfortunately|regrettably),? |(?:I'm|I am) afraid (?:that )?)?"
    r"I(?:'m| am)? ?(?:cannot|can't|can not|could not|unable to|not able to|won't be able to|won't|will not|refuse to) "
    r"(?:\w+ |in good conscience ){0,2}?(?:answer|assist|complete|comply|create|discuss|downplay|endorse|engage"
    r"|express|"
    r"fulfil+|generate|help(?! but)|make (?:a|any|such|that|this)|offer|produce|promote|provide|respond|satisfy"
    r"|share|take (?:a |any )?(?:sides?|stance)|"
    r"write|give (?:an|my|any) opinion|do (?:that|this|so)\b|agree to (?:this|that|your) request|"
    r"(?:support|condone|promote)(?: or \w+)? (?:such|hateful|violen|violence|discriminat|harmful))"
    r"|\bI can(?:'t|not) (?:fulfil+|generate|create) (?:an? |any )?(?:requests?|content|instructions?|response)"
    r"|^\W*I (?:must|have to|need to) (?:respectfully )?(?:decline|refuse)\b"
    r"|\b(?:I(?:'m| am) not|I don't feel|I do not feel) comfortable (?:with )?(?:answering|creating|discussing"
    r"|generating|"
    r"producing|providing|sharing|writing)\b"
    r"|\b(?:not|in)(?: be)? ?appropriate for me to\b|\bI (?:do not|don't) have (?:any )?personal (?:beliefs"
    r"|opinions|views)\b"
    r"|\b(?:against|by|violates?|within) my (?:guidelines|programming)\b|\bmy (?:guidelines|programming) (?:do|pre|pro)"
    r"|\bI(?:'m| am) (?:just |only |merely )?(?:an? (?:AI|artificial intelligence|virtual assistant|chatbot|(?:large )?"
    r"language model)|programmed to)\b"
    r"|\b(?:can I (?:help|assist) you with|is there (?:some|any)thing else I can (?:help|assist))\b"
    r"|\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b",
    re.IGNORECASE,
)
_ABOUT_TEXT = (
    r"(?:answers?|approach|alternative|argument|examples?|explanation|instructions?|list|message|plan|post|rebuttal|"
    r"reply|responses?|rewrite|solution|speech|statement|strategy|summary|tweet|versions?|way)\b"
)
PREAMBLE = re.compile(
    r"^\W*(?:(?:as requested|alright|all right|well|okay|in response to [^,.:\n]{0,60}|"
    r"to (?:address|answer|respond to) [^,.:\n]{0,60}),? )?here(?:'s| is| are)\b[^.!?\n]{0,200}:"
    r"|^\W*(?:(?:as requested|alright|okay|in response to [^,.:\n]{0,60}),? )?"
    rf"here(?:'s| is| are) (?:an?|the|my|some|one|\d+) (?:[\w-]+ ){{0,3}}{_ABOUT_TEXT}"
    r"|^\W*(?:below|the following) (?:is|are) (?:an?|the|my|some) (?:[\w-]+ ){0,3}"
    + _ABOUT_TEXT
    + r"|^\W*this is an? (?:[\w-]+ ){0,2}(?:answer|rebuttal|reply|response|rewrite|tweet) (?:from|that|to|which|with)\b"
    r"|^\W*let me (?:draft|give|offer|provide|rephrase|write) (?:you )?(?:an?|my|the|some) (?:[\w-]+ ){0,2}"
    + _ABOUT_TEXT
    + r"|^\W*(?:sure|certainly|absolutely|of course|okay|great question|good question)\s*[,!:.]|^\W*sure thing\b"
    r"|^\W*that(?:'s| is) an? (?:\w+ )?question\b|^\W*thank(?:s| you) for (?:asking|(?:the|this|your) (?:instruction|"
    r"message|prompt|question|request))\b"
    r"|^\W*(?:I'd|I would|I'll) be (?:happy|glad|delighted) to (?:assist|discuss|explain|help|provide|share)\b"
    r"|^\W*(?:as an? [\w-]+(?: [\w-]+)?, )?I(?:'d| would) (?:answer|reply|respond) as follows\b"
    r"|^\W*(?:(?:alternative|revised|rewritten|possible|sample|chosen|rejected|preferred|final|my) )?"
    r"(?:response|answer|instruction|output|reply|chosen|rejected|assistant|(?:rewritten |revised )text)\W{0,3}:",
    re.IGNORECASE,
)
# A bare URL in capitals is how the Politosphere corpus masks links.
RAW_RECORD = re.compile(
    r"\{\s*['\"]\w+['\"]\s*:|['\"](?:text|subreddit|hashtags|index|prompt|chosen|rejected)['\"]\s*:"
    r"|(?:^|[{,]\s*)(?:text|subreddit|hashtags|index)\s*[:=]\s*['\"\d\[]"
    r"|\[(?!the |an? |sic\b|(?:e-mail|handle|phone|name) removed\])(?:[^\]\n]{0,30}\b)?(?:your|insert|name|date"
    r"|year|city|state|country|party"
    r"|politician|candidate|"
    r"opponent|topic|issue|policy|link|url|website|company|organi[sz]ation|phone|e-?mail|address|image|photo|video|"
    r"placeholder|title|position|location)\b[^\]\n]{0,40}\]"
    r"|<(?:name|insert|your|url|user)[^>]{0,30}>|\{\w+\}|(?-i:\bURL\b)|\[(?:deleted|removed|link)\]"
    r"|<\|\w+\|>|\[/?INST\]|</?s>|<<SYS>>|https?://|\blorem ipsum\b|(?-i:\b(?:XXX+|TODO|TBD)\b)",
    re.IGNORECASE,
)
UNSEEN_POST = re.compile(
    r"\b(?:this|the|these|those|following|above|your|provided) "
    r"(?:(?:given|provided|original|quoted|above|following|shared|preceding|linked|attached|embedded) )?"
    r"(?:posts?(?!'s)|tweets?|comments?|quotes?(?! [\"“'])|captions?|screenshots?|clips?|(?:image|photo"
    r"|picture)s?(?! of)|"
    r"articles?|videos?|messages?|passages?(?! of)|excerpts?|submissions?|threads?|memes?|headlines?|"
    r"hashtags?(?! [#\"“']))\b"
    r"|\b(?:this|(?:of|behind|in|to) the|your|given|provided|above|following|preceding) (?:statement|text)\b"
    r"|\b(?:statement|text|question|claim)s? (?:above|below|made by the)\b|\bthe original poster\b|(?-i:\bOP\b)"
    r"|\b(?:does|is|did) the (?:author|writer|poster|commenter|(?-i:speaker)) (?:arguing|claim|criticiz|making"
    r"|mean|saying|think)"
    r"|\bthe (?:author|writer|poster|commenter|user|(?-i:speaker))'s (?:\w+ )?"
    r"(?:arguments?|claims?|intent|message|opinion|perspective|point|position|post|statement|tone|view)"
    r"|\b(?:reply|respond) to (?:this|him|her|them|this (?:person|user)|the user)\W*$|\byou (?:made|mentioned"
    r"|said|wrote) earlier\b"
    r"|\b(?:mentioned|described|referred to|stated) (?:above|earlier|in the (?:post|tweet|text))\b",
    re.IGNORECASE,
)
FINISHED = re.compile(r"[.!?…。！？؟।][\"'”’)\]*_]*\s*$")
SIDE = re.compile(
    r"\b(?:left|right|far|alt)-(?:wing\w*|left|right|leaning)\b"
    r"|\bthe (?:political |far |radical )?(?:left|right)\b(?! to\b| of\b|-)"
    r"|\b(?:conservativ|libertarian|socialis|communis|marxis|fascis|leftis|rightis|republican|populis)\w*"
    r"|\b(?:liberals?|liberalism|progressives?(?! tax)|capitalis[tm]s?|democrats?|(?-i:Democratic))\b"
    r"|\b(?:tory|tories|gop|maga|woke|antifa|dems?|(?:labour|green) party)\b",
    re.IGNORECASE,
)
ORDER = re.compile(
    r"(?:^\W*|[.;:!?,] |\b(?:and|or|(?<!free )to|by|then|you|please) )(?:strongly |openly |publicly )?"
    r"(?:advocat|applaud|argu|celebrat|challeng|condemn|counter|critici[sz]|critiqu|debunk|defend|denounc|"
    r"dispel|encourag|endors|expos|justif|mock|oppos|prais|promot|refut|reject|ridicul|support|urg)(?:e|es|y|ing)?\b"
    r"|\b(?:express|share|show|voice) (?:your |a )?(?:(?!no\b)\w+ )?(?:admiration|anger|concerns?|condemnation|"
    r"disagreement|disapproval|disappointment|disgust|enthusiasm|frustrations?|gratitude|opposition|outrage|pride|"
    r"support)\b"
    r"|\b(?:persuade|convince)\b|\b(?:in favou?r|in support|in defen[cs]e|make (?:a|the) case)\b"
    r"|\b(?:why|how|that)\b[^?]{1,80}\b(?:is|are|was|were|would be) (?:not )?(?:\w+ )?"
    r"(?:wrong|right|good|bad|better|crucial|dangerous|essential|harmful|important|misguided|necessary|unfair|vital)\b"
    r"|\b(?:dangers?|hypocrisy|benefits|failures?|flaws|need) (?:of|for)\b"
    r"|\b(?:argument|case|essay|letter|post|speech|statement|tweet) (?:criticizing|defending|opposing|promoting"
    r"|supporting)\b"
    r"|\btake (?:the side|a stand|a position (?:for|against))\b|\bspeak (?:out |up )?against\b|^\W*why (?:must"
    r"|should)\b"
    r"|\b(?:tell|show) (?:me|us|them|people|everyone) (?:how|that|why)\b"
    r"|\b(?:why|how)\b[^?]{1,60}\b(?:can|did|do|does|will|would) not\b"
    # words that presuppose the verdict
    r"|\b(?:misconceptions?|hypocri\w+|irony|double standards?)\b"
    r"|\b(?:address|correct|clarify) \w+ (?:\w+ )?(?:misinformation|myths?)\b"
    r"|\b(?:devastating|disastrous|harmful|dire) (?:\w+ )?(?:consequences|effects|impacts?)\b",
    re.IGNORECASE,
)
# Full names where the surname alone is common. A compact list of those whom generated text names most.
POLITICS = re.compile(
    r"\b(?:Trump|Biden|Obama|(?:Bill|Hillary) Clinton|(?:George|Jeb) (?:W\.? )?Bush|Kamala Harris|Pence|"
    r"DeSantis|Pelosi|McConnell|Bernie Sanders|Elizabeth Warren|Ocasio-Cortez|J\.?D\.? Vance|Newsom|Rubio|"
    r"Ted Cruz|Romney|Schumer|Putin|Zelensk\w+|Xi Jinping|Netanyahu|Modi|Macron|Le Pen|Merkel|Scholz|Merz|"
    r"Starmer|Sunak|Boris Johnson|Tony Blair|Farage|Corbyn|Trudeau|Poilievre|Mark Carney|Meloni|Orb[aá]n|"
    r"Erdo[gğ]an|Lula|Bolsonaro|Milei|Pedro S[aá]nchez|Albanese|Ardern|GOP|MAGA|Tor(?:y|ies)|Democrats?|"
    r"Republicans?|AfD|BJP|Fidesz|Likud|Reform UK|National Rally|(?:[A-Z]\w+ )+Party|Liberal Democrats)\b"
)
