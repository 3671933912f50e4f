# SPDX-License-Identifier: MIT
"""From posts to a mirrored preference set: the stages of ``data/synthesize.py``.

:func:`data.synthesis.plan.plan_stages` lists the stages and what each one's outcome depends on.
They are blocks of datatrove, so one machine, Slurm and Ray differ in one entry of the config.
"""
