"""The quantization recipes: one file each. A new recipe is a file and an entry in :data:`RECIPES`."""

from __future__ import annotations

from nerd_export.quantization.recipes.base import Recipe
from nerd_export.quantization.recipes.fp32 import Fp32
from nerd_export.quantization.recipes.per_token import PerToken
from nerd_export.quantization.recipes.static import Static
from nerd_export.quantization.recipes.weights import WeightsOnly

# In the order in which ``nerd-export --help`` lists them.
RECIPES: tuple[Recipe, ...] = (PerToken(), Static(), WeightsOnly(), Fp32())


def recipe_names() -> tuple[str, ...]:
    """Return the names of all recipes: the choices of ``--quantize``."""
    return tuple(recipe.name for recipe in RECIPES)


def recipe_named(name: str) -> Recipe:
    """
    Return the recipe of a name.

    :raises ValueError: when there is no such recipe
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise ValueError(f"unknown quantization recipe {name!r}; expected one of {', '.join(recipe_names())}")
