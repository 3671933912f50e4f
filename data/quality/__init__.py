# SPDX-License-Identifier: MIT
"""Is a row, or a whole preference set, any good? Defects, duplicates, contamination, balance and repair.

:func:`data.quality.defects.row_defects` looks at one row, :func:`data.quality.audit_measures.measure` at a set, and
:func:`data.quality.repair.repair` makes a clean, mirrored set.
"""
