# SPDX-License-Identifier: MIT
"""Optional components that look at texts with a model: how offensive each one is, and which of them mean the same.

A config names one as ``toxicity`` or ``embeddings``; null, the default, leaves the gate out. Any component of your own
works in their place if it builds the same kind of callable:

- ``Score``: from texts to numbers from 0 (harmless) to 1, such as :class:`OffensiveWords` and :class:`TextClassifier`;
- ``Embed``: from texts to vectors of any length, ``[N, D]``, such as :class:`TextEncoder`.

A model is loaded at the first call, and again in each worker.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig

Score = Callable[[Sequence[str]], Sequence[float]]
Embed = Callable[[Sequence[str]], np.ndarray]
BLOCK = 2_000  # rows of the matrix of all similarities that are in memory at once
MODELS = ("toxicity", "embeddings")  # keys of a config that name a component of this kind

_log = logging.getLogger(__name__)


class Cap(NamedTuple):
    """Most that a text may score; the same for both sides."""

    score: Score
    limit: float

    def reasons(self, texts: Sequence[str]) -> list[str | None]:
        """Say of each text what it scores if that is over the limit."""
        scores = list(map(float, self.score(list(texts)))) if texts else []
        bad = [value for value in scores if not 0 <= value <= 1]
        if bad or len(scores) != len(texts):
            found = f"{bad[0]:g}" if bad else f"{len(scores)} numbers for {len(texts)} texts"
            raise ValueError(f"toxicity gave {found}; want a number from 0 to 1 for each text")
        return [f"scored {value:.3f}, at most {self.limit:g}" if value > self.limit else None for value in scores]


class Alike(NamedTuple):
    """Which texts mean the same: those whose vectors have a cosine of at least ``least``."""

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
    """Build what ``toxicity`` and ``max_toxicity`` of a config say; None where the first is null."""
    if not 0 <= cfg.max_toxicity <= 1:
        raise ValueError(f"max_toxicity={cfg.max_toxicity}; use a number from 0 to 1")
    return Cap(_build(cfg.toxicity), cfg.max_toxicity) if cfg.toxicity else None


def read_alike(cfg: DictConfig) -> Alike | None:
    """Build what ``embeddings`` and ``min_cosine`` of a config say; None where the first is null."""
    if not 0 < cfg.min_cosine <= 1:
        raise ValueError(f"min_cosine={cfg.min_cosine}; use a number up to 1 and above 0")
    return Alike(_build(cfg.embeddings), cfg.min_cosine) if cfg.embeddings else None


def _build(node: DictConfig) -> Callable[[Sequence[str]], Any]:
    from torchtune import config  # here: whoever only looks for defects starts without torch

    return config.instantiate(node)


class OffensiveWords:
    """How likely a text is profane or offensive: alt-profanity-check, a linear model that its wheel brings along.

    Fast, English, and fooled by words without their context; a :class:`TextClassifier` reads whole sentences.
    """

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Score texts.

        Raises:
            ImportError: If alt-profanity-check is not installed.
        """
        try:
            from profanity_check import predict_prob
        except ImportError as error:
            raise ImportError('OffensiveWords needs pip install -c constraints.txt -e ".[toxicity]"') from error
        return predict_prob(list(texts)).tolist() if texts else []


class _FolderModel:
    """A Transformers model of a local folder (or of the Hub's cache), run in batches.

    Args:
        folder: Holds model and tokenizer.
        device: Torch's name of one.
        batch_size: Texts of a forward.
        max_tokens: What a text has beyond them is not read; how many texts were cut is logged.
    """

    auto_class: str

    def __init__(self, folder: str, device: str = "cpu", batch_size: int = 16, max_tokens: int = 512) -> None:
        self.folder, self.device, self.batch_size, self.max_tokens = folder, device, batch_size, max_tokens

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_loaded"}

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import transformers

        model = getattr(transformers, self.auto_class).from_pretrained(self.folder)
        return transformers.AutoTokenizer.from_pretrained(self.folder), model.to(self.device).eval()

    def _forward(self, texts: Sequence[str], read: Callable[[Any, Any], Any]) -> list[np.ndarray]:
        """Return what ``read`` makes of outputs and mask, text by text; similar lengths go together."""
        if not texts:
            return []
        import torch

        tokenizer, model = self._loaded
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        tokenizer.padding_side = "right"
        model.config.pad_token_id = tokenizer.pad_token_id  # a decoder finds the last token by it
        ids = tokenizer(list(texts))["input_ids"]
        if n_cut := sum(len(own) > self.max_tokens for own in ids):
            _log.warning("%s: read the first %d tokens alone of %d texts", self.folder, self.max_tokens, n_cut)
        order, found = sorted(range(len(texts)), key=lambda k: len(ids[k])), {}
        for start in range(0, len(texts), self.batch_size):
            own = order[start : start + self.batch_size]
            batch = tokenizer(
                [texts[k] for k in own], padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            ).to(self.device)
            with torch.inference_mode():
                rows = read(model(**batch), batch["attention_mask"]).float().cpu().numpy()
            found.update(zip(own, rows))
        return [found[k] for k in range(len(texts))]


class TextClassifier(_FolderModel):
    """How likely a label is, by a classifier of texts that lies in a folder.

    Args:
        folder: Holds model and tokenizer; the others as for :class:`TextEncoder`.
        label: Name of the label whose probability is the score, such as ``toxic``.
        device, batch_size, max_tokens: See there.
    """

    auto_class = "AutoModelForSequenceClassification"

    def __init__(
        self, folder: str, label: str, device: str = "cpu", batch_size: int = 16, max_tokens: int = 512
    ) -> None:
        super().__init__(folder, device, batch_size, max_tokens)
        self.label = label

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Score texts.

        Raises:
            ValueError: If the model has no such label.
        """
        about = self._loaded[1].config
        if self.label not in about.label2id:
            raise ValueError(f"{self.folder}: no label {self.label!r}; use one of {', '.join(about.label2id)}")
        apart = about.num_labels == 1 or about.problem_type == "multi_label_classification"

        def read(outputs: Any, mask: Any) -> Any:
            probabilities = outputs.logits.sigmoid() if apart else outputs.logits.softmax(-1)
            return probabilities[:, about.label2id[self.label]]

        return list(map(float, self._forward(texts, read)))


class TextEncoder(_FolderModel):
    """Vectors of texts: the mean of the last hidden states of an encoder, or any other model, that lies in a folder."""

    auto_class = "AutoModel"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors, float ``[N, D]``."""

        def read(outputs: Any, mask: Any) -> Any:
            weights = mask.unsqueeze(-1).to(outputs.last_hidden_state.dtype)
            return (outputs.last_hidden_state * weights).sum(1) / weights.sum(1)

        return np.array(self._forward(texts, read))
