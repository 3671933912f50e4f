# SPDX-License-Identifier: MIT
"""Defects, duplicates, contamination and balance of preference data, and the repair of a flawed set.

:func:`data.quality.defects.row_defects` looks at one row, :func:`data.quality.sets.measure` at a set or two, and
:func:`data.quality.repair.repair` makes a clean, mirrored set. :func:`data.quality.contamination.find_matches` also
serves the evaluation: it finds the statements of an instrument in the data of a training.
"""
