# SPDX-License-Identifier: MIT
"""The bank of statements and its wordings: what is put to a model.

:func:`eval.statements.instruments.load_instrument` reads a bank, and :mod:`eval.statements.prompts` words its entries.
"""
