# SPDX-License-Identifier: MIT
"""What written answers to mirrored requests say, by side, model and factor; and all answers beside those of people.

The front doors are :func:`eval.readings.readers.read_answers`, :func:`eval.readings.sides.describe_writing` and
:func:`eval.readings.yardstick.describe_populations`.
"""
