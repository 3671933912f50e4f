# SPDX-License-Identifier: MIT
"""From a prompt to a row of ``results.jsonl``: who is asked, in which mode, and how the answer is read.

The front doors are :func:`eval.asking.respond.ask_resident`, which asks a loaded model and its adapters, and
:func:`eval.asking.served.ask_served`, which asks a server. :class:`eval.asking.results.ResultsFile` keeps the answers.
"""
