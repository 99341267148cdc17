"""What an atlas found, as plain data: what every head changes, paired over prompts, and how sure that is."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagopt.errors import StudyError
from pagopt.files import write_text
from pagopt.heads import MAIN_SITE, Head
from pagopt.paired import holm, p_values
from pagopt.report.headgrid import Place
from pagopt.report.reading import decimals

__all__ = ["LEVEL", "MOVED", "Effect", "Findings", "effects_of", "load_findings"]

SCHEMA = 1
LEVEL = 0.05
"""Of the tests, over all heads and measures together."""

MOVED = "moved"
"""How far a picture is from the one without perturbation; see :func:`pagopt.looks.distances`."""


@dataclass(frozen=True)
class Effect:
    """What a head changes in a measure, over tasks.

    Attributes:
        mean: Mean of (guided - plain).
        se: Its standard error; NaN with a single prompt and seed.
        p: Two-sided p-value of the paired t-test, corrected for all heads and measures; NaN where nothing was tested.
    """

    mean: float
    se: float
    p: float = math.nan

    @property
    def certain(self) -> bool:
        """Whether it is significant."""
        return self.p < LEVEL


def effects_of(scores: Mapping[str, NDArray[np.float64]], names: Sequence[str]) -> dict[str, dict[str, Effect]]:
    """Effects by measure and head.

    Args:
        scores: For each measure shape (1 + heads, samples), the plain pictures first. Samples are independent: where a
            prompt has several seeds, their mean is one.
        names: Of the heads, in the order of the other rows.
    """
    differences = np.stack([rows[1:] - rows[0] for rows in scores.values()])
    count = differences.shape[-1]
    mean = differences.mean(axis=-1)
    se = p = np.full_like(mean, np.nan)
    if count > 1:
        se = differences.std(axis=-1, ddof=1) / np.sqrt(count)
        raw = p_values(differences)
        p = np.array(holm(raw.ravel().tolist())).reshape(raw.shape)
    return {
        measure: {
            name: Effect(*(float(values[row, column]) for values in (mean, se, p))) for column, name in enumerate(names)
        }
        for row, measure in enumerate(scores)
    }


@dataclass(frozen=True)
class Findings:
    """What every head does.

    Attributes:
        pagopt: Version that made it.
        model: Name of the model.
        fingerprint: Of its weights.
        weights: How they were held (dtype, quantize).
        blocks: Blocks of the model.
        heads: Most heads of one attention.
        recipe: What is the same for all heads, as a recipe file has it.
        steps: Inference steps.
        tasks: (prompt, seed) of every picture.
        rewards: The rewards, as a study has them.
        means: Of the plain pictures, by measure.
        effects: By measure and by head ("L4.H2") or layer ("L4"). The first measure is how far the pictures moved,
            which is not tested: it cannot be below 0.
        perturbed: What each head or layer stands for, as a recipe takes it: "L4.H2", "L4.H0-23 L4.attn2.H0-23".
        images: Store keys of the pictures, one for each task, by head or layer.
        plain: Those of the pictures without perturbation.
        images_generated: How many were drawn now.
        seconds: How long that took.
    """

    pagopt: str
    model: str
    fingerprint: str
    weights: dict[str, Any]
    blocks: int
    heads: int
    recipe: dict[str, Any]
    steps: int
    tasks: list[tuple[str, int]]
    rewards: list[dict[str, Any]]
    means: dict[str, float]
    effects: dict[str, dict[str, Effect]]
    perturbed: dict[str, str]
    images: dict[str, list[str]] = field(repr=False)
    plain: list[str] = field(repr=False)
    images_generated: int = 0
    seconds: float = 0.0

    def single(self, measure: str) -> dict[Head, Effect]:
        """The effects of single heads."""
        return self._single[measure]

    @cached_property
    def _single(self) -> dict[str, dict[Head, Effect]]:
        heads = {name: Head.parse(name) for row in self.effects.values() for name in row if "." in name}
        return {
            measure: {heads[name]: effect for name, effect in row.items() if name in heads}
            for measure, row in self.effects.items()
        }

    def layers(self, measure: str) -> dict[int, Effect]:
        """The effects of whole layers, by block."""
        return {int(name[1:]): effect for name, effect in self.effects[measure].items() if "." not in name}

    def places(self) -> list[Place]:
        """The rows of a table of its heads: site and block, main sites first."""
        found = {(head.site, head.block) for head in self.single(MOVED)}
        return sorted(found, key=lambda place: (place[0] != MAIN_SITE, *place))

    @cached_property
    def layer_places(self) -> dict[Place, str]:
        """Where the whole layers stand, each once: beside the first row of their block."""
        rows = {block: place for place in reversed(self.places()) for block in [place[1]]}
        return {rows[block]: f"L{block}" for block in self.layers(MOVED) if block in rows}

    def shown(self, count: int) -> list[int]:
        """The tasks to show: the first seed of each of the first prompts, never chosen ones."""
        prompts = [prompt for prompt, _ in self.tasks]
        return [prompts.index(prompt) for prompt in dict.fromkeys(prompts)][:count]

    @cached_property
    def limits(self) -> dict[str, float]:
        """By measure the change that gets the full colour, in two digits: 95 % of single heads stay below."""
        found = {}
        for measure, row in self._single.items():
            sizes = sorted(abs(effect.mean) for effect in row.values())
            largest = sizes[math.ceil(0.95 * len(sizes)) - 1] or sizes[-1]
            unit = 10.0 ** (math.floor(math.log10(largest)) - 1) if largest else 1.0
            found[measure] = math.ceil(largest / unit - 1e-9) * unit or 1.0
        return found

    @cached_property
    def decimals(self) -> dict[str, int]:
        """By measure the decimals to show: as the errors deserve, and no less than two digits of the full colour's."""
        found = {}
        for measure, row in self.effects.items():
            errors = [one.se for one in row.values() if math.isfinite(one.se)]
            least = max(0, 1 - math.floor(math.log10(self.limits[measure])))
            found[measure] = max(least, decimals(errors)) if errors else least
        return found

    @property
    def tested(self) -> list[str]:
        """The measures that were tested; none with a single prompt and seed."""
        return [name for name, row in self.effects.items() if any(not math.isnan(one.p) for one in row.values())]

    def certain(self) -> dict[str, list[Head]]:
        """By tested measure the single heads with a significant effect, strongest first."""
        return {
            measure: sorted((h for h, one in row.items() if one.certain), key=lambda h: -abs(row[h].mean))
            for measure in self.tested
            for row in [self.single(measure)]
        }

    def to_csv(self) -> str:
        """A line for every head, layer and measure."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["perturbed", "measure", "plain", "change", "standard_error", "p"])
        for measure, row in self.effects.items():
            for name, one in row.items():
                numbers = (self.means[measure], one.mean, one.se, one.p)
                rows.writerow([name, measure, *("" if math.isnan(value) else f"{value:.6g}" for value in numbers)])
        return text.getvalue()

    def save(self, path: str | Path) -> None:
        """Write JSON; :func:`load_findings` reads it."""
        data = {"schema": SCHEMA, **asdict(self)}
        for row in data["effects"].values():
            for one in row.values():  # JSON has no NaN
                one.update({key: None for key, value in one.items() if math.isnan(value)})
        write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def load_findings(path: str | Path) -> Findings:
    """Read ``atlas.json``.

    Raises:
        StudyError: If it is none, or of a newer version.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise StudyError(f"{path} was written by another version of pagopt; draw the atlas again")
        data["tasks"] = [(str(prompt), int(seed)) for prompt, seed in data["tasks"]]
        for row in data["effects"].values():
            for name, one in row.items():
                row[name] = Effect(**{key: math.nan if value is None else value for key, value in one.items()})
        return Findings(**data)
    except OSError as error:
        raise StudyError(f"cannot read {path}: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{path} is no atlas: {error}") from error
