# SPDX-License-Identifier: MIT
"""Log-probabilities of many continuations that share prefixes, computed as one row of tokens.

:func:`finetune.tree.prefix_tree.build_tree` merges sequences on their common prefixes, and
:func:`finetune.tree.logprobs.answer_logprobs` gives the log-probability of each continuation.
Training and evaluation both stand on it.
"""
