# SPDX-License-Identifier: MIT
"""Reports that lie beside each other, each in its run's folder, and the links between them."""

import contextlib
import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from data.recipe.files import write_whole

# Where data/recipe/page.html.jinja's pages have room for the links.
_BEGIN, _END = '<nav id="beside">', "</nav>"


def write_page(path: Path, page: str) -> None:
    """Write the page of a run, whole, and link it and those in the folders beside it, in both directions."""
    write_whole(path, page)
    path = path.resolve()
    others = [file for file in sorted(path.parent.parent.glob(f"*/{path.name}")) if file.is_file()]
    # other people's files too, in whatever encoding; those without our mark are left alone
    texts = {file: file.read_text(encoding="utf-8", errors="replace") for file in others if os.access(file, os.R_OK)}
    texts = {other: text for other, text in texts.items() if _BEGIN in text}
    for own, text in texts.items():
        names = [other.parent.name for other in texts if other != own]
        links = [f'<a href="../{quote(name)}/{quote(path.name)}">{escape(name)}</a>' for name in names]
        before, _, rest = text.partition(_BEGIN)
        linked = f"{before}{_BEGIN}{'Beside this: ' if links else ''}{' '.join(links)}{_END}{rest.partition(_END)[2]}"
        if linked != text:
            with contextlib.suppress(OSError):  # not ours to write, or another run is writing it
                write_whole(own, linked)
