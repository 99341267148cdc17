"""How a map gets from A to T as the strength u goes from 0 to 1.

The straight line ``(1 - u) A + u T`` needs no map (see :mod:`pagopt.perturb`). The other two bend the rows of the map
itself, so they build it: for the selected heads alone, and piece by piece.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pagopt.errors import RecipeError, UnknownName
from pagopt.recipe import STRAIGHT
from pagopt.targets.target import Target
from pagopt.targets.view import View, chunks

__all__ = ["PATHS", "check_path", "fisher_rao", "log_linear", "move"]


def fisher_rao(a: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """The geodesic between two distributions: spherical interpolation of their square roots.

    Args:
        a: Rows that sum to 1, shape (..., S).
        t: The same.
        u: In [0, 1], broadcasting to the rows (..., 1).

    Returns:
        Rows that sum to 1.
    """
    root_a, root_t = a.sqrt(), t.sqrt()
    # The angle from its chord: exact for near rows, where the arc cosine of their product loses half of the digits.
    angle = 2 * torch.asin(((root_a - root_t).norm(dim=-1, keepdim=True) / 2).clamp(max=1))
    near = angle < 1e-6
    sine = torch.where(near, torch.ones_like(angle), angle.sin())
    from_a = torch.where(near, 1 - u, torch.sin((1 - u) * angle) / sine)
    from_t = torch.where(near, u.expand_as(angle), torch.sin(u * angle) / sine)
    return (from_a * root_a + from_t * root_t) ** 2


def log_linear(a: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """The straight line between logarithms, ``A^(1 - u) T^u``, normalised; arguments as for :func:`fisher_rao`."""
    blocked = (a == 0) | (t == 0)
    logs = (1 - u) * a.log() + u * t.log()
    return logs.masked_fill(blocked, -torch.inf).softmax(dim=-1)


PATHS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor] | None] = {
    STRAIGHT: None,
    "fisher_rao": fisher_rao,
    "log_linear": log_linear,
}
"""The paths a recipe can name."""


def check_path(name: str, target: Target) -> None:
    """Make sure that a path exists and means something for a target.

    Raises:
        UnknownName: If there is no such path.
        RecipeError: If the path would jump to the target at once, or the target gives no map.
    """
    if name not in PATHS:
        raise UnknownName("path", name, PATHS)
    if name != STRAIGHT and type(target).map is Target.map:
        raise RecipeError(f"the target {target.name!r} gives no explicit map, so it takes the straight path only")
    if name == "log_linear" and not target.full_support:
        raise RecipeError(
            f"the log_linear path jumps to the target {target.name!r} at any strength above 0, because that target has "
            "zeros: take the path straight or fisher_rao"
        )


def move(output: Tensor, target: Target, path: str, view: View, rows: slice, strength: Tensor) -> Tensor:
    """The perturbed output of the selected heads.

    Args:
        output: ``A V`` for the query tokens ``rows``, (P, n, D).
        target: What the maps move towards.
        path: A name in :data:`PATHS`.
        view: The site, with P pairs.
        rows: The query tokens.
        strength: u of each pair, (P,).

    Returns:
        Tensor of the shape and dtype of ``output``.
    """
    bend = PATHS[path]
    if bend is None:
        # With autocast an attention's dtype is not that of what the transformer was given.
        weight = strength.to(output.dtype)[:, None, None]
        return torch.lerp(output, target.values(view, rows).to(output.dtype), weight)
    moved = torch.empty_like(output)
    # Three maps are held at a time: A, T and what lies between.
    for some, piece in chunks(output.shape[0], rows, 3 * view.tokens):
        part = view.part(some)
        maps = bend(part.map(piece), target.map(part, piece), strength[some, None, None])
        product = maps @ part.v.to(maps.dtype)
        moved[some, piece.start - rows.start : piece.stop - rows.start] = product.to(output.dtype)
    return moved
