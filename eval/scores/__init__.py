# SPDX-License-Identifier: MIT
"""From the rows of ``results.jsonl`` to ``summary.json``, without a model.

The front door is :func:`eval.scores.summary.summarize`.
Nothing here imports torch.
"""
