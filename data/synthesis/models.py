# SPDX-License-Identifier: MIT
"""The questions to language models: judgements of posts, a neutral prompt for each, an answer of every view.

Each post is judged twice, as it is and with the names of parties and persons masked, since language models follow
such cues (arXiv 2408.15895). How far the masks move the score is kept with every post. Prompts and answers come from
one generator by one rubric, whatever their side.
"""

import re
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from data.chat import ChatClient, Failure, Reply, Request
from data.chat.replies import Messages, object_format, object_parser
from data.judging.scales import PostScale, load_instruction, load_views
from data.pairs.records import SIDES
from data.quality.phrases import PROMPT_GATES, TEXT_GATES, wrong_size
from data.synthesis.stages import Document, DocumentsPipeline, PipelineStep, StageReader, reject

PROMPT_WORDS = (8, 40)
Gates = Sequence[Callable[[str], str | None]]

_PARTY = re.compile(
    r"\b(?:democrats?|(?-i:Democratic)(?: party)?|republicans?(?: party)?|gop|dems?|maga|tor(?:y|ies)|lib ?dems?|"
    r"(?-i:Labour|Conservatives?|Liberals?|Greens?|Progressives?)(?: party)?|(?:labor|socialist|communist|green) party|"
    r"left-?wing(?:ers?)?|right-?wing(?:ers?)?|leftists?|rightists?)\b",
    re.IGNORECASE,
)
_TITLED = re.compile(
    r"\b(President|Senator|Sen\.|Governor|Gov\.|Congress(?:wo)?man|Rep\.|Minister|Chancellor|Secretary|Mayor|Judge|"
    r"Justice|Mr\.?|Mrs\.?|Ms\.?|Dr\.)(?: [A-Z][\w'’-]+)+"
)
_RUN = re.compile(r"\b[A-Z][a-z'’-]+(?: [A-Z]\.)?(?: [A-Z][a-z'’-]+){1,2}\b")
# Capitalised words that name a thing and not a person; a run that has one stays.
_THINGS = frozenset(
    """Act Affairs Agency America American Army Bank Bill Care Center Church City Congress Constitution Council County
    Court Day Department East Federal First Force General Government Health High House International Justice Law March
    Medicaid Medicare National Nations New North Office Public Reserve School Security Senate Social South State States
    Street Supreme Tax Union United University War West White World I The This That These We They He She It In On And
    But If For Our My Your No Not As At By From To""".split()
)


def mask_names(text: str) -> str:
    """Put ``[PARTY]`` and ``[NAME]`` where a party, its people or a person are named.

    Persons are found by form alone (a title, or a run of capitalised words), so lower-case names stay.
    """
    text = _PARTY.sub("[PARTY]", _TITLED.sub(r"\1 [NAME]", text))
    return _RUN.sub(lambda match: match[0] if _THINGS & set(match[0].split()) else "[NAME]", text)


class Rubric(NamedTuple):
    """The questions to the generator: shipped names or paths of their texts, and what an answer may be.

    ``structured`` tells the server the form of the answer (``response_format``). Each of ``sides`` gets an answer.
    """

    instruction: str = "instruction"
    answer: str = "answer"
    views: str = "views"
    structured: bool = True
    n_words: tuple[int, int] = (60, 90)
    sides: tuple[str, ...] = SIDES

    def sha256(self) -> dict[str, str]:
        """Return the hash of each text."""
        prompt, answer = load_instruction(self.instruction), load_instruction(self.answer)
        return {"prompt": prompt.sha256, "answer": answer.sha256, "views": load_views(self.views)[0]}

    def prompt_request(self, post: str, topic: str) -> Request:
        """Return the request for a prompt on the subject of a post."""
        messages = load_instruction(self.instruction).messages(text=post, topic=topic.replace("_", " "))
        gates = (*TEXT_GATES, *PROMPT_GATES, lambda prompt: wrong_size(prompt, PROMPT_WORDS))
        return self._request(messages, "prompt", gates)

    def answer_request(self, prompt: str, axis: str, side: str) -> Request:
        """Return the request for one side's answer; two sides' differ in the view alone."""
        least, most = self.n_words
        messages = load_instruction(self.answer).messages(
            prompt=prompt, view=load_views(self.views)[1][axis, side], least=str(least), most=str(most)
        )
        return self._request(messages, "answer", (*TEXT_GATES, lambda answer: wrong_size(answer, self.n_words)))

    def _request(self, messages: Messages, field: str, gates: Gates) -> Request:
        form = {"response_format": object_format({field: str}, field)} if self.structured else {}
        return Request(messages, _text_parser(field, gates), form)


def _text_parser(field: str, gates: Gates) -> Callable[[str], str]:
    """Return a reader of ``{field: text}`` that names every gate which the text fails, so that it can be repaired."""
    read = object_parser({field: str})

    def parse(reply: str) -> str:
        text = read(reply)[field].strip()
        problems = [problem for gate in gates if (problem := gate(text))]
        if problems:
            raise ValueError(f"the {field} fails: {'; '.join(problems)}")
        return text

    return parse


class _Asking(PipelineStep):
    """Ask a model about each document, in order; a document with a call that failed is out.

    The questions come from a scale or a rubric. The reader of the documents is needed for the time left.
    """

    n_calls = 1  # a document

    def __init__(self, client: ChatClient, questions: Any, reader: StageReader, max_unanswered: int) -> None:
        super().__init__()
        self.client, self.questions, self.reader, self.max_unanswered = client, questions, reader, max_unanswered

    @abstractmethod
    def requests(self, document: Document) -> list[tuple[str, Request]]:
        """Return the questions about a document, each with a name for the reason if it fails."""

    @abstractmethod
    def use(self, document: Document, replies: list[Reply]) -> None:
        """Put the answers where they belong."""

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield every document with its answers, or rejected.

        Raises:
            RuntimeError: If too many have calls that were not answered. Going on would leave out what only a server's
                trouble has kept back.
        """
        waiting: deque[tuple[Document, list[str]]] = deque()

        def all_requests() -> Iterator[Request]:
            for document in data:
                requests = self.requests(document)
                waiting.append((document, [name for name, _ in requests]))
                yield from (request for _, request in requests)

        n_unanswered, why, total = 0, "", self.n_calls * self.reader.count(world_size)
        results = self.client.chat_many(all_requests(), total, f"{self.name}, task {rank}")
        for _, first in results:
            document, names = waiting.popleft()
            named = list(zip(names, [first, *(next(results)[1] for _ in names[1:])]))
            replies = [result for _, result in named if isinstance(result, Reply)]
            failures = [(name, result) for name, result in named if isinstance(result, Failure)]
            if failures:
                name, failure = failures[0]
                reject(document, self.name, f"{name} {failure.kind}", failure.reason)
                unanswered = [failure.reason for _, failure in failures if failure.kind == "unanswered"]
                n_unanswered, why = n_unanswered + bool(unanswered), why or next(iter(unanswered), "")
            else:
                tokens = [document.metadata.get("n_tokens", [0, 0]), *(reply.n_tokens for reply in replies)]
                document.metadata["n_tokens"] = [sum(part) for part in zip(*tokens)]  # whether paid now or before
                self.use(document, replies)
            yield document
        if n_unanswered > self.max_unanswered:
            raise RuntimeError(
                f"{n_unanswered} documents have calls that {self.client.base_url} did not answer, max_unanswered="
                f"{self.max_unanswered}; the first: {why}. Mend what that says (base_url, model, params), and start "
                "the same command again to ask for these alone, or set "
                f"max_unanswered={n_unanswered} to go on without them"
            )


class JudgePosts(_Asking):
    """Adds the scores of one judge to ``judges``, and ``n_tokens``; reads the text."""

    type = "⚖️ - JUDGE"
    name = "judge"
    n_calls = 2
    questions: PostScale

    def requests(self, document: Document) -> list[tuple[str, Request]]:
        """Ask for the text as it is, and masked."""
        return [(self.name, self.questions.request(text)) for text in (document.text, mask_names(document.text))]

    def use(self, document: Document, replies: list[Reply]) -> None:
        """Keep both scores."""
        plain, masked = replies
        scores = {
            "model": self.client.model,
            "revision": plain.model,
            "prompt_sha256": load_instruction(self.questions.instruction).sha256,
            "score": plain.parsed["lean"],
            "masked_score": masked.parsed["lean"],
            "relevance": plain.parsed["relevance"],
            "topic": plain.parsed["topic"],
            "raw": plain.text,
        }
        document.metadata.setdefault("judges", []).append(scores)


class WritePrompts(_Asking):
    """Puts a neutral prompt in the place of the post's text; reads ``topic``."""

    type = "✍️ - GENERATOR"
    name = "prompts"
    questions: Rubric

    def requests(self, document: Document) -> list[tuple[str, Request]]:
        """Ask for one prompt."""
        return [("prompt", self.questions.prompt_request(document.text, document.metadata["topic"]))]

    def use(self, document: Document, replies: list[Reply]) -> None:
        """Drop the post: from here on the text is the prompt."""
        document.text = replies[0].parsed


class WriteAnswers(_Asking):
    """Adds ``answers``, by side, and ``generator``; reads the prompt (the text) and ``axis``."""

    type = "✍️ - GENERATOR"
    name = "answers"
    questions: Rubric

    def __init__(self, client: ChatClient, questions: Rubric, reader: StageReader, max_unanswered: int) -> None:
        super().__init__(client, questions, reader, max_unanswered)
        self.n_calls = len(questions.sides)

    def requests(self, document: Document) -> list[tuple[str, Request]]:
        """Ask for one answer of each side."""
        axis = document.metadata["axis"]
        return [(side, self.questions.answer_request(document.text, axis, side)) for side in self.questions.sides]

    def use(self, document: Document, replies: list[Reply]) -> None:
        """Keep the answers of all sides."""
        document.metadata["answers"] = {side: reply.parsed for side, reply in zip(self.questions.sides, replies)}
        document.metadata["generator"] = {"model": self.client.model, "revision": replies[0].model}
