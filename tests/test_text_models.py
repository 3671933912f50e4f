# SPDX-License-Identifier: MIT
"""Toxicity and embeddings: what a component must give, the shipped ones, and the gates that they stand behind."""

import json
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import REPO
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from data import audit, text_models
from data.quality.duplicates import near_duplicate_clusters
from data.synthesis.gates import GateSettings, check_rows
from data.synthesis.posts import distinct_posts, select_posts
from data.synthesis.stages import Document
from data.text_models import Alike, Cap, OffensiveWords, TextClassifier, TextEncoder

WORDS = "you are a vile kind stupid gentle person we think rents taxes should fall rise and".split()
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def sentences(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(3, 12))) for _ in range(n)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny classifier that learns within a second that two of the words are toxic."""
    path = tmp_path_factory.mktemp("classifier")
    vocabulary = {word: k for k, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {"id2label": {0: "fine", 1: "toxic"}, "label2id": {"fine": 0, "toxic": 1}}
    model = BertForSequenceClassification(BertConfig(vocab_size=len(vocabulary), **sizes, **labels))
    texts = sentences(200, seed=0)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    target = torch.tensor([int("vile" in text or "stupid" in text) for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch, labels=target).loss.backward()
        optimizer.step()
    model.save_pretrained(path)
    return str(path)


def test_a_classifier_scores_the_label_that_is_named(folder):
    texts = sentences(40, seed=1)
    scores = TextClassifier(folder, "toxic", batch_size=7)(texts)
    truth = ["vile" in text or "stupid" in text for text in texts]
    assert np.mean([(score > 0.5) == toxic for score, toxic in zip(scores, truth)]) >= 0.95
    other = TextClassifier(folder, "fine")(texts)
    assert np.add(scores, other) == pytest.approx(1, abs=1e-5)
    # neither its place nor what stands beside it changes a text's score
    assert TextClassifier(folder, "toxic")(texts[::-1])[::-1] == pytest.approx(scores, abs=1e-5)
    assert TextClassifier(folder, "toxic")([]) == []


def test_a_folder_without_its_tokenizer_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer there"):
        TextEncoder(str(copy))
    with pytest.raises(FileNotFoundError, match=r"none: no config.json there"):
        TextEncoder(str(tmp_path / "none"))
    TextEncoder("owner/name")  # perhaps in the Hub's cache


def test_a_folder_whose_config_names_no_architecture_is_read_and_one_of_no_model_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    texts = ["you are kind", "rents should fall"]
    for key in ("architectures", "model_type"):
        del config[key]
        (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
        encoder = TextEncoder(str(tmp_path / "copy"))
        if key == "architectures":
            assert np.array_equal(encoder(texts), TextEncoder(folder)(texts))
    with pytest.raises(ValueError, match=r"folder=.*copy: transformers cannot load it \(Unrecognized model"):
        encoder(texts)


def test_labels_that_are_not_exclusive_are_read_apart(folder, tmp_path):
    model = BertForSequenceClassification.from_pretrained(folder, problem_type="multi_label_classification")
    model.save_pretrained(tmp_path)
    PreTrainedTokenizerFast.from_pretrained(folder).save_pretrained(tmp_path)
    batch = PreTrainedTokenizerFast.from_pretrained(folder)(["you are vile"], return_tensors="pt")
    with torch.no_grad():
        wanted = model.eval()(**batch).logits.sigmoid()[0, 1].item()
    assert TextClassifier(str(tmp_path), "toxic")(["you are vile"]) == pytest.approx([wanted], abs=1e-5)


def test_an_unknown_label_is_refused_with_those_there_are(folder):
    with pytest.raises(ValueError, match="no label 'toxicity'; use one of fine, toxic"):
        TextClassifier(folder, "toxicity")(["you"])


def test_an_encoder_gives_mean_hidden_states(folder, caplog):
    texts = sentences(9, seed=2)
    encoder = TextEncoder(folder, batch_size=4)
    found = encoder(texts)
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    for text, vector in zip(texts, found):
        with torch.no_grad():
            mean = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        assert vector == pytest.approx(mean, abs=1e-4)
    # a worker gets the settings, not the weights
    assert len(pickle.dumps(encoder)) < 1000
    assert pickle.loads(pickle.dumps(encoder))(texts) == pytest.approx(found, abs=1e-5)
    TextEncoder(folder, max_tokens=4)(["we think rents should fall", "we think"])
    assert "read the first 4 tokens alone of 1 texts" in caplog.text


def test_offensive_words():
    insult, argument = OffensiveWords()(["You stupid bastard, shut up.", "Rents should fall, and wages should rise."])
    assert insult > 0.9
    assert argument < 0.2
    assert OffensiveWords()([]) == []
    long = "Rents should fall, and wages should rise. " * 60  # a longer text is no kinder for it
    assert OffensiveWords()([long + "You stupid bastard, shut up."]) == pytest.approx([insult])


def test_a_missing_library_is_said_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "profanity_check", None)
    with pytest.raises(ImportError, match=r'-e "\.\[toxicity\]"'):
        OffensiveWords()(["x"])


def test_a_cap_says_what_was_scored_and_refuses_what_is_no_score():
    assert Cap(lambda texts: [0.2, 0.5, 0.51], 0.5).reasons(["a", "b", "c"]) == [
        None,
        None,
        "scored 0.510, at most 0.5 (1 words)",
    ]
    for scores, found in (([3], "3"), ([0.1, 0.2], "2 numbers for 1 texts")):
        with pytest.raises(ValueError, match=f"toxicity gave {found}; want a number from 0 to 1"):
            Cap(lambda texts, scores=scores: scores, 0.5).reasons(["a"])
    with pytest.raises(ValueError, match=r"embeddings gave \(2,\) for 1 texts; want a vector for each"):
        list(Alike(lambda texts: [1, 2], 0.9)(["a"]))


def test_alike_texts_are_found_across_blocks_and_joined_to_the_other_near_duplicates(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(30, 3))  # of any length: only their angles count
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = {(i, j) for i in range(30) for j in range(i + 1, 30) if unit[i] @ unit[j] >= 0.9}
    monkeypatch.setattr(text_models, "BLOCK", 7)
    found = list(Alike(lambda texts: vectors, 0.9)(["x"] * 30))
    assert len(found) == len(set(found)) > 10
    assert set(found) == wanted
    assert list(Alike(lambda texts: vectors, 0.9)([])) == []
    # 0 and 1 share their words, 1 and 3 their meaning, 2 nothing
    texts = ["what should rents be now", "what should rents be today now", "who pays", "how high may a landlord go"]
    means = np.array([[1, 0], [0.6, 0.8], [-1, 0], [0.5, 0.866]])
    assert near_duplicate_clusters(texts, 0.3) == [0, 0, 2, 3]
    assert near_duplicate_clusters(texts, 0.3, alike=Alike(lambda texts: means, 0.95)) == [0, 0, 2, 0]


def document(name: str, text: str, **about) -> Document:
    return Document(text=text, id=name, metadata=about)


def shouting(texts):
    return [float(text.isupper()) for text in texts]


def test_posts_over_the_cap_are_out_on_either_side_and_do_not_take_a_place():
    judged = {"relevance": 9, "topic": "drugs", "masked_score": 2, "score": 2}
    texts = ["THIS IS A SHOUT", "this is said", "THIS ONE TOO", "and this is said"]
    scores = (2, 2, 18, 18)
    documents = [
        document(f"{k}", text, judges=[judged | {"score": score, "masked_score": score}])
        for k, (text, score) in enumerate(zip(texts, scores))
    ]
    limits = {"min_relevance": 6, "min_distance": 4, "quota": None}
    done = select_posts(documents, {"drugs": "social"}, **limits, toxicity=Cap(shouting, 0.5))
    assert [d.metadata.get("rejected", {}).get("reason") for d in done] == ["toxicity", None, "toxicity", None]
    assert [d.metadata["side"] for d in done] == ["left", "left", "right", "right"]
    assert done[0].metadata["rejected"]["found"].startswith("scored 1.000, at most 0.5 (")


def test_answers_over_the_cap_are_out_and_counted_on_their_own_side():
    fine = "we think that rents in this town should fall soon because people who work here have to live here."
    answers = [{"left": fine.upper(), "right": fine + " yes."}, {"left": fine, "right": fine + " no."}]
    prompts = ("What do you think about rents in town?", "How should a council pay for its parks?")
    documents = [
        document(str(k), prompt, answers=own, topic="housing") for k, (prompt, own) in enumerate(zip(prompts, answers))
    ]
    settings = GateSettings([], 0.5, 0.25, SHARES, [], seed=0, language="en")
    done = check_rows(documents, settings, Cap(shouting, 0.5))
    assert done[0].metadata["toxic"] == ["left answer"]
    assert done[0].metadata["rejected"]["reason"] == "toxicity"
    assert done[0].metadata["rejected"]["found"].startswith("left answer: scored 1.000, at most 0.5 (")
    assert "toxic" not in done[1].metadata


def test_posts_that_say_the_same_in_other_words_are_one():
    texts = ["Rents must fall in this town.", "Housing here ought to be cheaper.", "Trams are late."]
    vectors = {texts[0]: [1, 0], texts[1]: [0.98, 0.199], texts[2]: [0, 1]}
    alike = Alike(lambda own: np.array([vectors[text] for text in own]), 0.9)
    done = distinct_posts([document(str(k), text) for k, text in enumerate(texts)], 0.5, alike)
    assert [d.metadata.get("rejected", {}).get("found") for d in done] == [None, "0", None]


def audited(tmp_path, name: str, rows: list[dict], **settings) -> dict:
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = OmegaConf.merge(
        OmegaConf.load(REPO / "configs" / "audit.yaml"),
        {"source": str(path), "side": "left", "output_dir": str(tmp_path / name)},
        settings,
    )
    recipe = audit.AuditRecipe(audit.check_config(cfg, audit.REQUIRED, audit.OPTIONAL, text_models.MODELS))
    recipe.setup()
    recipe.run()
    return json.loads((tmp_path / name / "report.json").read_text())


def test_an_audit_reports_both_and_leaves_out_what_nobody_looked_for(tmp_path, folder):
    prompts = (
        *(
            "Should rents be capped?",
            "Who ought to pay for trams?",
            "Is a wealth tax fair?",
            "Do farms need subsidies?",
        ),
        *("How long may a strike last?", "What makes a school good?", "Can courts be slow?", "When is a toll right?"),
    )
    rows = [
        {"prompt": prompt, "chosen": f"More of it is my answer {k}.", "rejected": f"Less of it is my answer {k}."}
        for k, prompt in enumerate(prompts)
    ]
    rows[3]["rejected"] = "You stupid bastards, shut up about parks."
    plain = audited(tmp_path, "plain", rows)
    assert "toxicity" not in {entry["kind"] for entry in plain["defects"]}
    gates = {gate["gate"]: gate for gate in plain["gates"]}
    assert (gates["toxicity"]["value"], gates["toxicity"]["passed"]) == (None, None)
    models = {
        "toxicity": {"_component_": "data.text_models.OffensiveWords"},
        # all of its prompts look alike to so small an encoder
        "embeddings": {"_component_": "data.text_models.TextEncoder", "folder": folder},
        "min_cosine": 0.5,
    }
    found = audited(tmp_path, "found", rows, **models)
    by_kind = {entry["kind"]: entry for entry in found["defects"]}
    assert [(e["row"], e["field"]) for e in by_kind["toxicity"]["examples"]] == [(4, "rejected")]
    assert {gate["gate"]: gate["passed"] for gate in found["gates"]}["toxicity"] is False
    before = {entry["kind"]: entry["rows"]["left"] for entry in plain["defects"]}
    assert before["near-duplicate prompt"] < by_kind["near-duplicate prompt"]["rows"]["left"] == len(rows)
