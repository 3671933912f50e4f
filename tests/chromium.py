# SPDX-License-Identifier: MIT
"""A real headless Chromium, driven through its debugging pipe: no driver, no port, no further package."""

import itertools
import json
import os
import shutil
import subprocess
import time

BINARY = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_S = 30


class Chromium:
    """One page. Use it in a with statement."""

    def __init__(self, profile) -> None:
        self._profile, self._ids, self._rest = profile, itertools.count(1), b""

    def __enter__(self):
        ours_out, theirs_in, theirs_out, ours_in = *os.pipe(), *os.pipe()
        # Chromium reads commands from descriptor 3 and writes replies to descriptor 4
        flags = "--headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe"
        script = f'exec "$0" {flags} --user-data-dir="$1" about:blank 3<&{theirs_out} 4>&{theirs_in}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, BINARY, str(self._profile)],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out, self._session = ours_in, ours_out, None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def send(self, method: str, **parameters):
        """Send a command and return its result."""
        number = next(self._ids)
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": number, "method": method, "params": parameters, **session}
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while True:
            message, end, self._rest = self._rest.partition(b"\0")
            if not end:
                chunk = os.read(self._out, 1 << 20)
                assert chunk, "Chromium has ended"
                self._rest = message + chunk
                continue
            reply = json.loads(message)
            if reply.get("id") == number:
                assert "error" not in reply, reply
                return reply["result"]

    def run(self, script: str):
        """Return the value of an expression in the page."""
        return self.send("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression holds in a page that has loaded."""
        for _ in range(WAIT_S * 20):
            if self.run(f"document.readyState == 'complete' && Boolean({script})"):
                return
            time.sleep(0.05)
        raise AssertionError(f"not after {WAIT_S} s: {script}; {self.run('document.body.innerText')}")

    def open(self, url: str) -> None:
        """Open an address."""
        self.send("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({url!r})")

    def press(self, key: str, held: bool = False) -> None:
        """Press one key, as a keyboard does; held: as it repeats when it is not let go."""
        code = f"Digit{key}" if key.isdigit() else f"Key{key.upper()}" if len(key) == 1 else key
        typed = {"text": key} if len(key) == 1 else {}
        number = {"windowsVirtualKeyCode": ord(key.upper()) if len(key) == 1 else 9}
        event = {"key": key, "code": code, **number}
        self.send("Input.dispatchKeyEvent", type="keyDown", autoRepeat=held, **event, **typed)
        if not held:
            self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def size(self, width: int, height: int) -> None:
        """Set the size of the window."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
