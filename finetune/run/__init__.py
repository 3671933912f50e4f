# SPDX-License-Identifier: MIT
"""One training: its pairs, the policy, the reference values, the checkpoints and the processes.

``finetune/dpo_finetune.py`` puts these parts together; its keys stand in :mod:`finetune.run.settings`.
"""
