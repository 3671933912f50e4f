# SPDX-License-Identifier: MIT
"""From a file or the Hub to token ids: rows, preference pairs, and parts, mirrors and mixtures of them.

:func:`data.pairs.rows.load_rows` reads rows of files and of the Hub (``read_table`` those of one file),
:func:`data.pairs.records.read_pairs` makes checked pairs of them, and :class:`data.pairs.tokens.PreferencePairs` gives
the token ids that a training needs.
"""
