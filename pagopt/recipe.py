"""A recipe: which heads to perturb, how and how strongly. Frozen, checked, and a small JSON file."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pagopt import checked
from pagopt.checked import Option
from pagopt.errors import GuidanceError, PagoptError, RecipeError
from pagopt.files import write_text
from pagopt.heads import Head, expand_heads

__all__ = ["PLAIN", "STRAIGHT", "Option", "Provenance", "Recipe", "load_recipe"]

SCHEMA = 1
STRAIGHT = "straight"
ROUNDING = 1e-9  # of an interval's ends


@dataclass(frozen=True, init=False)
class Recipe:
    """What :func:`pagopt.guide.guided` does to a model.

    The heads are kept sorted, with their strengths in the same order, so that two recipes that say the same
    thing are equal.

    Attributes:
        heads: The perturbed heads, sorted, each once. May be given as text: ``"L4.H1 L6.H0"``,
            ``"L8-9.H1,3"``; or with a strength for each: ``{"L4.H1": 0.5, "L6.H0": 1.0}``.
        strength: ``u`` in [0, 1] (paper, Eq. 7): one number for all heads, or one for each of ``heads``.
        target: What the attention maps are moved towards; one of :func:`pagopt.targets.known_targets`.
        target_options: Options of the target, such as ``{"sigma": 2.0}`` for ``"blur"``; those left out take their
            defaults. Kept as sorted pairs, numbers as floats.
        path: How a map gets there as the strength grows; a name in :data:`pagopt.targets.PATHS`.
        scale: ``w >= 0`` (paper, Eq. 5).
        cfg: Classifier-free guidance ``g >= 1`` that the recipe was made for; 1 means none. ``None`` leaves
            it to whoever calls the pipeline.
        interval: ``[start, stop)`` as fractions of the sampling steps, ``0 <= start < stop <= 1``. Step ``i``
            of ``n`` is guided where ``start <= i / n < stop``.

    Raises:
        RecipeError: If a value is out of its range, a head is named twice, or the strengths do not fit the
            heads.
    """

    heads: tuple[Head, ...]
    strength: float | tuple[float, ...]
    target: str
    scale: float
    cfg: float | None
    interval: tuple[float, float]
    target_options: tuple[tuple[str, Option], ...]
    path: str

    def __init__(
        self,
        heads: str | Head | Iterable[str | Head] | Mapping[str | Head, float] = (),
        strength: float | Iterable[float] = 1.0,
        target: str = "identity",
        scale: float = 3.0,
        cfg: float | None = None,
        interval: Iterable[float] = (0.0, 1.0),
        target_options: Mapping[str, Option] | Iterable[tuple[str, Option]] = (),
        path: str = STRAIGHT,
    ) -> None:
        if isinstance(heads, Mapping):
            heads, strength = checked.strengths_by_head(heads, strength)
        given = expand_heads(heads)
        for head, times in Counter(given).items():
            if times > 1:
                raise RecipeError(f"head {head} is named {times} times; name it once")
        put = object.__setattr__  # the dataclass is frozen from here on
        put(self, "heads", tuple(sorted(given)))
        put(self, "strength", checked.sorted_strengths(given, strength))
        if not isinstance(target, str) or not target:
            raise RecipeError(f"target must be the name of a target, such as 'identity'; got {target!r}")
        put(self, "target", target)
        put(self, "scale", checked.number("scale", scale, low=0.0))
        put(self, "cfg", None if cfg is None else checked.number("cfg", cfg, low=1.0))
        put(self, "interval", checked.interval(interval))
        put(self, "target_options", checked.options(target_options))
        if not isinstance(path, str) or not path:
            raise RecipeError(f"path must be the name of a path, such as 'straight'; got {path!r}")
        put(self, "path", path)

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, so that equal recipes have equal keys; Python also calls True and 1.0 equal."""
        return self.key() == other.key() if isinstance(other, Recipe) else NotImplemented

    @property
    def strengths(self) -> tuple[float, ...]:
        """``u`` of each of :attr:`heads`."""
        return self.strength if isinstance(self.strength, tuple) else (self.strength,) * len(self.heads)

    @property
    def is_plain(self) -> bool:
        """Whether this changes nothing: no heads, scale 0, or all strengths 0."""
        return self.scale == 0 or not any(self.strengths)

    def active_steps(self, n: int) -> range:
        """The steps of ``n >= 1`` that are guided: those with ``start <= i / n < stop``.

        Raises:
            GuidanceError: If there are none although the recipe is not plain.
        """
        if n < 1:
            raise GuidanceError(f"there must be at least 1 step, not {n}")
        # Fractions such as 0.1 + 5 * 0.1 are not quite what they are meant to be.
        start, stop = (bound - ROUNDING for bound in self.interval)
        active = [i for i in range(n) if start <= i / n < stop]
        if not active and not self.is_plain:
            start, stop = self.interval
            raise GuidanceError(
                f"the interval [{start:g}, {stop:g}) holds none of the {n} sampling steps, which lie at "
                f"multiples of 1/{n} = {1 / n:.3g} from 0 to {(n - 1) / n:.3g}: widen it or take more steps"
            )
        return range(active[0], active[-1] + 1) if active else range(0)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some attributes changed, checked like any other recipe.

        Where every head has a strength of its own and ``heads`` alone are given, each of them keeps its own.
        """
        known = [f.name for f in dataclasses.fields(self)]
        if unknown := set(changes) - set(known):
            raise RecipeError(checked.unknown_keys(unknown, known, "recipe"))
        if isinstance(self.strength, tuple) and "heads" in changes and "strength" not in changes:
            changes["strength"] = checked.kept_strengths(dict(zip(self.heads, self.strength, strict=True)), changes)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data; :meth:`from_dict` gives the recipe back. Options and path are left out at their defaults."""
        data: dict[str, Any] = {
            "heads": [str(head) for head in self.heads],
            "strength": list(self.strength) if isinstance(self.strength, tuple) else self.strength,
            "target": self.target,
            "scale": self.scale,
            "cfg": self.cfg,
            "interval": list(self.interval),
        }
        if self.target_options:
            data["target_options"] = dict(self.target_options)
        if self.path != STRAIGHT:
            data["path"] = self.path
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read what :meth:`to_dict` wrote. Keys that are left out take their defaults.

        Raises:
            RecipeError: If a key is unknown or a value is not valid.
        """
        if not isinstance(data, Mapping):
            raise RecipeError(f"a recipe is a JSON object, not {data!r}")
        known = [f.name for f in dataclasses.fields(cls)]
        if unknown := set(data) - set(known):
            raise RecipeError(checked.unknown_keys(unknown, known, "recipe"))
        return cls(**data)

    def key(self) -> str:
        """A text that is the same for equal recipes, today and in a year: canonical JSON."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def save(self, path: str | Path, provenance: Provenance | None = None) -> None:
        """Write a recipe file, atomically.

        Raises:
            RecipeError: If the file cannot be written.
        """
        content: dict[str, Any] = {"schema": SCHEMA, "recipe": self.to_dict()}
        if provenance is not None:
            content["provenance"] = dataclasses.asdict(provenance)
        try:
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=checked.scalar)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"the provenance of the recipe cannot be written as JSON: {error}") from error
        try:
            write_text(Path(path), text + "\n")
        except OSError as error:
            raise RecipeError(f"cannot write the recipe to {path}: {error.strerror or error}") from error

    @staticmethod
    def load(path: str | Path) -> Recipe:
        """Read a recipe file; :func:`load_recipe` gives its provenance too.

        Raises:
            RecipeError: If the file is missing, damaged, or from a later pagopt.
        """
        return load_recipe(path)[0]


@dataclass(frozen=True)
class Provenance:
    """Where a recipe comes from.

    Attributes:
        model: The name by which the model was loaded.
        fingerprint: :func:`pagopt.models.fingerprint` of it.
        objective: The rewards that were maximised, each as JSON data.
        evidence: What supports the recipe: methods, scores with standard errors, on which prompts and seeds, and
            under "order" its heads in the order in which they were found. JSON.
        study: Name of the study.
        pagopt: Version that wrote it.
    """

    model: str
    fingerprint: str
    objective: list[dict[str, Any]] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)
    study: str = ""
    pagopt: str = ""

    def order(self) -> tuple[Head, ...] | None:
        """The heads in the order in which they were found; ``None`` where the file does not say.

        Raises:
            RecipeError: If it says something that is no list of different heads.
        """
        listed = self.evidence.get("order")
        if listed is None:
            return None
        try:
            heads = tuple(Head.parse(name) for name in listed)
        except (PagoptError, TypeError) as error:
            raise RecipeError(f'the evidence has order = {listed!r}: a list of heads, such as ["L4.H1"]') from error
        if len(set(heads)) < len(heads):
            raise RecipeError(f"the evidence names a head twice in order = {listed!r}; name it once")
        return heads

    @classmethod
    def from_dict(cls, data: Any) -> Provenance:
        """Read it back from JSON data.

        Raises:
            RecipeError: If a key is unknown or missing, or a value is of the wrong type.
        """
        if not isinstance(data, Mapping):
            raise RecipeError(f"the provenance is a JSON object, not {data!r}")
        kinds: dict[str, type] = dict.fromkeys(("model", "fingerprint", "study", "pagopt"), str)
        kinds |= {"objective": list, "evidence": dict}
        if unknown := set(data) - set(kinds):
            raise RecipeError(checked.unknown_keys(unknown, kinds, "provenance"))
        for name in ("model", "fingerprint"):
            if name not in data:
                raise RecipeError(f"the provenance lacks {name!r}")
        for name, value in data.items():
            if not isinstance(value, kinds[name]):
                raise RecipeError(f"provenance.{name} must be of type {kinds[name].__name__}, got {value!r}")
        return cls(**data)


PLAIN = Recipe(scale=0.0, cfg=1.0)
"""No guidance at all."""


def load_recipe(path: str | Path) -> tuple[Recipe, Provenance | None]:
    """Read a recipe file.

    Raises:
        RecipeError: If the file is missing, damaged, or from a later pagopt; says which and what to do.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
        data = json.loads(text, object_pairs_hook=checked.no_duplicates, parse_constant=checked.no_constant)
    except FileNotFoundError as error:
        raise RecipeError(f"there is no recipe file {path}") from error
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"the recipe {path} is damaged: it is not valid JSON ({error})") from error
    try:
        if not isinstance(data, dict) or "schema" not in data or "recipe" not in data:
            raise RecipeError("it is not a recipe file: 'schema' and 'recipe' are missing")
        schema = data["schema"]
        if type(schema) is not int or schema < 1:
            raise RecipeError(f"'schema' must be a positive whole number, got {schema!r}")
        if schema > SCHEMA:
            raise RecipeError(
                f"a later pagopt wrote it (schema {schema}; this one reads up to {SCHEMA}): update pagopt"
            )
        if unknown := set(data) - {"schema", "recipe", "provenance"}:
            raise RecipeError(checked.unknown_keys(unknown, ("schema", "recipe", "provenance"), "recipe file"))
        provenance = data.get("provenance")
        origin = None if provenance is None else Provenance.from_dict(provenance)
        return Recipe.from_dict(data["recipe"]), origin
    except RecipeError as error:
        raise RecipeError(f"cannot use the recipe {path}: {error}") from error
