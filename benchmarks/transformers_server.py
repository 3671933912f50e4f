# SPDX-License-Identifier: MIT
"""``transformers serve`` on the loopback address, for as long as a ``with`` block lasts.

Needs ``pip install -c constraints.txt "transformers[serving]"``.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_TRIES = 600  # one a second: loading a model takes time


@contextmanager
def serve(model: Path) -> Iterator[str]:
    """Serve a Hugging Face folder; yield the address that clients take (it ends in ``/v1``).

    Raises:
        RuntimeError: If the server ends, or gives no answer; shows the end of its output.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, port = address.split(":")
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--host", host]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*command, "--port", port], stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        try:
            n_tries = 0
            while not _answers(address):
                n_tries += 1
                if process.poll() is not None or n_tries > MOST_TRIES:
                    output.seek(0)
                    tail = "\n".join(output.read().decode(errors="replace").splitlines()[-10:])
                    state = "gives no answer" if process.returncode is None else f"ended with {process.returncode}"
                    raise RuntimeError(f"transformers serve at {address} {state}; its output ends with:\n{tail}")
                time.sleep(1)
            yield f"http://{address}/v1"
        finally:
            process.terminate()
            process.wait(30)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/health", timeout=2):
            return True
    except OSError:
        return False
