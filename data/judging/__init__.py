# SPDX-License-Identifier: MIT
"""Judges of texts: the question they are asked, how their answers are read, and how far they agree with people.

The front door is :mod:`data.judging.judges`: a judge, its judgements, and the one verdict on it.
``data/synthesize.py``, ``eval/political_compass.py`` and ``eval/validate_judge.py`` all use it.
"""
