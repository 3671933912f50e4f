# SPDX-License-Identifier: MIT
"""Preference data: the pair record, the datasets that YAML names, and the gates a row must pass."""
