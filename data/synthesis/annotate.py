# SPDX-License-Identifier: MIT
"""Lean, relevance and topic of posts as judges say them.

Each text is judged twice, as it is and with the names of parties and persons masked, since language models follow
such cues (arXiv 2408.15895). How far the masks move the score is kept with every post.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence

from data.chat import ChatClient, Failure, Reply, Request
from data.judging.instructions import load_instruction
from data.judging.scales import PostScale
from data.synthesis.blocks import Document, DocumentsPipeline, PipelineStep
from data.synthesis.stages import REJECTED, StageReader, reject

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


class JudgePosts(PipelineStep):
    """Adds ``judges``, a list with the scores of each judge, and ``n_tokens``; reads the text.

    Args:
        judges: Each with how it is asked.
        reader: Of the documents, for the time left.
        max_unanswered: So many calls may stay without an answer; their posts are out.

    Raises:
        RuntimeError: If there are more.
    """

    type = "⚖️ - JUDGE"
    name = "lean and relevance"

    def __init__(
        self, judges: Sequence[tuple[ChatClient, PostScale]], reader: StageReader, max_unanswered: int
    ) -> None:
        super().__init__()
        self.judges, self.reader, self.max_unanswered = list(judges), reader, max_unanswered

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Judge each document as it is and masked."""
        unanswered = 0
        documents = data
        for client, scale in self.judges:
            documents = self._judged(
                documents, client, scale, f"judging, task {rank}", 2 * self.reader.count(world_size)
            )
        for document in documents:
            unanswered += document.metadata.get(REJECTED, {}).get("reason", "").endswith("unanswered")
            yield document
        check_unanswered(unanswered, self.max_unanswered)

    def _judged(
        self, documents: Iterator[Document], client: ChatClient, scale: PostScale, title: str, total: int
    ) -> Iterator[Document]:
        waiting: deque[Document] = deque()

        def requests() -> Iterator[Request]:
            for document in documents:
                waiting.append(document)
                yield scale.request(document.text)
                yield scale.request(mask_names(document.text))

        results = (result for _, result in client.chat_many(requests(), total, title))
        for plain, masked in zip(results, results):
            document = waiting.popleft()
            failed = next((result for result in (plain, masked) if isinstance(result, Failure)), None)
            if failed:
                reject(document, "judge", f"judge {failed.kind}", failed.reason)
            else:
                _add_judgement(document, client, plain, masked, load_instruction(scale.instruction).sha256)
            yield document


def _add_judgement(document: Document, client: ChatClient, plain: Reply, masked: Reply, prompt_sha256: str) -> None:
    scores = {
        "model": client.model,
        "revision": plain.model,
        "prompt_sha256": prompt_sha256,
        "score": plain.parsed["lean"],
        "masked_score": masked.parsed["lean"],
        "relevance": plain.parsed["relevance"],
        "topic": plain.parsed["topic"],
        "raw": plain.text,
    }
    document.metadata.setdefault("judges", []).append(scores)
    add_tokens(document, plain, masked)


def add_tokens(document: Document, *replies: Reply) -> None:
    """Add what the replies cost to ``n_tokens``, prompt and answer; the same whether paid now or before."""
    before = document.metadata.get("n_tokens", [0, 0])
    document.metadata["n_tokens"] = [sum(parts) for parts in zip(before, *(reply.n_tokens for reply in replies))]


def check_unanswered(found: int, allowed: int) -> None:
    """Stop rather than go on without what only a server's trouble has kept back."""
    if found > allowed:
        raise RuntimeError(
            f"{found} documents have calls that were not answered, max_unanswered={allowed}. Start the same command "
            f"again to ask for these alone, or set max_unanswered={found} to go on without them"
        )
