# SPDX-License-Identifier: MIT
"""From a statement to a row of ``results.jsonl``: who is asked, in which mode, and how the answer is read.

:func:`eval.asking.respond.ask_resident` asks a loaded model, :func:`eval.asking.served.ask_served` a server.
"""
