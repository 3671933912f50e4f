# SPDX-License-Identifier: MIT
"""A server on the loopback address, for as long as a ``with`` block lasts."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOST_TRIES = 600  # one a second: loading a model takes time


@contextmanager
def running(command: str, port: int, output: Path) -> Iterator[str]:
    """Run a shell's command line; yield the address that clients take (it ends in ``/v1``).

    Raises:
        RuntimeError: If the port is taken, or the server ends or gives no answer; shows the end of its output.
    """
    with socket.socket() as other:
        if other.connect_ex(("127.0.0.1", port)) == 0:
            raise RuntimeError(f"port {port} is taken by another server, which would be asked instead; end it first")
    with output.open("w") as file:
        # a session of its own, so that the workers of a server end with it
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        n_tries = 0
        while not _answers(port):
            n_tries += 1
            if process.poll() is not None or n_tries > MOST_TRIES:
                tail = "\n".join(output.read_text(errors="replace").splitlines()[-10:])
                state = "gives no answer" if process.returncode is None else f"ended with {process.returncode}"
                raise RuntimeError(f"{command} at port {port} {state}; its output ends with:\n{tail}")
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@contextmanager
def serve(model: Path) -> Iterator[str]:
    """Serve a Hugging Face folder with ``transformers serve``; yield the address that clients take.

    Needs ``pip install -c constraints.txt "transformers[serving]"``.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host, port = free.getsockname()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--host", host]
    command = ["env", "HF_HUB_OFFLINE=1", *command, "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder, running(shlex.join(command), port, Path(folder, "output.txt")) as url:
        yield url


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False
