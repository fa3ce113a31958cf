"""Vanilla fine-tuning adds nothing to the cross-entropy."""

from models.methods.base import Method as method

__all__ = ["method"]
