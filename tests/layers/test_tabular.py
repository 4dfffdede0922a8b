"""Tokens of a table against the sum written out by hand, and what must not matter."""

import pytest
import torch

from scanfuse.layers.tabular import TableEncoder, TableTokens

CATEGORIES = (0, 3, 0, 2)


@pytest.fixture
def tokens() -> TableTokens:
    torch.manual_seed(0)
    made = TableTokens(CATEGORIES, 8)
    with torch.no_grad():
        made.fill.copy_(torch.tensor([0.7, -1.3]))
    return made


def test_every_token_is_that_of_the_equation(tokens: TableTokens) -> None:
    table = torch.tensor([[[0.5, 1], [3, 1], [0, 0], [0, 0]], [[-2, 1], [0, 1], [1.5, 1], [2, 1.0]]])
    out = tokens(table)
    b, m, w, e = tokens.bias, tokens.indicator, tokens.weight, tokens.embedding
    by_hand = torch.stack(
        [
            torch.stack([0.5 * w[0] + b[0], e[2] + b[1], -1.3 * w[1] + b[2] + m[2], b[3] + m[3]]),
            torch.stack([-2 * w[0] + b[0], b[1], 1.5 * w[1] + b[2], e[3 + 1] + b[3]]),
        ]
    )
    assert torch.allclose(out, by_hand, atol=1e-6)


def test_the_value_of_a_missing_feature_never_matters(tokens: TableTokens) -> None:
    table = torch.tensor([[[9.0, 0], [3, 0], [-4, 0], [1, 0]]])
    assert torch.equal(tokens(table), tokens(torch.zeros(1, 4, 2)))


def test_missing_and_unknown_differ_from_each_other_and_from_every_value(tokens: TableTokens) -> None:
    rows = torch.tensor(
        [[[0.0, 1], [code, known], [0, 1], [1, 1]] for code, known in ((0, 0), (0, 1), (1, 1), (2, 1), (3, 1.0))]
    )
    seen = tokens(rows)[:, 1].detach()
    distances = torch.cdist(seen, seen) + torch.eye(5)
    assert float(distances.min()) > 1e-3


def test_parameters_as_the_docstring_counts(tokens: TableTokens) -> None:
    numbers, categories, nominal, dim = 2, 3 + 2, 2, 8
    expected = numbers * (dim + 1) + categories * dim + 2 * (numbers + nominal) * dim
    assert sum(p.numel() for p in tokens.parameters()) == expected


def test_a_table_of_another_width_is_refused(tokens: TableTokens) -> None:
    with pytest.raises(ValueError, match="4 features"):
        tokens(torch.zeros(1, 3, 2))
    with pytest.raises(ValueError, match="at least one"):
        TableTokens((), 8)


def test_the_encoder_takes_the_tokens_as_a_set() -> None:
    torch.manual_seed(0)
    encoder = TableEncoder(8, hidden=6).double()
    tokens = torch.randn(3, 5, 8, dtype=torch.float64)
    assert torch.allclose(encoder(tokens), encoder(tokens[:, [4, 2, 0, 1, 3]]), atol=1e-12)
    assert not torch.allclose(encoder(tokens), encoder(tokens + 1), atol=1e-3)
