"""The layers of vision Transformers: (N, tokens, dim), the first token being the class token.

Dosovitskiy et al., An Image is Worth 16×16 Words, ICLR 2021; relative positions as AutoFormer has
them (Chen et al., ICCV 2021).

A method ``layouts`` says how a smaller layer's tensors are cut from a larger one's, where weights
are shared (``nas.supernet.slicing``).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nas.layers.mobile import Residual

# ------------------------------------------------------------------------------ image, tokens


class PatchEmbedding(nn.Module):
    """Each patch of an image as a token, row by row: (N, c_in, H, W) to (N, patches, dim)."""

    def __init__(self, c_in: int, dim: int, patch: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.dim = dim
        self.patch = patch
        self.conv = nn.Conv2d(c_in, dim, patch, patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).flatten(2).transpose(1, 2)


class ClassToken(nn.Module):
    """Puts the class token before the others, and adds to each what was learnt of its place.

    ``tokens`` counts them with the class token.
    """

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.dim = dim
        self.token = nn.Parameter(0.02 * torch.randn(dim))
        self.places = nn.Parameter(0.02 * torch.randn(tokens, dim))

    def layouts(self) -> dict[str, tuple[object, ...]]:
        return {"token": (self.dim,), "places": (self.tokens, self.dim)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.token.expand(x.shape[0], 1, -1), x], dim=1) + self.places


class PatchMean(nn.Module):
    """The mean of the tokens behind the class token: (N, tokens, dim) to (N, dim)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 1:].mean(dim=1)


# -------------------------------------------------------------------------------- attention


class SelfAttention(nn.Module):
    """Attention of all tokens to all, in ``heads`` of ``head_dim`` each, whatever ``dim`` is.

    ``qkv`` packs the queries of all heads, then the keys, then the values.
    """

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.heads = heads
        self.head_dim = head_dim
        self.qkv = nn.Linear(dim, 3 * heads * head_dim)
        self.out = nn.Linear(heads * head_dim, dim)

    def layouts(self) -> dict[str, tuple[object, ...]]:
        packed = (3, self.heads * self.head_dim)
        return {"qkv.weight": (packed, self.dim), "qkv.bias": (packed,)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class RelativePositions(nn.Module):
    """What was learnt of where one token of a grid lies as seen from another.

    The sum of a vector for the distance in rows and of one for that in columns, both clipped to
    ``farthest``; from and to the class token, which has no place, the sum of two others. The sum
    over (tokens × tokens) vectors is never written out: a product with it is one with the rows'
    vectors plus one with the columns'.

    Shaw et al., Self-Attention with Relative Position Representations, NAACL 2018, in two
    dimensions.
    """

    def __init__(self, rows: int, columns: int, farthest: int, dim: int) -> None:
        super().__init__()
        self.rows = rows
        self.columns = columns
        self.farthest = farthest
        self.dim = dim
        self.vertical = nn.Parameter(0.02 * torch.randn(2 * farthest + 1, dim))
        self.horizontal = nn.Parameter(0.02 * torch.randn(2 * farthest + 1, dim))
        self.token = nn.Parameter(0.02 * torch.randn(2, dim))

    def layouts(self) -> dict[str, tuple[object, ...]]:
        distances = range(-self.farthest, self.farthest + 1)
        return {
            "vertical": (distances, self.dim),
            "horizontal": (distances, self.dim),
            "token": (2, self.dim),
        }

    def between(self, table: torch.Tensor, size: int) -> torch.Tensor:
        """The vectors from each of so many rows or columns to each: (size, size, dim)."""
        places = torch.arange(size, device=table.device)
        distances = (places - places[:, None]).clamp(-self.farthest, self.farthest)
        return table[distances + self.farthest]

    def compare(self, queries: torch.Tensor) -> torch.Tensor:
        """Products of the queries (N, heads, tokens, dim) with the vectors to all tokens.

        The class token's are left at 0: to all tokens it has the same, which softmax ignores.
        """
        behind = queries[:, :, 1:]
        grid = behind.reshape(*behind.shape[:2], self.rows, self.columns, self.dim)
        rows = self.between(self.vertical, self.rows)
        columns = self.between(self.horizontal, self.columns)
        by_row = torch.einsum("nhrcd,rsd->nhrcs", grid, rows)
        by_column = torch.einsum("nhrcd,ctd->nhrct", grid, columns)
        patches = (by_row.unsqueeze(5) + by_column.unsqueeze(4)).flatten(4).flatten(2, 3)
        token = behind @ self.token.sum(0).unsqueeze(1)
        return F.pad(torch.cat([token, patches], dim=3), (0, 0, 1, 0))

    def gather(self, weights: torch.Tensor) -> torch.Tensor:
        """The weighted sums of the vectors, by weights (N, heads, tokens, tokens) that sum to 1."""
        size = (self.rows, self.columns)
        grid = weights[:, :, 1:, 1:].reshape(*weights.shape[:2], *size, *size)
        rows = self.between(self.vertical, self.rows)
        columns = self.between(self.horizontal, self.columns)
        by_row = torch.einsum("nhrcs,rsd->nhrcd", grid.sum(5), rows)
        by_column = torch.einsum("nhrct,ctd->nhrcd", grid.sum(4), columns)
        token = self.token.sum(0)
        patches = (by_row + by_column).flatten(2, 3) + weights[:, :, 1:, :1] * token
        first = token.expand(patches.shape[0], patches.shape[1], 1, -1)
        return torch.cat([first, patches], dim=2)


class RelativeAttention(nn.Module):
    """``SelfAttention`` that knows where tokens lie: relative positions on keys and on values."""

    def __init__(
        self, dim: int, heads: int, head_dim: int, rows: int, columns: int, farthest: int
    ) -> None:
        super().__init__()
        self.dim = dim
        self.heads = heads
        self.head_dim = head_dim
        self.rows = rows
        self.columns = columns
        self.farthest = farthest
        self.qkv = nn.Linear(dim, 3 * heads * head_dim)
        self.keys = RelativePositions(rows, columns, farthest, head_dim)
        self.values = RelativePositions(rows, columns, farthest, head_dim)
        self.out = nn.Linear(heads * head_dim, dim)

    def layouts(self) -> dict[str, tuple[object, ...]]:
        packed = (3, self.heads * self.head_dim)
        return {"qkv.weight": (packed, self.dim), "qkv.bias": (packed,)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(2, 3) + self.keys.compare(q)) * self.head_dim**-0.5
        weights = scores.softmax(dim=3)
        taken = weights @ v + self.values.gather(weights)
        return self.out(taken.transpose(1, 2).flatten(2))


# ----------------------------------------------------------------------------------- layers


class MLP(nn.Module):
    """Two linear layers with GELU between them, of each token on its own."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.dim = dim
        self.hidden = hidden
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(x)))


class EncoderLayer(nn.Module):
    """Attention, then an MLP of width ``hidden``, each on normalised tokens and added to them."""

    def __init__(self, dim: int, heads: int, head_dim: int, hidden: int) -> None:
        super().__init__()
        self.dim = dim
        self.heads = heads
        self.head_dim = head_dim
        self.hidden = hidden
        attention = SelfAttention(dim, heads, head_dim)
        self.attention = Residual(nn.Sequential(nn.LayerNorm(dim), attention))
        self.mlp = Residual(nn.Sequential(nn.LayerNorm(dim), MLP(dim, hidden)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.attention(x))


class RelativeEncoderLayer(nn.Module):
    """``EncoderLayer`` with relative positions: the patches are a grid of rows × columns."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        hidden: int,
        rows: int,
        columns: int,
        farthest: int,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.heads = heads
        self.head_dim = head_dim
        self.hidden = hidden
        self.rows = rows
        self.columns = columns
        self.farthest = farthest
        attention = RelativeAttention(dim, heads, head_dim, rows, columns, farthest)
        self.attention = Residual(nn.Sequential(nn.LayerNorm(dim), attention))
        self.mlp = Residual(nn.Sequential(nn.LayerNorm(dim), MLP(dim, hidden)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.attention(x))
