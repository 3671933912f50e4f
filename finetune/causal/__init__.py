# SPDX-License-Identifier: MIT
"""Any decoder of the transformers library on the prefix tree, with peft's own LoRA.

:func:`finetune.causal.folder.read_folder` says what cannot be used before weights are read,
:class:`finetune.causal.decoder.CausalLM` reads trees, and :func:`finetune.causal.agreement.choose_layout` measures
whether it reads them as it reads plain sequences.
"""
