"""Attention distillation: styles a picture by optimising its latents (arXiv 2502.20235)."""

import logging

# Where torchao is installed, diffusers and torch warn as they import it: of parts that are not
# used here, and in words that tell a user nothing.
logging.getLogger('diffusers.quantizers.torchao.torchao_quantizer').setLevel(logging.ERROR)
logging.getLogger('torch.utils._pytree').setLevel(logging.ERROR)
