# SPDX-License-Identifier: MIT
"""The playground: one model for several people on a page of this machine, which ``eval/playground.py`` serves.

:class:`eval.play.side_by_side.SideBySide` turns requests into work, and :class:`eval.play.turns.Turns` shares the
model out.
"""
