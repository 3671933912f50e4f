# SPDX-License-Identifier: MIT
"""Political evaluation: instruments, respondents, scores, reports."""
