"""Diversity: how different the pictures of one prompt are, as an objective or a constraint of a tuning.

Guidance that always draws the same picture may score well. What is measured is the mean distance of two pictures of one
prompt with different seeds, in the features of a reward: 1 minus their mean similarity, as Sadat et al. measure it
("CADS", ICLR 2024, https://arxiv.org/abs/2310.17347). It is a value of a group of pictures, not of one. So that it
fits into a table of scores, each picture gets its mean distance to the others of its prompt; over the pictures of a
prompt the mean of these is the mean distance of its pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pagopt.comparison.reference import Extractor, first_extractor
from pagopt.errors import PagoptError, RewardError, StudyError
from pagopt.reward import Reward, RewardSpec, load_reward
from pagopt.store import Store
from pagopt.task import Task

__all__ = ["DIVERSITY", "Diversity", "check_diversity", "shares"]

DIVERSITY = "diversity"
"""The objective, or constraint, that is no reward."""

ARGUMENTS = ("reward", "args")


def shares(features: NDArray[np.float64], groups: Sequence[object]) -> NDArray[np.float64]:
    """What each picture contributes: its mean distance to the others of its group.

    Args:
        features: Shape ``(n, d)``, of any lengths; directions are compared. One of length 0 is 1 away from all.
        groups: The group of each, such as its prompt; at least two of each.

    Returns:
        Shape ``(n,)``, 1 minus the mean cosine, from 0 (all the same) to 2.

    Raises:
        ValueError: If a group has a single picture.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    units = features / np.where(lengths > 0, lengths, 1)
    found = np.empty(len(features))
    for group in dict.fromkeys(groups):
        places = [place for place, other in enumerate(groups) if other == group]
        if len(places) < 2:
            raise ValueError(f"{group!r} has a single picture")
        cosines = units[places] @ units[places].T
        np.fill_diagonal(cosines, 0)
        found[places] = 1 - cosines.sum(axis=1) / (len(places) - 1)
    return found


def check_diversity(spec: RewardSpec, tasks: Sequence[Task], held_out: Sequence[Task]) -> None:
    """Refuse what cannot be measured.

    Raises:
        StudyError: If a prompt is drawn once only, or the arguments mean nothing.
    """
    for what, some in (("prompts", tasks), ("held_out_prompts", held_out)):
        for prompt, count in Counter(task.prompt for task in some).items():
            if count < 2:
                raise StudyError(
                    f"{DIVERSITY} is how much the pictures of one prompt differ, and {prompt!r} is drawn once: name "
                    f"each of {what} at least twice; each gets a seed of its own"
                )
    if unknown := sorted(set(spec.args) - set(ARGUMENTS)):
        raise StudyError(
            f"{DIVERSITY} has no argument {unknown[0]!r}: give `reward`, the name of a reward with features, and "
            "`args`, what that takes"
        )


class Diversity:
    """Measures it.

    Args:
        spec: As the tuning has it; its ``args`` may name the ``reward`` whose features are compared.
        rewards: Those of the tuning by label. Without a name, the first with features is taken; of these, those that
            are optimised come last.
        optimised: Labels of these.
        store: Where the pictures are.
        device: Where to compute features.

    Raises:
        StudyError: If no reward has features.
        RewardError: If the named one has none.
    """

    def __init__(
        self,
        spec: RewardSpec,
        rewards: dict[str, Reward],
        optimised: Sequence[str],
        store: Store,
        device: torch.device,
    ) -> None:
        self.store, self.device = store, device
        if "reward" in spec.args:
            found: Extractor | None = Extractor(load_reward(spec.args["reward"], **spec.args.get("args", {})))
        else:
            found = first_extractor(rewards, optimised)
        if found is None:
            raise StudyError(
                f"{DIVERSITY} compares features of pictures, and none of the rewards {', '.join(rewards)} has any: "
                f"name one that has, such as {{name: {DIVERSITY}, args: {{reward: clip}}}}, or watch it"
            )
        self.extractor = found
        self._known: dict[str, NDArray[np.float64]] = {}

    def __call__(self, keys: Sequence[str], tasks: Sequence[Task]) -> NDArray[np.float64]:
        """The shares of pictures in the store, shape ``(n,)``; see :func:`shares`.

        Args:
            keys: Of the pictures.
            tasks: What they show.

        Raises:
            RewardError: If the reward fails.
            StoreError: If a picture cannot be read.
        """
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            pictures = [self.store.get_image(key) for key in new]
            try:
                features = self.extractor(pictures, self.device)
            except PagoptError:
                raise
            except Exception as error:
                name = self.extractor.reward.name
                raise RewardError(
                    f"features of reward {name!r} failed: {type(error).__name__}: {error}", reward=name
                ) from error
            # Trials share few pictures, so only the last ones are kept.
            self._known = dict(zip(new, features, strict=True)) | {k: self._known[k] for k in keys if k in self._known}
        return shares(np.stack([self._known[key] for key in keys]), [task.prompt for task in tasks])
