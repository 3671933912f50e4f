# SPDX-License-Identifier: MIT
"""The playground: one model for several people on a page of this machine.

:class:`eval.play.page.PlaygroundServer` is the page. :class:`eval.play.side_by_side.SideBySide` turns its requests into
work, and :class:`eval.play.turns.Turns` shares the model out.
"""
