# SPDX-License-Identifier: MIT
"""The playground: one model for several people on a page of this machine.

:class:`eval.play.side_by_side.SideBySide` answers, :class:`eval.play.turns.Turns` shares the model out, and
:mod:`eval.play.page` is the page.
"""
