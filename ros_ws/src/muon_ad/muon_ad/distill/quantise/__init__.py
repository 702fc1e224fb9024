"""Weights of 4 or 8 bits for large denoisers, and the memory that diffusion models take."""
