"""What made the masks: one document a recipe, and the one that readers should take.

OUT/recipes/<fingerprint>.json
OUT/current.json     and those that were current before it, the latest first
"""

import json
import platform
from datetime import UTC, datetime
from importlib import metadata

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import storage
from pipeline.classes import Palette
from pipeline.config import Recipe
from pipeline.errors import AbsentError, ConfigError
from pipeline.weights import Weights

PACKAGES = ("densemask", "numpy", "pillow", "pyarrow", "pydensecrf2", "ray", "safetensors", "scipy", "torch")


class RecipeDocument(BaseModel):
    """A recipe with everything that it was made of."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    recipe: Recipe
    weights_sha256: str
    weights_location: str
    classes: tuple[str, ...]
    palette: Palette | None = None
    versions: dict[str, str]
    created: datetime
    scores_fingerprint: str | None = None  # recipes that share it make the same score maps


def document(recipe: Recipe, weights: Weights) -> RecipeDocument:
    """The recipe's document, with the versions installed here."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    front_end = recipe.front_end.model_copy(update={"weights": weights.location})
    return RecipeDocument(
        fingerprint=recipe.fingerprint(weights.sha256),
        recipe=recipe.model_copy(update={"front_end": front_end}),
        weights_sha256=weights.sha256,
        weights_location=weights.location,
        classes=weights.classes,
        palette=weights.palette,
        versions=versions,
        created=datetime.now(UTC),
        scores_fingerprint=recipe.scores_fingerprint(weights.sha256),
    )


def write_document(output: str, recipe: RecipeDocument) -> None:
    """Writes the document unless it is there already."""
    storage.put_if_absent(location(output, recipe.fingerprint), recipe.model_dump_json(indent=1).encode())


def read_document(output: str, fingerprint: str) -> RecipeDocument:
    """The document of a recipe. Raises ConfigError with those that there are."""
    try:
        return RecipeDocument.model_validate_json(storage.read(location(output, fingerprint)))
    except AbsentError as error:
        raise ConfigError(
            f"no recipe {fingerprint!r} in {output}; there is {', '.join(known(output)) or 'none'}"
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{location(output, fingerprint)} is broken: {error.errors()[0]['msg']}") from error


def known(output: str) -> list[str]:
    """The fingerprints of the output's recipes."""
    return [
        name.removesuffix(".json") for name in storage.names(storage.join(output, "recipes")) if name[-5:] == ".json"
    ]


def current(output: str) -> str:
    """The fingerprint of the recipe that readers should take. Raises ConfigError where nothing is labelled yet."""
    try:
        return json.loads(storage.read(current_location(output)))["recipe"]
    except AbsentError:
        recipes = known(output)
        if len(recipes) == 1:
            return recipes[0]
        hint = f"name one of {', '.join(recipes)} with --recipe" if recipes else "label something into it first"
        raise ConfigError(f"{output} has no current recipe; {hint}") from None


def set_current_if_absent(output: str, fingerprint: str) -> None:
    """Makes the output's first recipe the current one; a later one has to be chosen."""
    storage.put_if_absent(current_location(output), json.dumps({"recipe": fingerprint}).encode())


def current_location(output: str) -> str:
    """Where it is written which recipe is the current one."""
    return storage.join(output, "current.json")


def location(output: str, fingerprint: str) -> str:
    """Where a recipe's document lies."""
    return storage.join(output, "recipes", f"{fingerprint}.json")
