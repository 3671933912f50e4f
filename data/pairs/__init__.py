# SPDX-License-Identifier: MIT
"""From a file or the Hub to token ids: rows, preference pairs, doses and mixtures of them.

:func:`data.pairs.sources.load_rows` reads rows, :func:`data.pairs.records.read_pairs` makes checked pairs of them, and
:class:`data.pairs.tokens.PreferencePairs` gives the token ids that a training needs.
"""
