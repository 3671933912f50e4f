# SPDX-License-Identifier: MIT
"""Turn SIGTERM and Ctrl-C into a request that the training loop answers at the next step."""

import signal
from types import FrameType

from torchtune import utils

log = utils.get_logger("INFO")


class StopRequest:
    """Context manager; ``signal`` is the first signal received inside it, or None.

    A second Ctrl-C acts at once, as the user then expects.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __enter__(self) -> "StopRequest":
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        log.warning(f"{self.signal.name} received: saving after this step (again to stop at once)")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
