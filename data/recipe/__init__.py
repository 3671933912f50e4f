# SPDX-License-Identifier: MIT
"""The ground of every recipe: checked configs, files written whole, printed figures, and pages for this machine.

A recipe calls :func:`data.recipe.config.check_config` first, so that a mistyped key is refused before anything
is loaded. Nothing here knows of preference data, models or instruments.
"""
