# SPDX-License-Identifier: MIT
"""The page on which people judge texts, and what becomes of their answers.

:func:`data.people.items.read_items` says what reviewers are shown, blinded and in a drawn order.
:func:`data.people.results.write_results` says what they agree on.
"""
