# SPDX-License-Identifier: MIT
"""A rule in the place of a model, for every stage of data/synthesize.py: judges by words, writes by hash.

It plays a model with the usual faults: now and then a preamble, an answer that is too short, or no JSON.
"""

import hashlib
import json
import random
import re

from fault_server import completion

LEFT = set(
    "workers union unions equality public welfare climate healthcare poverty wages rights justice democratic "
    "democrats inequality minimum coverage medicare education families middle immigrants women".split()
)
RIGHT = set(
    "market markets tradition taxes tax freedom liberty property border military business businesses enterprise "
    "republican republicans government spending deficit regulation regulations debt bureaucrats faith god".split()
)
SUBJECTS = (
    "bus lines, water mains, school meals, rent rules, shop hours, road tolls, land sales, patents, tariffs, strikes, "
    "pensions, parks, prisons, courts, juries, libraries, clinics, farms, harbours, mines, forests, rivers, ferries, "
    "airports, museums, theatres, broadcasters, newspapers, universities, nurseries, apprenticeships, inheritances, "
    "savings, mortgages, insurers, banks, bonds, charities, churches, festivals, markets, kiosks, breweries, "
    "lotteries, casinos, fisheries, quarries, power stations, wind farms, railways, canals, post offices, telephones"
).split(", ")
ACTORS = (
    "towns, villages, ministers, judges, voters, parents, teachers, nurses, farmers, owners, tenants, savers, drivers, "
    "neighbours, assemblies, councils, parliaments, citizens, visitors, newcomers, employers, employees, inspectors"
).split(", ")
VERBS = (
    "run, fund, license, inspect, close, lease, expand, merge, tax, rename, audit, sell, share, insure, rebuild, "
    "limit, schedule, staff, supervise, subsidise"
).split(", ")
FORMS = (
    "Should {a} be allowed to {v} {s} if {b} would rather {w} {t}?",
    "What do you think: may {a} {v} the {s} of a region, or is that for {b} who {w} {t}?",
    "Give your opinion on letting {a} {v} {s}, while {b} {w} {t} nearby.",
    "When {a} want to {v} {s} and {b} plan to {w} {t}, who has the better claim?",
)
FILLERS = (
    "fair shared open honest patient steady local common lasting quiet simple careful plain useful modest generous "
    "firm gentle equal proper sound wise warm free safe clear calm true bright kind"
).split()
NOUNS = (
    "duty trust choice custom effort promise reward burden benefit future village workshop household garden journey "
    "bridge harvest season neighbour craft story habit record balance measure"
).split()


def respond(body: dict) -> str | dict:
    """Answer as a model would that was asked by one of the shipped instructions."""
    text = body["messages"][1]["content"]
    name = body["response_format"]["json_schema"]["name"]
    repaired = len(body["messages"]) > 2
    draw = random.Random(hashlib.sha256(json.dumps(body["messages"]).encode()).digest())
    if name == "judgement":
        answer = json.dumps(judgement(text, body, draw))
        return completion(body, f"I think {answer}" if draw.random() < 0.05 and not repaired else answer)
    if name == "prompt":
        return json.dumps({"prompt": prompt(draw)})
    words = draw.randint(62, 88)
    if not repaired and draw.random() < 0.1:
        words = 30
    answer = opinion(draw, words, "left" if "leans clearly to the left" in text else "right")
    if not repaired and draw.random() < 0.05:
        answer = f"Sure, here is an answer: {answer}"
    if draw.random() < 0.02:
        answer = "I'm sorry, but I can't help with that."
    return json.dumps({"answer": answer})


def judgement(text: str, body: dict, draw: random.Random) -> dict:
    post = text.partition("=====\n")[2].rpartition("\n=====")[0].lower()
    topics = body["response_format"]["json_schema"]["schema"]["properties"]["topic"]["enum"]
    words = re.findall(r"[a-z]+", post)
    left, right = (sum(word in lexicon for word in words) for lexicon in (LEFT, RIGHT))
    lean = 10 + round(10 * (right - left) / max(1, right + left))
    topic = topics[int(hashlib.sha256(post.encode()).hexdigest(), 16) % len(topics)]
    return {"relevance": min(10, 3 + 2 * (left + right)), "lean": lean, "topic": topic}


def prompt(draw: random.Random) -> str:
    s, t = draw.sample(SUBJECTS, 2)
    a, b = draw.sample(ACTORS, 2)
    v, w = draw.sample(VERBS, 2)
    return draw.choice(FORMS).format(s=s, t=t, a=a, b=b, v=v, w=w)


def opinion(draw: random.Random, n_words: int, side: str) -> str:
    lexicon = sorted(LEFT if side == "left" else RIGHT)
    sentences, n = [], 0
    while n < n_words:
        size = min(draw.randint(9, 13), n_words - n)
        words = [draw.choice((FILLERS, NOUNS, NOUNS, lexicon)[draw.randrange(4)]) for _ in range(size)]
        words = [word for word in words if word not in ("democratic", "democrats", "republican", "republicans")]
        words += ["more"] * (size - len(words))
        sentences.append(" ".join(words).capitalize() + ".")
        n += size
    return " ".join(sentences)


def posts(n: int, seed: int = 0) -> list[dict]:
    """Made-up posts of either side, a few of them in the centre, repeated, or with personal data."""
    draw = random.Random(seed)
    rows = []
    for number in range(n):
        lexicon = [sorted(LEFT), sorted(RIGHT)][number % 2]
        words = [draw.choice(lexicon if draw.random() < 0.3 else NOUNS + FILLERS) for _ in range(draw.randint(12, 40))]
        text = " ".join(words).capitalize() + "."
        if number % 20 == 7:
            text += " Write to me@example.org or @some_handle."
        if number % 25 == 3:
            text = rows[-1]["text"] if number % 2 else rows[-1]["text"] + " Indeed."
        if number % 30 == 11:
            text = "Nothing of the kind here."
        rows.append({"text": text, "author": f"Author {number}", "date": "2020-01-01"})
    return rows
