# SPDX-License-Identifier: MIT
"""What else a tuning changed: the requests, texts and measures of ``eval/side_effects.py``.

:func:`eval.effects.measures.measure_all` compares every model with the first one.
"""
