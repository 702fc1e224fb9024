"""Attention distillation: styles a picture by optimising its latents (arXiv 2502.20235)."""
