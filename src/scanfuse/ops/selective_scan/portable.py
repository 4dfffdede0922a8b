"""The scan in plain torch operations on any device, a chunk of steps at a time."""

from scanfuse.ops.selective_scan.reference import scan

__all__ = ["scan"]
