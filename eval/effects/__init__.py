# SPDX-License-Identifier: MIT
"""Side effects of a tuning: the requests, texts and measures of ``eval/side_effects.py``.

The front door is :func:`eval.effects.measures.measure_all`, which compares every model with the first one.
"""
