# SPDX-License-Identifier: MIT
"""Linear classifiers of short texts, whose weights lie in ``classifiers.json`` in words that anybody can read.

``benchmarks/text_classifiers.py`` makes that file and says how often each classifier is wrong. A text is read as a set
of features: its words, its pairs of words, how its sentences begin, and which of ``SHAPES`` it has. The score of a
text is the sum of the weights of its features, in log-odds.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, NamedTuple

from data.language import lower_words, sentences
from data.quality.likeness import plain

_PRAISE_OR_BLAME = (
    r"abus|absurd|admir|advantag|agenda|alarm|appall|attack|betray|bias|blunder|brav|broken|burden|catastroph|chao"
    r"|collaps|corrupt|courag|crisis|cruel|crush|damag|danger|deadly|deceiv|decept|decent|defenceless|defenseless"
    r"|despera|destr|devastat|disast|disgrac|dishonest|disturb|doomed|enemies|enemy|evil|exploit|extremis|fail|fiasco"
    r"|foolish|fraud|glorious|great|greed|harm|hate|hero|hidden|honest|honou?r|horr|humiliat|hurt|hypocri|ignor|immoral"
    r"|incompeten|indoctrinat|inhuman|injustice|insan|irresponsib|kill|lie|lies|manipulat|mess|misguid|mislead|moral"
    r"|myth|naive|nonsense|obvious|oppress|outrag|poison|proud|punish|radical|reckless|resist|rig|ruin|sabotag|scandal"
    r"|scar|scheme|shame|silenc|smear|steal|stole|strangl|stupid|success|suffer|suffocat|terribl|theft|threat|traged"
    r"|tragic|trap|triumph|tyran|undermin|unfair|unjust|unfairly|unlawful|victim|violat|virtu|vital|weaponi|wise|witch"
    r"|wonder|worst|wreck|wrong"
)
_PEOPLE = r"someone|a person|a man|a woman|a voter|a member|a parent|a citizen|a taxpayer|an? \w+(?: \w+)?"
# Shapes of a text that many words can fill
SHAPES: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        # an asker who says what they are, "as a nurse I …", gives no role
        "role": r"^\W*(?:coming from|speaking as|as (?!a rule|far|long|soon|things)"
        rf"(?:{_PEOPLE})\b,?(?! [^.?!]*\bI\b))|\b(?:from|in|take|taking|adopt) (?:the |an? )[\w -]{{0,40}}"
        r"(?:perspective|angle|standpoint|point of view|viewpoint|vantage|lens|voice|shoes|role|side|background"
        r"|position)\b|\b(?:as if|as though|the way|like) (?:you|an?|one)\b|\b(?:as|like) (?:an?|one of|someone"
        r"|the) [\w-]+(?: [\w-]+)? (?:would|who)\b|\b(?:respond|reply|answer|write|speak|argue|react) (?:as|like) ",
        "persona": r"\b(?:pretend|imagine|suppose|assume) (?:that )?(?:you(?:'re| are| lead| were)|to be)\b"
        r"|^\W*you (?:are|believe|hate|support|oppose|love|think|want|have (?:always|long))\b",
        "negative question": r"^\W*(?:is|are|was|were|do|does|did|would|should|could|can|has|have|wo|ai)n't\b"
        r"|\b(?:don't|wouldn't) you (?:agree|think)\b"
        r"|\bright\?\W*$|^\W*surely\b|\b(?:or can|aren't|isn't|won't|or do) (?:you|they|it)\?",
        "given": r"^\W*(?:given|since|considering|seeing|now that|knowing|in (?:view|light) of|after all|because"
        r"|despite|with)\b",
        "loaded why": r"\b(?:why|how) (?:\w+n't|can't|won't|must|should|is it (?:so )?(?:\w+)|can anyone|dare"
        r"|could anyone|long must)\b|\bwhy (?:are|is|was|were|do|does|did|has|have|had) (?!some|people disagree"
        r"|opinions?|there|it that some|countries|many)",
        "explain why": r"\b(?:explain|show|describe|discuss|outline|argue|prove|demonstrate|analy[sz]e|illustrate"
        r"|examine|explore|elaborate on)"
        r" (?:\w+ ){0,3}(?:why|how|that)\b(?! (?:you|some|people|opinions?|(?:an?|the) [\w ]{3,30} works?))",
        "many virtues": r"\b(?:benefits?|advantages?|virtues|merits|success(?:es)?|importance|triumphs?|strengths?"
        r"|need|necessity|value) (?:of|for)\b",
        "many vices": r"\b(?:dangers?|harms?|failures?|risks?|flaws?|costs?|hypocrisy|damage|threats?|evils?|folly"
        r"|problems?|lies|drawbacks) (?:of|with|that|done|behind|posed|to)\b",
        "reasons": r"\b(?:reasons?|arguments?|case|evidence|proof|ammunition|points?|facts) (?:to|for|against|that"
        r"|in favou?r|why|which)\b",
        "praise or blame": rf"\b(?:{_PRAISE_OR_BLAME})\w*",
        "twice praise or blame": rf"\b(?:{_PRAISE_OR_BLAME})\w*.*\b(?:{_PRAISE_OR_BLAME})\w*",
        "speech act": r"^\W*(?:please |now )?(?:\w+ly )?(?:accus|acknowledg|admit|affirm|alert|applaud|ask (?:for|the)"
        r"|assail|assert|attack|beg|blam|blast|boast|boost|build|call (?:for|on|out)|campaign|cast|celebrat|challeng"
        r"|champion|cheer|commend|complain|condemn|congratulat|convinc|counter|credit|critici[sz]|critiqu|cry|debunk"
        r"|decry|defend|demand|demoni[sz]|denounc|deplor|deride|disprov|dismantl|emphasi[sz]|encourag|endors|expos"
        r"|extol|fight|get|glorif|hail|help|highlight|hold|honou?r|insist|inspir|justif|lament|laud|let|lobby|make"
        r"|mobili[sz]|mock|mourn|object|oppos|pay tribute|persuad|pick|plead|point|pok|prais|press|promot|protest|prov"
        r"|push|question|rail|rally|rant|rebuk|rebut|refut|reject|rejoic|ridicul|roast|salut|satiri[sz]|scold|sell"
        r"|shame|slam|sound|speak (?:out|up|for|on)|stand|stick|stress|support|take (?:aim|down)|talk|tear|thank"
        r"|underlin|underscor|uphold|urge|vent|vindicat|voice|warn|welcome|win)\w*\b",
        "feeling": r"\b(?:express|share|show|voice|vent|state|convey|declare) (?:your |the "
        r"|some )?(?:\w+ )?(?:admiration|anger|alarm|appreciation|concerns?|contempt|delight|disappointment|disgust"
        r"|dismay|enthusiasm|fears?|frustrations?|fury|gratitude|hope|indignation|joy|opposition|outrage|pride"
        r"|satisfaction|scorn|shock|solidarity|sorrow|support|sympathy|worr(?:y|ies))\b",
        "persuasive text": r"\b(?:persuasive|passionate|fiery|scathing|glowing|heartfelt|satirical|sarcastic|rousing"
        r"|stirring|angry|defiant|critical|supportive|sceptical|skeptical|strong(?:est)?|compelling|best|firm)\b"
        r"|\b(?:slogan|petition|manifesto|rant|rebuttal|talking points|open letter|tribute|toast|chant|battle cry"
        r"|campaign)\b",
        "text for or against": r"\b(?:opposing|supporting|defending|attacking|promoting|criticising|criticizing"
        r"|demanding|rejecting|praising|condemning|favou?ring|endorsing|honou?ring|mocking|arguing|against"
        r"|in (?:favou?r|support|defen[cs]e|praise) of)\b",
        "you are for or against": r"\b(?:you (?:are|feel|stand) (?:so )?(?:for|against|proud|angry|glad|opposed"
        r"|outraged|worried)|your (?:support|opposition"
        r"|pride|anger|outrage|disgust|admiration|gratitude|commitment|love|hatred|loyalty|faith))\b",
        "stop or save": r"\b(?:stop|save|protect|defend|restore|resist|end|fight|hold|expose|rescue|reclaim|take back"
        r"|stand up|wake up|get away)\b",
        "asks openly": r"\b(?:whether|both sides|for (?:and|or) against|pros and cons|costs and benefits"
        r"|advantages and disadvantages|(?:supporters|proponents) and (?:opponents|critics)|if (?:any|at all|anything"
        r"|ever)|support or oppose|agree or disagree|(?:what|how) do you (?:think|feel|see|make|say)|(?:your|an?"
        r"|honest) (?:view|opinion|thoughts?|take|position|stance|attitude|perspective|viewpoint|standpoint|feelings?)"
        r"|in your (?:view|opinion)|do you (?:think|believe|support|agree|see|favou?r|prefer|trust|consider)|would you"
        r"|where do you stand|what would you|balanced|main (?:points|arguments|positions)|on each side|each side)\b",
        "asks yes or no": r"(?:^|[.!?] )(?:should|is|are|do|does|did|would|could|can|must|may|has|have|was|were|will"
        r"|ought)\b(?!n't)",
        "alternative": r"\bor\b[^.?!]*\?",
        "some and others": r"\b(?:some|many|others|critics|supporters|opponents|people) (?:\w+ )?(?:say|think|want"
        r"|believe|argue|favou?r|disagree|support)\b",
        "orders": r"\b(?:in favou?r of|in support of|in defen[cs]e of|make (?:a|the) case|take (?:a stand"
        r"|the side) (?:for|against|with)|speak (?:out |up )?(?:for|against|in)|hypocri\w+|double standards?"
        r"|misconceptions?|(?:positive|negative|harmful|beneficial|devastating|disastrous"
        r"|dire) (?:\w+ )?(?:consequences|effects|impacts?|influence|role|changes?)|(?:is|are|was|were|would be"
        r"|be) (?:\w+ )?(?:wrong|right|good|bad|better|crucial|dangerous|essential|harmful|important|misguided"
        r"|necessary|unfair|vital)\b[^?]*$)",
        "deixis at the start": r"^\W*(?:\w+\W+){0,6}?(?:this|these|those|that (?=kind|man|woman|person|remark|case"
        r"|company|decision|way|sort|law|bill)|such an?|the (?:above|following|(?:first|second|third|last|two"
        r"|other)))\b(?! (?:country|generation|century|year|day|days|age|nation|society|world)\b)",
        "nothing before this": r"^\W*(?:(?:what|how|who|why|do|does|did|is|are|was|were|would|should|could|can|you|your"
        r"|think|say|feel|about|of|on|to|with|for|give|share|state|tell|me|us|comment|discuss|explain|describe|evaluate"
        r"|assess|view|opinion|thoughts?|agree|support|make|reaction|reply|respond|it|right|fair|a|an|the|that|in"
        r"|favou?r|believe|read|see|consider|analy[sz]e|summari[sz]e|rewrite|be|have|has)\W+)*(?:this|these|those"
        r"|that(?=\W*$| (?:\w+)\W*$| was| is)|he|she|him|his|her|they|them|their|it(?=\W*$| (?:be|make|happen|work|was"
        r"|again)))\b(?! (?:country|generation|century|year|day|days|age|nation|society|world)\b)",
        "pronoun at the start": r"^\W*(?:\w+\W+){0,5}?(?:he|she|him|her|his|they|them|it)\b",
        "unseen thing": r"\b(?:this|these|that|those|such|the) (?:\w+ )?(?:affair|announcement|argument|article|author"
        r"|behaviou?r|caption|cartoon|case|chart|claim|clip|comment|context|conversation|criticism|data|debate|decision"
        r"|development|discussion|episode|event|example|excerpt|exchange|facts?|figures?|footage|graph|headline|image"
        r"|incident|information|interview|joke|letter|link|list|meme|mess|message|news|numbers|paragraph|passage|photo"
        r"|picture|poll|post|poster|quote|quotation|reasoning|remarks?|report|results?|review|ruling|scenario|scene"
        r"|screenshot|situation|snippet|source|speaker|speech|statement|statistics?|story|survey|table|text|thread"
        r"|title|tone|tragedy|transcript|tweet|user|verdict|video|writer)s?\b",
        "says what it says": r"\b(?:says?|said|claims?|argues?|states?|writes?|wrote|finds?|found|promises|has it)"
        r" (?:that\b|on \w+ that\b|: ?[\"“]|[\"“])"
        r"|\b(?:line|saying|proverb|motto|quote|proposal|idea|rule)\b[^.?!]{0,40}: ",
        "shown": r"\b(?:above|below|attached|linked|shown|quoted|provided|presented|mentioned|described|referenced"
        r"|pictured|in question|earlier|here)\b|\b(?:based on|according to|as (?:shown|described|stated|explained)"
        r"|looking at|after (?:reading|watching)|having read|with this in mind|in this (?:context|example|case"
        r"|scene))\b",
        "I cannot": r"\bI(?:'m| am)? ?(?:can't|cannot|couldn't|won't|will not|shouldn't|unable|not (?:able|allowed"
        r"|permitted|going|supposed|in a position)|must (?:\w+ )?(?:decline|refrain|abstain|pass|remain|stay)|decline"
        r"|refrain|abstain|'d rather not|would rather not|prefer not)\b",
        "machine": r"\b(?:AI|assistant|chatbot|language model|model|software|machine|programm?ed|trained|designed|built"
        r"|developers|creators|guidelines|polic(?:y|ies)|rules|safety|neutral|impartial|unbiased|objective)\b",
        "out of bounds": r"\b(?:outside|beyond|off limits|off the table|not (?:something|a (?:topic|subject|question"
        r"|conversation|matter)|possible|appropriate|my place|for me)|no (?:comment|opinion|personal|views?|way)"
        r"|can't be|cannot be|could not be|not available|withheld|blocked|restricted)\b",
        "sorry": r"\b(?:sorry|apolog\w+|afraid|unfortunately|regret\w*)\b",
        "something else": r"\b(?:something else|another (?:topic|question|subject)|different (?:topic|prompt|question)"
        r"|change the subject|anything else|other questions|rephrase)\b",
        "about the text": r"\b(?:answer|response|reply|draft|version|text|paragraph|statement|rewrite|argument|take"
        r"|attempt|prompt|question|instructions?|request|task)\b",
        "ends in a colon": r":\W*$",
        "label": r"^\W*(?:\w+[ -]?){1,3}(?: \([^)]*\))?\W?:",
        "courtesy": r"^\W*(?:sure|certainly|absolutely|of course|ok(?:ay)?|al(?:l )?right|great|good|excellent"
        r"|interesting|happy|glad|thanks?|thank you|got it|understood|noted|no problem|yes, (?:of course|I can)"
        r"|here(?:'s| is| are| goes| you go)|below|let's|let me|allow me|I(?:'d| would) (?:love|be (?:happy|glad"
        r"|delighted))|I hope|hope)\b",
    }.items()
}
# What a refusal speaks of: answering, or who it is that does not answer. A sentence without such a word is none.
_ANSWERING = re.compile(
    r"\b(?:answer|appropriate|assist|comment|compl(?:y|ies)|content|continue|debate|decline|discuss|engag|express"
    r"|fulfil|guideline|help|information|instruct|judg|matter|neutral|impartial|objective|unbiased|opinion|perspective"
    r"|polic(?:y|ies)\b|politic|position|process|program|prompt|provide|question|recommend|refus|request|respon[ds]"
    r"|restrict|rules|say\b|share|sides?\b|speak|stance|subject|talk|topic|train|view|weigh|write|sorry|apolog|afraid"
    r"|regret|unfortunately|regrettably|AI\b|assistant|model\b|machine|software|tool\b|designed|built|unable|not able"
    r"|allowed|permitted|pass\b|beliefs?|preferences?|feelings|advi[sc]e|something else|available|denied|conversation"
    r"|discussion)\w*",
    re.IGNORECASE,
)
# What a text about the answer speaks of, or how it opens
_WRITING = re.compile(
    r"\b(?:answer|argu|argument|attempt|draft|edit|example|help|instruct|paragraph|perspective|point of view|present"
    r"|prompt|questions?\b|read(?:ing)?\b|repl(?:y|ies)|request|respon[ds]|revis|rewrit|rephras|sample|statement|task"
    r"|text|tone|version|viewpoint|words?\b|wrote|writ(?:e|ing|ten)|ask(?:ed)?\b|assignment|essay|expand|disclaimer"
    r"|note\b|opposite|follow(?:s|ing)|expectations|anything else)\w*|:\W*$|^\W*(?:sure|certainly|absolutely|of course"
    r"|ok(?:ay)?|al(?:l )?right|great|good|excellent|interesting|happy|glad|thanks?|thank you|got it|understood|noted"
    r"|no problem|here(?:'s| is| are| goes| you go)|below|let's|let me|allow me|hope|I hope|feel free|[\w -]{1,25}:)\b",
    re.IGNORECASE,
)
ANCHORS = {"refusal": _ANSWERING, "preamble": _WRITING}  # what a text of the kind must have
MIN_WEIGHT = 0.02  # smaller ones are not written down


class Measured(NamedTuple):
    """How often a classifier is right on texts that it was not fitted on (ten folds)."""

    recall: float  # share of the texts of its kind that it finds
    n: int  # of these texts
    false_alarms: float  # share of the other texts that it takes for such
    n_others: int


class Share(NamedTuple):
    """A share that is corrected for the error of what found it, with its 95 % interval."""

    estimate: float | None  # None where more was found than the measured recall allows
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Classifier:
    """Weights of features, and the score from which a text is of the kind."""

    weights: Mapping[str, float]
    bias: float
    threshold: float
    measured: Measured
    anchor: re.Pattern[str] | None = None

    @cached_property
    def shapes(self) -> list[tuple[float, re.Pattern[str]]]:
        """Weights and patterns of the shapes that tell something, those that tell most first."""
        told = [(self.weights.get(f"#{name}", 0.0), shape) for name, shape in SHAPES.items()]
        return sorted((part for part in told if part[0]), key=lambda part: -abs(part[0]))

    def score(self, text: str) -> float:
        """Return the log-odds that a text is of the kind, less the threshold."""
        return self.bias - self.threshold + sum(self.weights.get(name, 0.0) for name in features(text))

    def finds(self, text: str, margin: float = 0.0) -> float | None:
        """Return the log-odds of a text that is over the threshold by a margin; None of another."""
        if self.anchor and not self.anchor.search(text):
            return None
        text = _straight(text)
        score = self.bias - self.threshold + sum(self.weights.get(name, 0.0) for name in words_of(text))
        most = sum(max(0.0, weight) for weight, _ in self.shapes)
        for weight, shape in self.shapes:
            if score + most <= margin:  # whatever the others say
                break
            most -= max(0.0, weight)
            score += weight if shape.search(text) else 0.0
        return score + self.threshold if score > margin else None


def features(text: str) -> set[str]:
    """Return the features of a text."""
    text = _straight(text)
    return words_of(text) | {f"#{name}" for name, shape in SHAPES.items() if shape.search(text)}


def _straight(text: str) -> str:
    return plain(text).replace("’", "'")


def words_of(text: str) -> set[str]:
    """Return the features of a text that are words: single ones, pairs, and how its sentences begin."""
    tokens = ["^", *lower_words(plain(text))]
    found = {*tokens, *map(" ".join, zip(tokens, tokens[1:])), " ".join(tokens[:4])}
    for sentence in sentences(text):
        opening = lower_words(sentence)[:2]
        found |= {f"${' '.join(opening[:n])}" for n in (1, 2) if len(opening) >= n}
    found.add("#asks" if "?" in text else "#does not ask")
    return found


def corrected_share(found: float, n: int, measured: Measured) -> Share:
    """Return the share of a kind among ``n`` texts of which a classifier found a share, given how often it is wrong.

    The estimate is that of Rogan and Gladen 1978 (Am. J. Epidemiology 107, eq. 1): found less false alarms, over
    recall less false alarms. The interval is that of Lang and Reiczigel 2014 (Preventive Veterinary Medicine 113, eq.
    2): it carries the error of all three shares, and holds where one of them is 0. Where more is found than the recall
    allows, the texts are easier than those it was measured on, and all that is said is that the share is no less than
    what was found less the false alarms.
    """
    z = 1.96
    n_more = n + z * z
    p = (n * found + z * z / 2) / n_more
    recall = (measured.n * measured.recall + 1) / (measured.n + 2)
    right = (measured.n_others * (1 - measured.false_alarms) + 1) / (measured.n_others + 2)
    told = recall + right - 1
    if told <= 0:
        raise ValueError(f"{measured}: no more right than chance, so it says nothing about a share")
    middle = (p + right - 1) / told
    of_recall, of_right = recall * (1 - recall) / (measured.n + 2), right * (1 - right) / (measured.n_others + 2)
    shift = 2 * z * z * (middle * of_recall - (1 - middle) * of_right)
    half = z * math.sqrt(p * (1 - p) / n_more + (1 - middle) ** 2 * of_right + middle**2 * of_recall) / told
    if found > measured.recall:
        return Share(None, (max(0.0, found - measured.false_alarms), 1.0))
    estimate = (found - measured.false_alarms) / (measured.recall - measured.false_alarms)
    low, high = (min(1.0, max(0.0, middle + shift + sign * half)) for sign in (-1, 1))
    return Share(min(1.0, max(0.0, estimate)), (low, high))


@cache
def classifier(name: str) -> Classifier:
    """Return a shipped classifier: ``framed``, ``unseen``, ``refusal`` or ``preamble``."""
    entry = _stored()[name]
    return Classifier(
        entry["weights"], entry["bias"], entry["threshold"], Measured(**entry["measured"]), ANCHORS.get(name)
    )


def stored_side() -> dict[str, Any]:
    """Return the weights by which ``sides.py`` tells sides, their threshold, and what such weights told of others."""
    return _stored()["side"]


def stored(kinds: Mapping[str, Classifier], side: Mapping[str, Any]) -> str:
    """Return the text of ``classifiers.json``."""
    written = {
        name: {
            "measured": kind.measured._asdict(),
            "bias": round(kind.bias, 3),
            "threshold": round(kind.threshold, 3),
            "weights": {
                key: round(value, 2) for key, value in sorted(kind.weights.items()) if abs(value) >= MIN_WEIGHT
            },
        }
        for name, kind in kinds.items()
    } | {"side": dict(side)}
    return json.dumps(written, indent=0, ensure_ascii=False) + "\n"


def probability(log_odds: float) -> float:
    """Return the probability of log-odds."""
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, log_odds))))


@cache
def _stored() -> dict[str, Any]:
    return json.loads(files("data").joinpath("quality", "classifiers.json").read_text(encoding="utf-8"))
