# SPDX-License-Identifier: MIT
"""What every recipe of this project stands on: checked configs, files written whole, and pages for this machine.

A recipe calls :func:`data.recipe.config.check_config` first, so that a mistyped key is refused before anything
is loaded.
Nothing here knows of preference data, models or instruments.
"""
