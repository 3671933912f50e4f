# SPDX-License-Identifier: MIT
"""Reports, plots and tables for people, drawn from a summary alone.

The front door is :func:`eval.pages.report.render_report`; a template lies beside its code.
"""
