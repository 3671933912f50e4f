# SPDX-License-Identifier: MIT
"""What people look at: reports, plots and tables, drawn from a summary alone.

The front door is :func:`eval.pages.report.render_report`; a template lies beside its code.
"""
