"""Layer sweep: all heads of one layer at a time.

Perturbed-attention guidance perturbs whole layers and chooses one by a sweep: Ahn et al., "Self-Rectifying Diffusion
Sampling with Perturbed-Attention Guidance", ECCV 2024, https://arxiv.org/abs/2403.17377. More rounds add further layers
greedily, each together with those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pagopt.errors import StudyError
from pagopt.heads import Head, parse_heads
from pagopt.recipe import Recipe
from pagopt.results import Round
from pagopt.search.candidates import expression, record
from pagopt.search.interface import Evaluate, Found, OnRound, check_whole
from pagopt.search.memory import Memory

__all__ = ["LayerSweep", "layers_of"]


@dataclass(frozen=True)
class LayerSweep:
    """The best layer, or the best few.

    A layer is what the pool holds of one block, at all of its attention sites.

    Args:
        rounds: How many layers at most, at least 1. A round that finds no layer better than the selection so far ends
            the search.

    Raises:
        StudyError: If it is no whole number or below 1.
    """

    rounds: int = 1

    def __post_init__(self) -> None:
        check_whole("rounds", self.rounds, 1)

    def images(self, pool: int | Sequence[Head], tasks: int) -> int:
        """The most images that it asks for: every layer that is left in every round.

        Args:
            pool: The heads. From their number alone the layers cannot be told, and each head counts as one.
            tasks: The number of search tasks.
        """
        layers = pool if isinstance(pool, int) else len(layers_of(pool))
        self._check(layers)
        # From the second round on, an objective with an order of its own has the selection among its candidates.
        return tasks * sum(layers - number + (number > 0) for number in range(self.rounds))

    def run(
        self, evaluate: Evaluate, pool: Sequence[Head], recipe: Recipe, tasks: int, on_round: OnRound | None = None
    ) -> Found:
        """Search; see :meth:`pagopt.search.interface.Search.run`.

        Returns:
            The recipe with all heads of the selected layers, and the trace of the rounds. Candidates are called like
            ``"L3.H0-5"``. Ties go to the earlier layer, and to the selection as it is.
        """
        layers = layers_of(pool)
        self._check(len(layers))
        memory = Memory(evaluate, tasks)
        selected: tuple[Head, ...] = ()
        rounds: list[Round] = []
        for number in range(1, self.rounds + 1):
            names = [expression(layer) for layer in layers]
            recipes = [recipe.replace(heads=(*selected, *layer)) for layer in layers]
            first = int(number > 1)  # the selection is the first row; without heads there is none
            ranking = memory([recipe.replace(heads=selected), *recipes] if first else recipes)
            best = int(ranking.order[0])
            helps = best >= first
            chosen = [names[best - first]] if helps else []
            note = "" if helps else "No further layer is better than the selection: the search ends here."
            rounds.append(record(number, selected, names, ranking, chosen, best, note))
            if on_round is not None:
                on_round(rounds[-1])
            if not helps:
                break
            selected = tuple(sorted((*selected, *layers.pop(best - first))))
        return recipe.replace(heads=selected), rounds

    def _check(self, layers: int) -> None:
        if layers < self.rounds:
            raise StudyError(
                f"{self.rounds} rounds need {self.rounds} layers to choose from, but there are {layers}; lower rounds, "
                "or widen heads"
            )


def layers_of(pool: Sequence[Head]) -> list[tuple[Head, ...]]:
    """The heads of a pool, layer by layer."""
    heads = parse_heads(pool)
    return [tuple(h for h in heads if h.block == block) for block in sorted({head.block for head in heads})]
