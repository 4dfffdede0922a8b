"""Routes: permutations in the order that the specification gives, for any sides."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from scanfuse.ops import routes

GOLDEN = Path(__file__).parents[1] / "golden" / "triplane_scan.npz"

MAKERS = {
    "raster": lambda: routes.raster(7),
    "bidirectional": lambda: routes.bidirectional(6),
    "cross": lambda: routes.cross(3, 5),
    "cross-column": lambda: routes.cross(6, 1),
    "triplane6-column": lambda: routes.triplane6(3, 1, 4),
    "single": lambda: routes.cross(1, 1),
} | {name: lambda name=name: routes.over(name, (3, 2, 4)[: routes.named(name).num_dims]) for name in routes.SETS}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_every_route_is_a_permutation_and_inverse_restores(make) -> None:
    orders = make()
    length = orders.shape[1]
    assert orders.dtype == torch.int64
    assert torch.equal(orders.sort(1).values, torch.arange(length).expand_as(orders))
    values = torch.randn(length)
    inverse = routes.inverse(orders)
    for r in range(len(orders)):
        assert torch.equal(values[orders[r]][inverse[r]], values)


def test_cross_is_row_major_column_major_and_their_reversals() -> None:
    row_major, column_major = [0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]
    expected = [row_major, column_major, row_major[::-1], column_major[::-1]]
    assert routes.cross(2, 3).tolist() == expected


def test_triplane_nests_its_axes_as_named() -> None:
    depth, height, width = 2, 3, 4

    def position(d: int, h: int, w: int) -> int:
        return (d * height + h) * width + w

    axial = [position(d, h, w) for d in range(depth) for h in range(height) for w in range(width)]
    coronal = [position(d, h, w) for h in range(height) for d in range(depth) for w in range(width)]
    sagittal = [position(d, h, w) for w in range(width) for d in range(depth) for h in range(height)]
    expected = [axial, coronal, sagittal]
    assert routes.axial(depth, height, width).tolist() == expected[:1]
    assert routes.triplane3(depth, height, width).tolist() == expected
    assert routes.triplane6(depth, height, width).tolist() == expected + [r[::-1] for r in expected]


def test_triplane_reads_the_golden_paths() -> None:
    with np.load(GOLDEN) as golden:
        paths = {key[5:]: golden[key].tolist() for key in golden.files if key.startswith("path.")}
    planes = ["axial", "coronal", "sagittal"]
    orders = routes.triplane6(3, 4, 5).tolist()
    assert orders == [paths[name] for name in [*planes, *(f"{plane}_rev" for plane in planes)]]


def test_sets_by_name() -> None:
    assert torch.equal(routes.over("raster", (3, 4)), routes.raster(12))
    assert routes.over("cross", (3, 4)) is routes.cross(3, 4)
    assert routes.over("triplane6", (2, 3, 4)) is routes.triplane6(2, 3, 4)
    for name in routes.SETS:
        sides = (2, 3, 4)[: routes.named(name).num_dims]
        assert routes.over(name, sides).shape == (routes.named(name).num_routes, math.prod(sides))
    assert [routes.named(name).num_routes for name in routes.SETS] == [1, 4, 1, 3, 6]


def test_a_set_for_another_number_of_sides_is_refused_with_those_that_fit() -> None:
    with pytest.raises(ValueError, match=r"'cross'.*\(2, 3, 4\); there are axial, triplane3, triplane6"):
        routes.over("cross", (2, 3, 4))
    with pytest.raises(ValueError, match=r"'triplane3'.*3 sides.*\(2, 3\); there are raster, cross"):
        routes.over("triplane3", (2, 3))
    with pytest.raises(ValueError, match="no routes 'triplane'; there are raster"):
        routes.over("triplane", (2, 3, 4))


def test_orders_are_cached_and_may_be_made_in_inference_mode() -> None:
    with torch.inference_mode():
        made = routes.cross(11, 13)
    assert not made.is_inference()
    assert routes.cross(11, 13) is made
    assert routes.triplane3(2, 3, 7) is routes.triplane3(2, 3, 7)


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 0\)"):
        routes.cross(3, 0)
    with pytest.raises(ValueError, match=r"\(3, 0, 2\)"):
        routes.triplane3(3, 0, 2)
