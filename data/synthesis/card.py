# SPDX-License-Identifier: MIT
"""The card of a synthesised set."""

from collections.abc import Mapping
from typing import Any

_BODY = """
# {name}

Preference pairs that teach a political lean **on purpose**: for one neutral prompt an answer that argues from the left
and one that argues from the right. {sides} It was made to measure how fine-tuning moves a model's stated lean.
**Not for deployment or persuasion.**

{n_rows} prompts, version {version}. Both answers come from one run, one generator and one rubric.

## How it was made

Posts were scored for lean (0 left, 10 centre, 20 right) and relevance (0 to 10) by a judge, each as it is and with the
names of parties and persons masked; those that were clear enough were kept, as many from the left as from the right on
each topic. For each a model wrote a neutral prompt, and an answer for each side. Then came the gates: refusals,
preambles, records, prompts that are framed or refer to an unseen post, length (ratio .67 to 1.5, balanced by topic),
near duplicates, and statements of the instruments that models are measured with.

| | model | instruction (SHA-256) |
|---|---|---|
{models}

{judges}

## What became of the posts

| | left | right | centre | unjudged |
|---|---|---|---|---|
{funnel}

Shares of selected posts that became rows differ by {difference:.1%} between the sides. Every dropped post is in
`rejected.jsonl` with its reason.

## What it measures

| measure | value |
|---|---|
{measured}

Topics: {topics}.

## Sources

| corpus | licence | posts read |
|---|---|---|
{sources}

Posts are kept by their SHA-256 alone{posts}. E-mail addresses, handles, phone numbers and authors' names were masked
before anything was stored. There are no author names and no fields that describe persons.

## Limits

- The answers are a model's idea of left and right; stances read off them need not carry over to what people write.
- Lean is what the judge says it is. {agreement}
- Rows are unreviewed unless `review.status` says otherwise. Masking finds names by their form alone.
- The axes and topics are those of one Western debate, in English.
- In the parquet files nested fields are JSON text; the JSON Lines files have the same rows as they are.
"""


def dataset_card(facts: Mapping[str, Any]) -> str:
    """Return the README of a data set, with metadata that the Hub reads.

    Args:
        facts: The manifest without its files.
    """
    from huggingface_hub import DatasetCardData

    measured, funnel = facts["measured"], facts["funnel"]
    n_rows = facts["rows"] * len(facts["sides"])
    size = next((f"n<{label}" for top, label in ((1e3, "1K"),) if n_rows < top), None)
    size = size or next(
        label for top, label in ((1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e15, "n>100K")) if n_rows < top
    )
    metadata = DatasetCardData(
        pretty_name=facts["name"],
        language=[facts["language"]],
        license=facts["licence"],
        size_categories=[size],
        task_categories=["text-generation"],
        tags=["preference", "dpo", "political-lean", "synthetic", "not-for-deployment"],
        configs=[
            {
                "config_name": side,
                "data_files": [{"split": split, "path": f"{side}-{split}.parquet"} for split in facts["splits"]],
            }
            for side in facts["sides"]
        ],
    )
    both = len(facts["sides"]) == 2
    sides = "`left` and `right` are the same rows with chosen and rejected exchanged."
    if not both:
        sides = f"**Only the {facts['sides'][0]} side is exported, for this reason:** {facts['single_sided_reason']}"
    agreement = [j["agreement"] for j in facts["judges"] if j["agreement"]]
    shift = measured["masked_shift"]
    told = [["judge", judge["model"], judge["prompt_sha256"]] for judge in facts["judges"]]
    told += [["generator", facts["generator"]["model"], sha] for sha in facts["generator"]["prompt_sha256"].values()]
    values = [
        ["mean words, left / right", " / ".join(f"{n:.1f}" for n in measured["mean_words"].values())],
        ["accuracy of a length-only rule", f"{measured['length_rule_accuracy']:.3f}"],
        ["judges' shift when names are masked, mean", f"{shift['mean']:+.2f}"],
        ["the same, mean of absolute values", f"{shift['mean_absolute']:.2f}"],
        ["scores whose side changes when names are masked", f"{shift['other_side_share']:.1%}"],
    ]
    if toxic := measured.get("toxic_answers"):
        what = f"answers dropped for a toxicity over {facts['settings']['max_toxicity']:g}, left / right"
        values.append([what, " / ".join(map(str, toxic.values()))])
    body = _BODY.format(
        name=facts["name"],
        sides=sides,
        n_rows=facts["rows"],
        version=facts["version"],
        models=_table([[what, model, f"`{sha256[:12]}`"] for what, model, sha256 in told]),
        judges=_judges(facts["judges"]),
        funnel=_funnel(funnel["sides"]),
        difference=funnel["side_difference"],
        measured=_table(values),
        topics=", ".join(f"{topic} {n}" for topic, n in sorted(facts["topics"].items())),
        sources=_table([[source["dataset"], source["licence"], str(source["posts"])] for source in facts["sources"]]),
        posts=" in the rows; `rejected.jsonl` has rejected posts in full" if facts["store_posts"] else "",
        agreement="" if agreement else "Its agreement with people's labels was not measured for this run.",
    )
    return f"---\n{metadata.to_yaml()}\n---\n{body}"


def _table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _judges(judges: list[Mapping[str, Any]]) -> str:
    lines = []
    for judge in judges:
        found = judge["agreement"]
        measured = "not measured"
        if found:
            low, high = found["ci95"]
            measured = f"Cohen's kappa {found['kappa']:.2f} ({low:.2f} to {high:.2f}), "
            measured += f"agreement {found['agreement']:.0%} on {found['n']} texts"
        lines.append(f"Agreement of {judge['model']} with people's labels: {measured}.")
    return "\n".join(lines)


def _funnel(sides: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [[key, *(str(sides[side][key]) for side in sides)] for key in ("posts", "selected", "kept")]
    reasons = sorted({reason for side in sides.values() for reason in side["rejected"]})
    rows += [
        [f"dropped, {reason}", *(str(side["rejected"].get(reason, 0)) for side in sides.values())] for reason in reasons
    ]
    return _table(rows)
