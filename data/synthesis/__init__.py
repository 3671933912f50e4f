# SPDX-License-Identifier: MIT
"""From posts to a mirrored preference set: the steps of ``data/synthesize.py``, which lists them stage by stage.

The front door is :func:`data.synthesis.stages.run_stages`.
The steps are datatrove's, so one machine, Slurm and Ray differ in one entry of the config.
"""
