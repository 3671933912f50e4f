# SPDX-License-Identifier: MIT
"""What written answers to mirrored requests say: read by judges, and compared by side, model and factor.

The front doors are :func:`eval.readings.readers.read_answers` and :func:`eval.readings.sides.describe_writing`.
"""
