"""Which tensor gets how many bits, and why one is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from olmocr.conversion.names import VISION
from olmocr.errors import UsageError


@dataclass(frozen=True)
class QuantParams:
    """MLX's affine quantization: *bits* a weight, and one scale and one bias for *group_size* weights."""

    bits: int
    group_size: int = 64
    mode: str = "affine"

    def as_config(self) -> dict[str, Any]:
        """Return what config.json says of it, in MLX's words."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}


@dataclass(frozen=True)
class QuantRecipe:
    """The language model's linear layers, embedding and head get *params*; None keeps every tensor."""

    name: str
    params: QuantParams | None


RECIPES = {
    recipe.name: recipe
    for recipe in (
        QuantRecipe("none", None),
        QuantRecipe("4bit", QuantParams(bits=4)),
        QuantRecipe("8bit", QuantParams(bits=8)),
    )
}


def find_recipe(name: str) -> QuantRecipe:
    """Return the recipe called *name*.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


def why_kept(name: str, shape: tuple[int, ...], recipe: QuantRecipe) -> str | None:
    """Return why the tensor *name* (MLX's name) stays as it is; None if *recipe* quantizes it."""
    if recipe.params is None:
        return "the recipe quantizes nothing"
    if name.startswith(VISION):
        return "the vision tower is kept, as stock mlx-vlm does"
    if len(shape) != 2:
        return "a norm or a bias is no matrix"
    return None
