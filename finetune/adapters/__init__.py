# SPDX-License-Identifier: MIT
"""PEFT adapters: what a run leaves in a folder, and how adapters are loaded, blended, described and served.

:class:`finetune.adapters.resident.AdaptedModel` switches any number of them on a loaded model.
:func:`finetune.adapters.folders.read_adapters` reads what a config calls ``adapters``.
"""
