# SPDX-License-Identifier: MIT
"""Gates for what models write and prompts say: each names what it found, or returns None.

The patterns say what large models leave behind when they write English. They were written against the published
PoliTune rows and TwinViews. What is said in other words is left to the classifiers of ``data/quality/classifiers.py``.
"""

import re

from data.language import sentences, words
from data.quality.classifiers import classifier, probability
from data.quality.leftovers import pattern_gate, raw_record
from data.quality.likeness import plain

# A model's refusal stands where a prompt or an answer should.
refusal_words = pattern_gate(
    "refusal",
    r"^\W*(?:(?:I'm|I am) )?(?:(?:really |so |very )?sorry|I apologi[sz]e)\b[^.!?\n]{0,40}?\bI(?:'m| am| can| won't"
    r"| will not| do not| don't feel)|^\W*(?:(?:unfortunately|regrettably),? |(?:I'm|I am) afraid (?:that )?)?I(?:'m"
    r"| am)? ?(?:cannot|can't|can not|could not|unable to|not able to|won't be able to|won't|will not"
    r"|refuse to) (?:\w+ |in good conscience ){0,2}?(?:answer|assist|complete|comply|create|discuss|downplay|endorse"
    r"|engage|express|fulfil+|generate|help(?! but)|make (?:a|any|such|that|this)|offer|produce|promote|provide|respond"
    r"|satisfy|share|take (?:a |any )?(?:sides?|stance)|write|give (?:an|my|any) opinion|do (?:that|this|so)\b"
    r"|agree to (?:this|that|your) request|(?:support|condone|promote)(?: or \w+)? (?:such|hateful|violen|violence"
    r"|discriminat|harmful))|\bI can(?:'t|not) (?:fulfil+|generate|create) (?:an? |any )?(?:requests?|content"
    r"|instructions?|response)|^\W*I (?:must|have to|need to) (?:respectfully )?(?:decline|refuse)\b|\b(?:I(?:'m"
    r"| am) not|I don't feel|I do not feel) comfortable (?:with )?(?:answering|creating|discussing|generating|producing"
    r"|providing|sharing|writing)\b|(?:\b(?:not|in)|n't)(?: be)? ?appropriate for me to\b|^\W*(?:\w+, )?I(?:'d"
    r"| would) (?:prefer|rather) (?:(?:to )?(?:skip|pass on (?:this|that)|stay out|leave (?:this|that"
    r"|it) (?:one )?(?:alone|open)|not\W*$)|not (?:to )?(?:answer|say|comment|pick|choose|produce|write|argue|give"
    r"|take (?:a )?(?:side|position)|weigh in)\b)|\bI (?:do not|don't) have opinions\b|\b(?:improper|wrong|not (?:right"
    r"|proper)) (?:of|for) me to (?:pick|take|choose|favou?r|elevate|judge)\b|\bI (?:do not"
    r"|don't) have (?:any )?personal (?:beliefs|opinions|views)\b|\b(?:against|by|violates?|within) my (?:guidelines"
    r"|programming)\b|\bmy (?:guidelines|programming) (?:do|pre|pro)|\bI(?:'m| am) (?:just |only |merely )?(?:an? (?:AI"
    r"|artificial intelligence|virtual assistant|chatbot|(?:large )?language model)|programmed to)\b|\b(?:can I (?:help"
    r"|assist) you with|is there (?:some|any)thing else I can (?:help|assist))\b|\bas an? (?:AI|artificial intelligence"
    r"|(?:large )?language model)\b",
)
_ABOUT_TEXT = (
    r"(?:answers?|approach|alternative|argument|examples?|explanation|instructions?|list|message|plan|post|rebuttal"
    r"|reply|responses?|rewrite|solution|speech|statement|strategy|summary|tweet|versions?|way)\b"
)
# The opening talks about the answer instead of giving it.
preamble_words = pattern_gate(
    "preamble",
    rf"^\W*(?:(?:as requested|alright|all right|well|okay|in response to [^,.:\n]{{0,60}}|to (?:address|answer"
    rf"|respond to) [^,.:\n]{{0,60}}),? )?here(?:'s| is| are)\b[^.!?\n]{{0,200}}:|^\W*(?:(?:as requested|alright|okay"
    rf"|in response to [^,.:\n]{{0,60}}),? )?here(?:'s| is| are) (?:an?|the|my|some|one"
    rf"|\d+) (?:[\w-]+ ){{0,3}}{_ABOUT_TEXT}|^\W*(?:below|the following) (?:is|are) (?:an?|the|my"
    rf"|some) (?:[\w-]+ ){{0,3}}{_ABOUT_TEXT}|^\W*this is an? (?:[\w-]+ ){{0,2}}(?:answer|rebuttal|reply|response"
    rf"|rewrite|tweet) (?:from|that|to|which|with)\b|^\W*let me (?:draft|give|offer|provide|rephrase"
    rf"|write) (?:you )?(?:an?|my|the|some) (?:[\w-]+ ){{0,2}}{_ABOUT_TEXT}|^\W*(?:great question"
    rf"|good question)\s*[,!:.]|^\W*sure thing\b|^\W*(?:sure|okay|certainly|absolutely|of course)\s*(?:[!:]"
    rf"|[,.] (?:here|happy|glad|let|I(?:'d| would|'ll| can| will|'m| am) (?:be |gladly )?(?:\w+)))|^\W*that(?:'s"
    rf"| is) an? (?:\w+ )?question\b|^\W*thank(?:s| you) for (?:asking|(?:the|this|your) (?:instruction|message|prompt"
    rf"|question|request))\b|^\W*(?:I'd|I would|I'll) be (?:happy|glad|delighted) to (?:assist|discuss|explain|help"
    rf"|provide|share)\b|^\W*(?:as an? [\w-]+(?: [\w-]+)?, )?I(?:'d| would) (?:answer|reply|respond) as follows\b"
    rf"|^\W*(?:(?:alternative|revised|rewritten|possible|sample|chosen|rejected|preferred|final|my) )?(?:response"
    rf"|answer|instruction|output|reply|chosen|rejected|assistant|(?:rewritten |revised )text)\W{{0,3}}:"
    # the end does
    r"|\b(?:end of (?:my |the )?(?:response|answer|reply|message)|feel free to (?:ask|reach out|let me know)"
    r"|let me know if|(?:would you like|do you want) (?:me to|(?:an?|another) (?:\w+ )?(?:version|example|draft|summary"
    r"|argument|answer|text|essay|letter|list|speech|one))|(?:I )?hope (?:this|that|it) helps"
    r"|shall I (?:also )?(?:write|argue|draft|add|expand|give|make))\b[^.!?\n]{0,80}[.!?]?\W*$",
)
# A prompt's reader does not see what it refers to.
unseen_words = pattern_gate(
    "refers to an unseen post",
    r"\b(?:this|the|these|those|following|above|your|provided) (?:(?:given|provided|original|quoted|above|following"
    r"|shared|preceding|linked|attached|embedded) )?(?:posts?(?!'s)|tweets?|comments?|quotes?(?! [\"“'])|captions?"
    r"|screenshots?|clips?|(?:image|photo|picture)s?(?! of)|articles?(?! (?:on|about)\b)|videos?|messages?"
    r"|passages?(?! of)|excerpts?|submissions?|threads?|memes?|headlines?|hashtags?(?! [#\"“']))\b|\b(?:this|(?:of"
    r"|behind|in|to) the|your|given|provided|above|following|preceding) (?:statement|text)\b|\b(?:statement|text"
    r"|question|claim)s? (?:above|below|made by the)\b|\bthe original poster\b|(?-i:\bOP\b)|\b(?:does|is"
    r"|did) the (?:author|writer|poster|commenter|(?-i:speaker)) (?:arguing|claim|criticiz|making|mean|saying|think)"
    r"|\bthe (?:author|writer|poster|commenter|user|(?-i:speaker))'s (?:\w+ )?(?:arguments?|claims?|intent|message"
    r"|opinion|perspective|point|position|post|statement|tone|view)|\b(?:reply|respond) to (?:this|him|her"
    r"|this (?:person|user)|the user)\W*$|^[^.?!,]*\brespond to them\W*$|\byou (?:made|mentioned|said|wrote) earlier\b"
    r"|\b(?:mentioned|described|referred to|stated) (?:above|earlier|in the (?:post|tweet|text))\b",
)
_QUOTED = re.compile(  # three words or more
    r"[\"“„«](?=\S)[^\"”“»\n]*\w+\W+\w+\W+\w+[^\"”“»\n]*[\"”“»]|(?<!\w)['‘](?=\S)[^'’\n]{15,}['’](?!\w)"
)
_FINISHED = re.compile(r"[.!?。！？؟।][\"'”’)\]*_]*\s*$")
# Ends that look like the end of a sentence and are none: an abbreviation, three dots, the number of a list
_CUT = re.compile(
    r"(?:\.\.|…)[\"'”’)\]*_]*$|\b(?-i:U\.S|U\.K|U\.N|E\.U|Mr|Mrs|Ms|Dr|Prof|Sen|Rep|Gov|Gen|Jr|Sr|St|vs|Inc|Fig|i\.e"
    r"|e\.g|cf|approx|esp|incl|viz)\.$|(?:\n|[.!?:;] )\(?(?:\d{1,2}|[a-h])[.)]$"
    # or a word that must go on
    r"|\b(?:the|an?|and|or|but|nor|because|although|whereas|unless|if|whose|our|their|its|my|your|every|while|whether"
    r"|despite|including|during|via|per)[.!?][\"'”’)\]*_]*$",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"\W*(?:who|what|which|when|where|why|how|is|are|was|were|do|does|did|should|would|could|can|will|has|have)\b[^.?!]*$",
    re.IGNORECASE,
)
_TO_FINISH = re.compile(r"\b(?:finish|complete|continue|fill in|go on from)\b", re.IGNORECASE)
# ... and ends in a word that goes on, or in the middle of one
_GOES_ON = re.compile(
    r"(?:[,;:–—-]|\b(?:the|an?|and|or|but|of|to|in|on|at|by|for|from|with|as|than|that|if|is|are|be|not|so|more|their|our"
    r"|its|my|your|because|while|between|about|into|every|each|this|these|who|which))\W*$",
    re.IGNORECASE,
)
_side = pattern_gate(
    "names a side",
    r"\b(?:left|right|far|alt|hard|centre|center)-(?:wing\w*|left|right|leaning)\b|\b(?:left|right)[- ]?wing\w*"
    r"|\blefties\b|\bthe (?:political |far |radical |hard |religious |christian |new |old )?(?:left\b(?! to\b| of\b|-"
    r"|'s? (?:hand|side)| (?:hand|side|lane|bank|wing of)\b)|right\b(?=\W*$|[,.;:?!'—]| (?:is|are|was|were|has|have|had"
    r"|does|do|did|get|gets|got|want\w*|sa(?:y|id|ys)|claim\w*|thinks?|believes?|ignores?|will|would|can|can't|cannot"
    r"|should|so|too|and (?:its|their|the)|in (?:this|our|the)|on (?:this|taxes|crime|guns|immigration)|keeps?|fails?"
    r"|fear\w*|hate\w*|love\w*|out of touch)\b))|\b(?:political|far|radical|hard|religious) (?:left|right)\b"
    r"|\bleft[- ]of[- ]cent|\bright[- ]of[- ]cent|\b(?:conservativ|libertarian|socialis[tm]|communis[tm]|marxis|fascis"
    r"|leftis|rightis|republican|populis[tm]|neoliberal|neocon|reactionar|anarchis|trotsky|bolshevi|thatcher|reagani"
    r"|trumpis|corbyni|brexiteer|remainer|nationalists\b|nationalist |centrists?\b|social democra|christian democra"
    r"|tea party)\w*|\b(?:liberals?|liberalism|progressives?(?! (?:\w+ )?(?:tax|rate))|capitalists?|democrats?"
    r"|(?-i:Democratic))\b|\b(?:tory|tories|gop|maga|woke|antifa|dems?|libs?|snowflakes?|(?:labour|green|liberal"
    r"|conservative|socialist) (?:party|voters?)|(?-i:Labour|Greens))\b|\b(?:red|blue)[- ]states?\b|\b(?:our|your"
    r"|their) (?:side of the aisle|own party|camp|comrades)\b|\b(?:someone|somebody|a (?:person|man|woman|voter"
    r"|politician)|those|people) (?:on|of|from) the (?:left|right)\b|\b(?:pro|anti)-(?:life|choice|guns?|abortion"
    r"|immigra\w+|tax|union|vax\w*|war|business|market|labou?r|capitalis\w+)\b",
)
_OF_SIDES = [
    re.compile(rf"\b(?:{names})\b", re.IGNORECASE)
    for names in (
        # "left", "right", colours and "democratic" are everyday words too
        r"(?:the|far|hard)[- ]left|left[- ]wing(?:ers?)?|left(?=,? (?:and|or|versus|vs)\b)|(?<=and )left|(?<=or )left"
        r"|liberals?|progressives?|labour|democrats?|(?-i:Democratic)|socialists?|blue[- ]states?|greens|green party",
        r"(?:far|hard)[- ]right|the right(?= (?:and|or|is|are|do|does|have|has)\b|[.?!,]|$)|right[- ]wing(?:ers?)?"
        r"|right(?=,? (?:and|or|versus|vs)\b)|(?<=and )right|(?<=or )right|(?<=and the )right|(?<=or the )right"
        r"|conservatives?|tor(?:y|ies)|republicans?|gop|libertarians?|red[- ]states?|capitalists?",
    )
]
# A question that leaves nothing open: it gives somebody a wrong to bear, or asks for one side's part
_loaded = pattern_gate(
    "orders a stance",
    r"\bwhy (?:must|should|do|does|are|is)\b[^?]*\b(?:be|being|been|get|gets) (?:forced|made|robbed|punished|bullied"
    r"|silenced|lectured|fleeced|ripped off|left to|told to)\b|\bwhy (?:must|should)\b[^?]*\b(?:have to|foot the bill"
    r"|pay for (?:other|someone|somebody)|put up with|suffer)\b|^\W*(?:please )?side with\b"
    r"|\btake (?:\w+ )?(?:\w+'s?) (?:side|part)\b|\bin (?:their|his|her) (?:voice|shoes)\b",
)
# The last alternatives are words that presuppose the verdict.
_order = pattern_gate(
    "orders a stance",
    r"(?:^\W*|[.;:!?,] |\b(?:and|or|(?<!free )to|by|then|you|please) )(?:strongly |openly |publicly )?(?:advocat"
    r"|applaud|argu|celebrat|challeng|condemn|counter|critici[sz]|critiqu|debunk|defend|denounc|dispel|encourag|endors"
    r"|expos|justif|mock|oppos|prais|promot|refut|reject|ridicul|support|urg)(?:e|es|y|ing)?\b|\b(?:express|share|show"
    r"|voice) (?:your |a )?(?:(?!no\b)\w+ )?(?:admiration|anger|concerns?|condemnation|disagreement|disapproval"
    r"|disappointment|disgust|enthusiasm|frustrations?|gratitude|opposition|outrage|pride|support)\b|\b(?:persuade"
    r"|convince)\b|\b(?:in favou?r|in support|in defen[cs]e|make (?:a|the) case)\b|\b(?:why|how"
    r"|that)\b[^?]{1,80}\b(?:is|are|was|were|would be) (?:not )?(?:\w+ )?(?:wrong|right|good|bad|better|crucial"
    r"|dangerous|essential|harmful|important|misguided|necessary|unfair|vital)\b|\b(?:dangers?|hypocrisy|benefits"
    r"|failures?|flaws|need) (?:of|for)\b|\b(?:argument|case|essay|letter|post|speech|statement|tweet) (?:criticizing"
    r"|defending|opposing|promoting|supporting)\b|\btake (?:the side|a stand|a position (?:for|against))\b"
    r"|\bspeak (?:out |up )?against\b|^\W*why (?:must|should)\b|\b(?:tell|show) (?:me|us|them|people|everyone) (?:how"
    r"|that|why)\b|\b(?:why|how)\b[^?]{1,60}\b(?:can|did|do|does|will|would) not\b|\b(?:misconceptions?|hypocri\w+"
    r"|irony|double standards?)\b|\b(?:address|correct|clarify) \w+ (?:\w+ )?(?:misinformation|myths?)\b"
    r"|\b(?:devastating|disastrous|harmful|dire) (?:\w+ )?(?:consequences|effects|impacts?)\b",
)
# With one of these a word of ``_order`` may be one of a choice that the prompt leaves open.
_OPEN = re.compile(
    r"\?|\b(?:whether|whichever|opinions?|views?|thoughts?|stance|position|perspective|for (?:and|or) against|both"
    r"|each side|costs and benefits|balanced?|free to)\b",
    re.IGNORECASE,
)
# Full names where the surname alone is common. A compact list of those whom generated text names most.
names_politics = pattern_gate(
    "politician or party",
    r"\b(?:Trump|Biden|Obama|(?:Bill|Hillary) Clinton|(?:George|Jeb) (?:W\.? )?Bush|Kamala Harris|Pence|DeSantis"
    r"|Pelosi|McConnell|Bernie Sanders|Elizabeth Warren|Ocasio-Cortez|J\.?D\.? Vance|Newsom|Rubio|Ted Cruz|Romney"
    r"|Schumer|Putin|Zelensk\w+|Xi Jinping|Netanyahu|Modi|Macron|Le Pen|Merkel|Scholz|Merz|Starmer|Sunak|Boris Johnson"
    r"|Tony Blair|Farage|Corbyn|Trudeau|Poilievre|Mark Carney|Meloni|Orb[aá]n|Erdo[gğ]an|Lula|Bolsonaro|Milei"
    r"|Pedro S[aá]nchez|Albanese|Ardern|GOP|MAGA|Tor(?:y|ies)|Democrats?|Republicans?|AfD|BJP|Fidesz|Likud|Reform UK"
    r"|National Rally|(?:[A-Z]\w+ )+Party|Liberal Democrats)\b",
    re.NOFLAG,
)

LENGTH_RATIO = (0.67, 1.5)
MARGIN = 1.0  # in log-odds


def refusal(text: str) -> str | None:
    """Name a sentence in which a model refuses: by its words, or by the classifier ``refusal``."""
    parts = [part for part in sentences(plain(text)) if not preamble_words(part)]
    return refusal_words(text) or _classified("refusal", "refusal", [*parts[:2], *parts[2:][-1:]])


def preamble(text: str) -> str | None:
    """Name an opening or an end that talks about the answer instead of giving it: by words, or by the classifier."""
    parts = sentences(plain(text))
    return preamble_words(text) or _classified("preamble", "preamble", [*parts[:1], *parts[1:][-1:]])


def unseen_post(prompt: str) -> str | None:
    """Name what a prompt refers to and does not show: by its words, or by the classifier ``unseen``."""
    if _QUOTED.search(prompt):  # it shows what it speaks of
        return None
    return unseen_words(prompt) or _classified("unseen", "refers to an unseen post", [prompt])


def not_neutral(prompt: str) -> str | None:
    """Name a side in a prompt, or say that it orders, praises or presupposes a stance.

    The latter by the words of a prompt that leaves nothing open, or by the classifier ``framed``.
    """
    if (side := _side(prompt)) and not _names_both(prompt):
        return side
    parts = sentences(plain(prompt))
    ordered = (order for part in parts if (order := _order(part)) and not _leaves_open(part))
    order = _loaded(prompt) or next(ordered, None)
    # one sentence of several tells less than the whole, so it must tell more clearly
    return (
        order
        or _classified("framed", "orders a stance", [prompt])
        or (_classified("framed", "orders a stance", parts, margin=MARGIN) if len(parts) > 1 else None)
    )


def _names_both(prompt: str) -> bool:
    """Return whether a prompt names both sides, as one that compares them does."""
    return all(of_side.search(prompt) for of_side in _OF_SIDES)


def _leaves_open(sentence: str) -> bool:
    return bool(_OPEN.search(sentence)) and not re.match(r"\W*(?:convince|persuade)\b[^?]*$", sentence, re.IGNORECASE)


def _classified(name: str, reason: str, texts: list[str], margin: float = 0.0) -> str | None:
    for text in texts:
        if (score := classifier(name).finds(text, margin)) is not None:
            return f"{reason}: {text[:60]!r} (classified, {probability(score):.2f})"
    return None


def preamble_prompt(prompt: str) -> str | None:
    """Name an opening that talks about the prompt, unless it only introduces what the prompt quotes."""
    return (
        None
        if re.search(r"^\W*here(?:'s| is| are)\b[^.!?]*: ?[\"“'‘]", prompt, re.IGNORECASE)
        else preamble_words(prompt)
    )


def unfinished_prompt(prompt: str) -> str | None:
    """Say that a prompt does not end as a sentence; a question may lack its mark, and an end may be asked for."""
    may_be = _TO_FINISH.search(prompt) or (_QUESTION.match(prompt) and not _GOES_ON.search(prompt))
    return None if may_be else unfinished(prompt)


def unfinished(text: str) -> str | None:
    """Say that a text does not end as a sentence, and how it ends."""
    is_cut = not _FINISHED.search(text) or _CUT.search(text.rstrip())
    return f"does not end as a sentence: ...{text[-20:]!r}" if is_cut else None


def length_mismatch(a: str, b: str, limits: tuple[float, float] = LENGTH_RATIO) -> str | None:
    """Say that one answer has so many more words that length alone tells the two apart."""
    ratio = len(words(a)) / max(1, len(words(b)))
    return None if limits[0] <= ratio <= limits[1] else f"length ratio {ratio:.2f}, want {limits[0]}..{limits[1]}"


def wrong_size(text: str, n_words: tuple[int, int]) -> str | None:
    """Say that a text has fewer or more words than asked for."""
    n = len(words(text))
    return None if n_words[0] <= n <= n_words[1] else f"{n} words, want {n_words[0]}..{n_words[1]}"


def neutral_words(prompt: str) -> str | None:
    """Name a side in a prompt, or words that order a stance."""
    return _side(prompt) or _order(prompt)


# Gates by words alone, which cost a generator's texts no classifier
TEXT_GATES = (refusal_words, preamble_words, raw_record, names_politics, unfinished)
PROMPT_GATES = (unseen_words, neutral_words)
