# SPDX-License-Identifier: MIT
"""A neutral prompt for each post, and for each prompt an answer of every view, by one generator and one rubric."""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from data.chat import ChatClient, Failure, Request
from data.chat.replies import object_format, object_parser
from data.judging.instructions import load_instruction, load_views
from data.quality import phrases as filters
from data.synthesis.annotate import add_tokens, check_unanswered
from data.synthesis.blocks import Document, DocumentsPipeline, PipelineStep
from data.synthesis.stages import StageReader, reject

PROMPT_WORDS = (8, 40)


def gated(field: str, gates: Sequence[Callable[[str], str | None]]) -> Callable[[str], str]:
    """Return a reader of ``{field: text}`` that names every gate which the text fails, so that it can be repaired."""
    read = object_parser({field: str})

    def parse(reply: str) -> str:
        text = read(reply)[field].strip()
        problems = [problem for gate in gates if (problem := gate(text))]
        if problems:
            raise ValueError(f"the {field} fails: {'; '.join(problems)}")
        return text

    return parse


def prompt_request(text: str, topic: str, instruction: str = "instruction", structured: bool = True) -> Request:
    """Return the request for a prompt on the subject of a post."""
    gates = (*filters.TEXT_GATES, *filters.PROMPT_GATES, lambda prompt: filters.wrong_size(prompt, PROMPT_WORDS))
    messages = load_instruction(instruction).messages(text=text, topic=topic.replace("_", " "))
    form = {"response_format": object_format({"prompt": str}, "prompt")} if structured else {}
    return Request(messages, gated("prompt", gates), form)


def answer_request(
    prompt: str,
    axis: str,
    side: str,
    n_words: tuple[int, int],
    instruction: str = "answer",
    views: str = "views",
    structured: bool = True,
) -> Request:
    """Return the request for one side's answer; two sides' differ in the view alone."""
    least, most = n_words
    messages = load_instruction(instruction).messages(
        prompt=prompt, view=load_views(views)[1][axis, side], least=str(least), most=str(most)
    )
    form = {"response_format": object_format({"answer": str}, "answer")} if structured else {}
    gates = (*filters.TEXT_GATES, lambda answer: filters.wrong_size(answer, n_words))
    return Request(messages, gated("answer", gates), form)


class _Asking(PipelineStep):
    """Ask the generator something of each document, in order; what it cannot use puts the document out."""

    type = "✍️ - GENERATOR"

    n_calls = 1  # a document

    def __init__(self, client: ChatClient, reader: StageReader, max_unanswered: int) -> None:
        super().__init__()
        self.client, self.reader, self.max_unanswered = client, reader, max_unanswered

    @abstractmethod
    def requests(self, document: Document) -> dict[str, Request]:
        """What is asked, by name."""

    @abstractmethod
    def use(self, document: Document, replies: dict[str, str]) -> None:
        """Put the answers where they belong."""

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield every document with its answers, or rejected."""
        waiting: deque[tuple[Document, list[str]]] = deque()

        def all_requests() -> Iterator[Request]:
            for document in data:
                asked = self.requests(document)
                waiting.append((document, list(asked)))
                yield from asked.values()

        unanswered = 0
        total = self.n_calls * self.reader.count(world_size)
        results = self.client.chat_many(all_requests(), total, f"{self.name}, task {rank}")
        for _, first in results:
            document, names = waiting.popleft()
            found = dict(zip(names, [first, *(next(results)[1] for _ in names[1:])]))
            failed = {name: result for name, result in found.items() if isinstance(result, Failure)}
            unanswered += any(result.kind == "unanswered" for result in failed.values())
            if failed:
                name, failure = next(iter(failed.items()))
                reject(document, self.name, f"{name} {failure.kind}", failure.reason)
            else:
                add_tokens(document, *found.values())
                document.metadata["generator"] = {"model": self.client.model, "revision": found[names[0]].model}
                self.use(document, {name: result.parsed for name, result in found.items()})
            yield document
        check_unanswered(unanswered, self.max_unanswered)


class WritePrompts(_Asking):
    """Puts a neutral prompt in the place of the post's text; reads ``topic``."""

    name = "prompts"

    def __init__(
        self, client: ChatClient, reader: StageReader, max_unanswered: int, instruction: str, structured: bool
    ) -> None:
        super().__init__(client, reader, max_unanswered)
        self.instruction, self.structured = instruction, structured

    def requests(self, document: Document) -> dict[str, Request]:
        """One prompt."""
        request = prompt_request(document.text, document.metadata["topic"], self.instruction, self.structured)
        return {"prompt": request}

    def use(self, document: Document, replies: dict[str, str]) -> None:
        """From here on the post's text is gone."""
        document.text = replies["prompt"]


class WriteAnswers(_Asking):
    """Adds ``answers``, by side; reads the prompt (the text) and ``axis``."""

    name = "answers"

    def __init__(
        self,
        client: ChatClient,
        reader: StageReader,
        max_unanswered: int,
        sides: Sequence[str],
        n_words: tuple[int, int],
        instruction: str,
        views: str,
        structured: bool,
    ) -> None:
        super().__init__(client, reader, max_unanswered)
        self.sides, self.n_words, self.n_calls = tuple(sides), tuple(n_words), len(sides)
        self.instruction, self.views, self.structured = instruction, views, structured

    def requests(self, document: Document) -> dict[str, Request]:
        """One answer a side."""
        how = (self.n_words, self.instruction, self.views, self.structured)
        return {side: answer_request(document.text, document.metadata["axis"], side, *how) for side in self.sides}

    def use(self, document: Document, replies: dict[str, str]) -> None:
        """All sides or none."""
        document.metadata["answers"] = replies
