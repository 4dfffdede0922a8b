"""Routes: permutations in the order that the specification gives, for any sides."""

import pytest
import torch

from scanfuse.ops import routes

MAKERS = {
    "raster": lambda: routes.raster(7),
    "bidirectional": lambda: routes.bidirectional(6),
    "cross": lambda: routes.cross(3, 5),
    "cross-column": lambda: routes.cross(6, 1),
    "triplane": lambda: routes.triplane(2, 3, 5),
    "triplane-reverse": lambda: routes.triplane(3, 1, 4, reverse=True),
    "single": lambda: routes.cross(1, 1),
}


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
    assert routes.triplane(depth, height, width).tolist() == expected
    assert routes.triplane(depth, height, width, reverse=True).tolist() == expected + [r[::-1] for r in expected]


def test_orders_are_cached_and_may_be_made_in_inference_mode() -> None:
    with torch.inference_mode():
        made = routes.cross(11, 13)
    assert not made.is_inference()
    assert routes.cross(11, 13) is made


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 0\)"):
        routes.cross(3, 0)
