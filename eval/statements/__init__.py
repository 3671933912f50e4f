# SPDX-License-Identifier: MIT
"""The bank of statements and its wordings: everything that is put to a model, as text.

The front door is :func:`eval.statements.instruments.load_instrument`, which reads and checks a bank in any format.
:mod:`eval.statements.prompts` words its entries under templates, option orders and labels; no model is needed for it.
"""
