"""The selective scan along routes over a map: two functions, one operator, four backends.

Needs torch and numpy only; a backend's own package (numba, triton) is imported when that backend is used.
"""

from scanfuse.ops import routes
from scanfuse.ops.selective_scan import BackendUnavailable, scan_routes, selective_scan

__all__ = ["BackendUnavailable", "routes", "scan_routes", "selective_scan"]
