"""Distil BERT-family models into very small ones, with JAX."""

__version__ = "0.1.0"
