# SPDX-License-Identifier: MIT
"""Optional components that read texts with a model: how offensive each one is, and which of them mean the same.

A config names one as ``toxicity`` or ``embeddings``; null, the default, leaves the gate out. Any component of your own
works in their place if it builds a ``Score``, from texts to numbers from 0 (harmless) to 1, or an ``Embed``, from texts
to vectors of any length, ``[N, D]``. A model is loaded at the first call, and again in each worker.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from omegaconf import DictConfig

from data.language import sentences

Score = Callable[[Sequence[str]], Sequence[float]]
Embed = Callable[[Sequence[str]], np.ndarray]
BLOCK = 2_000  # rows of the matrix of all similarities that are in memory at once
MODELS = ("toxicity", "embeddings")  # keys of a config that name a component of this kind

_log = logging.getLogger(__name__)


class Cap(NamedTuple):
    """The most that a text may score, the same for both sides."""

    score: Score
    limit: float

    def reasons(self, texts: Sequence[str]) -> list[str | None]:
        """Return, for each text, its score as a reason if that is over the limit."""
        scores = list(map(float, self.score(list(texts)))) if texts else []
        bad = [value for value in scores if not 0 <= value <= 1]
        if bad or len(scores) != len(texts):
            given = f"{bad[0]:g}" if bad else f"{len(scores)} numbers for {len(texts)} texts"
            raise ValueError(f"toxicity gave {given}; want a number from 0 to 1 for each text")
        lengths = [len(text.split()) for text in texts]
        return [
            f"scored {value:.3f}, at most {self.limit:g} ({n} words)" if value > self.limit else None
            for value, n in zip(scores, lengths)
        ]


@dataclass(frozen=True)
class Alike:
    """Finds the texts that mean the same: those whose vectors have a cosine of at least ``least``."""

    embed: Embed
    least: float

    def __call__(self, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield index and higher index of each such pair; compares all, so for some ten thousand texts."""
        vectors = np.asarray(self.embed(list(texts)) if texts else np.empty((0, 1)), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ValueError(f"embeddings gave {vectors.shape} for {len(texts)} texts; want a vector for each")
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        for start in range(0, len(vectors), BLOCK):
            block = vectors[start : start + BLOCK] @ vectors[start:].T
            for i, j in np.argwhere(np.triu(block, 1) >= self.least).tolist():
                yield start + i, start + j


def read_cap(cfg: DictConfig) -> Cap | None:
    """Build the cap of a config's ``toxicity`` and ``max_toxicity``; None where the first is null."""
    return Cap(_build(cfg.toxicity), cfg.max_toxicity) if cfg.toxicity else None


def read_alike(cfg: DictConfig) -> Alike | None:
    """Build the search of a config's ``embeddings`` and ``min_cosine``; None where the first is null."""
    return Alike(_build(cfg.embeddings), cfg.min_cosine) if cfg.embeddings else None


def _build(node: DictConfig) -> Callable[[Sequence[str]], Any]:
    from torchtune import config  # here: whoever only looks for defects starts without torch

    return config.instantiate(node)


class OffensiveWords:
    """How likely a text is profane or offensive: alt-profanity-check, a linear model that its wheel brings along.

    The score is that of the text's worst sentence. Over a whole text the model divides by its length: one insult falls
    from 1.0 among 10 words to .06 among 500. Fast, English, and fooled by words without their context: the name of a
    group of people may score over .5 by itself. A :class:`TextClassifier` reads whole sentences.
    """

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Score texts."""
        try:
            from profanity_check import predict_prob
        except ImportError as error:
            raise ImportError('OffensiveWords needs pip install -c constraints.txt -e ".[toxicity]"') from error
        parts = [sentences(text) or [text] for text in texts]
        scores = iter(predict_prob([part for of_text in parts for part in of_text]).tolist() if texts else [])
        return [max(next(scores) for _ in of_text) for of_text in parts]


@dataclass(eq=False)
class _FolderModel:
    """A pipeline of transformers whose model lies in a folder (or in the Hub's cache), loaded at the first use."""

    task: ClassVar[str]
    folder: str
    _: KW_ONLY
    device: str = "cpu"
    batch_size: int = 16
    max_tokens: int = 512

    def __post_init__(self) -> None:
        folder = Path(self.folder)
        if not (folder.exists() or folder.is_absolute() or self.folder.startswith((".", "~"))):
            return  # OWNER/NAME of the Hub
        # without its tokenizer transformers makes an empty one, to which all texts are alike
        for what, names in (("config.json", ["config.json"]), ("tokenizer", ["tokenizer*", "vocab*", "*.model"])):
            if not any(any(folder.glob(name)) for name in names):
                raise FileNotFoundError(
                    f"folder={folder}: no {what} there; give a model's folder in Hugging Face format"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_pipeline"}

    @cached_property
    def _pipeline(self) -> Any:
        from transformers import pipeline

        try:
            loaded = pipeline(self.task, model=self.folder, device=self.device)
        except (ValueError, OSError) as error:
            raise ValueError(f"folder={self.folder}: transformers cannot load it ({error!s:.200})") from error
        loaded.tokenizer.pad_token = loaded.tokenizer.pad_token or loaded.tokenizer.eos_token
        loaded.tokenizer.padding_side = "right"
        loaded.model.config.pad_token_id = loaded.tokenizer.pad_token_id  # a decoder finds the last token by it
        return loaded

    def _outputs(self, texts: Sequence[str], read: Callable[[Any, int], Any], **options: Any) -> list[Any]:
        """Return what ``read`` makes of each text's output and number of tokens; similar lengths go together."""
        if not texts:
            return []
        lengths = [len(ids) for ids in self._pipeline.tokenizer(list(texts))["input_ids"]]
        if n_cut := sum(length > self.max_tokens for length in lengths):
            _log.warning("%s: read the first %d tokens alone of %d texts", self.folder, self.max_tokens, n_cut)
        order = np.argsort(lengths, kind="stable").tolist()
        outputs = self._pipeline((texts[k] for k in order), batch_size=self.batch_size, **options)
        results = {k: read(output, min(lengths[k], self.max_tokens)) for k, output in zip(order, outputs)}
        return [results[k] for k in range(len(texts))]


@dataclass(eq=False)
class TextClassifier(_FolderModel):
    """How likely a label is, by a classifier of texts that lies in a folder.

    Args:
        folder: Holds model and tokenizer.
        label: Name of the label whose probability is the score, such as ``toxic``.
        device: Torch's name of one.
        batch_size: Texts of a forward.
        max_tokens: Tokens that are read of a text; how many texts are longer is logged.
    """

    task = "text-classification"
    label: str

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Score texts."""
        settings = self._pipeline.model.config
        if self.label not in settings.label2id:
            raise ValueError(f"{self.folder}: no label {self.label!r}; use one of {', '.join(settings.label2id)}")
        is_alone = settings.num_labels == 1 or settings.problem_type == "multi_label_classification"
        return self._outputs(
            texts,
            lambda output, _: next(entry["score"] for entry in output if entry["label"] == self.label),
            top_k=None,
            function_to_apply="sigmoid" if is_alone else "softmax",
            truncation=True,
            max_length=self.max_tokens,
        )


class TextEncoder(_FolderModel):
    """Vectors of texts: the mean of the last hidden states of any model in a folder; arguments as TextClassifier."""

    task = "feature-extraction"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors, float ``[N, D]``."""
        return np.array(
            self._outputs(
                texts,
                lambda states, n_tokens: states[0, :n_tokens].float().mean(0).numpy(),
                return_tensors=True,
                tokenize_kwargs={"truncation": True, "max_length": self.max_tokens},
            )
        )
