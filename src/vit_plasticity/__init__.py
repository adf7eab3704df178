"""Plasticity of Vision Transformer components: measure it, fine-tune each component alone, correlate the two."""

__version__ = "0.1.0"
