# SPDX-License-Identifier: MIT
"""People judge texts on a page of this machine, blinded and in a drawn order.

:func:`data.people.items.read_items` reads the texts, and ``data/review.py`` shows them.
:func:`data.people.results.write_results` writes the items on which the reviewers agree.
"""
