# SPDX-License-Identifier: MIT
"""Preference tuning: the DPO recipe and what it is built from."""
