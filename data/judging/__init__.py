# SPDX-License-Identifier: MIT
"""Judges of texts: what they are asked, how their answers are read, and how far they agree with people.

The front door is :mod:`data.judging.scales`, the scales on which a text is judged.
``data/synthesize.py``, ``eval/political_compass.py`` and ``eval/validate_judge.py`` all use these judges.
"""
