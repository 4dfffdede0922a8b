"""Forward and backward of the cpu backend allocate at most 8 times the bytes of u, y and gradients included."""

import torch

from scanfuse.ops import selective_scan


def test_peak_of_forward_and_backward() -> None:
    d, length, n = 96, 2048, 16
    u, delta = torch.randn(2, 1, d, length).unbind()
    B, C = torch.randn(2, 1, n, length).unbind()
    leaves = [u.clone(), delta.clone(), -torch.rand(d, n), B.clone(), C.clone()]
    for leaf in leaves:
        leaf.requires_grad_()
    weight = torch.randn_like(u)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        selective_scan(*leaves, delta_softplus=True, backend="cpu").backward(weight)
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    assert peak > 3 * u.nbytes, "y, du and ddelta alone are three times u: the profiler saw too little"
    assert peak <= 8 * u.nbytes, f"{peak / u.nbytes:.1f} times the bytes of u"
