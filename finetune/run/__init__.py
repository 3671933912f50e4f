# SPDX-License-Identifier: MIT
"""One training: its pairs, the policy, the reference values, the losses, the checkpoints and the processes.

``finetune/dpo_finetune.py`` puts these parts together; its keys stand in :mod:`finetune.run.settings`. A probe of a run
is told about it, and reads the policy, through :mod:`finetune.run.reader`.
"""
