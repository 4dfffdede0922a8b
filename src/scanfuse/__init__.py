"""Multimodal fusion with selective state-space models."""
