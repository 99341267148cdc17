"""RewardContract itself: it passes what is right, and every break is caught by the check that is meant for it."""

from __future__ import annotations

import functools
import itertools
import re
import unittest
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pagopt.testing
from pagopt.errors import RewardError
from pagopt.reward import FunctionReward, Reward
from pagopt.testing import RewardContract, example_pictures

CHECKS = sorted(name for name in dir(RewardContract) if name.startswith("test_"))
COUNTER = itertools.count()


def mean(image: Image.Image) -> float:
    return float(np.asarray(image, dtype=np.float64).mean())


class Right(Reward):
    """Mean of all values times a gain, plus the prompt's number of letters."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain
        self.lengths: dict[str, int] = {}
        self.encodings = 0

    def encode(self, prompt: str) -> int:
        if prompt not in self.lengths:
            self.encodings += 1
            self.lengths[prompt] = len(prompt)
        return self.lengths[prompt]

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Any:
        return [self.gain * mean(i) + 0.01 * self.encode(p) for i, p in zip(images, prompts, strict=True)]


class Contract(RewardContract):
    reward = Right
    other_arguments = ({"gain": 2.0}, {"gain": 3.0})


class Counting(Contract):
    def encoded(self, reward: Reward) -> int | None:
        return reward.encodings if isinstance(reward, Right) else None


class TooShort(Right):
    """One score too few."""

    def score(self, images: Any, prompts: Any) -> Any:
        return super().score(images, prompts)[:-1]


class Flat(Right):
    """The same for all."""

    def score(self, images: Any, prompts: Any) -> Any:
        return [1.0] * len(images)


class ByPlace(Right):
    """Later pictures get more."""

    def score(self, images: Any, prompts: Any) -> Any:
        return [s + 0.1 * at for at, s in enumerate(super().score(images, prompts))]


class Sorted(Right):
    """Scores in order of size: right for one, wrong for many."""

    def score(self, images: Any, prompts: Any) -> Any:
        return sorted(super().score(images, prompts))


class Centred(Right):
    """Above the mean of its batch."""

    def score(self, images: Any, prompts: Any) -> Any:
        return [s - np.mean([mean(i) for i in images]) for s in super().score(images, prompts)]


class Dropout(Right):
    """A network left in training mode."""

    def score(self, images: Any, prompts: Any) -> Any:
        return torch.nn.functional.dropout(torch.tensor([mean(i) for i in images]), 0.5, training=True)


class RandomWeights(Right):
    """Another network every time it is made."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(gain)
        self.weight = next(COUNTER)

    def score(self, images: Any, prompts: Any) -> Any:
        return [self.weight + mean(i) for i in images]


class Original(Right):
    """Looks at what the caller holds, not at what it is given: a grey file gets another score."""

    def __call__(self, images: Any, prompts: Any) -> Any:
        return super().__call__(images, prompts) + torch.tensor([float(i.mode != "RGB") for i in images])


class Contrasty(Right):
    """Divides by the spread of the picture, which may be 0."""

    def score(self, images: Any, prompts: Any) -> Any:
        arrays = [np.asarray(image, dtype=np.float64) for image in images]
        with np.errstate(all="ignore"):
            return [a.mean() / a.std() if min(a.shape[:2]) > 1 else a.mean() for a in arrays]


class Unnamed(Right):
    """Refuses small pictures without saying which."""

    def score(self, images: Any, prompts: Any) -> Any:
        if any(min(image.size) < 8 for image in images):
            raise RewardError("a picture is too small")
        return super().score(images, prompts)


class Painter(Right):
    """Draws into the pictures."""

    def score(self, images: Any, prompts: Any) -> Any:
        scores = super().score(images, prompts)
        for image in images:
            image.putpixel((0, 0), (1, 2, 3))
        return scores


class FirstWord(Right):
    """Takes the first word of a prompt, which may have none."""

    def score(self, images: Any, prompts: Any) -> Any:
        return [mean(i) + len(p.split()[0]) for i, p in zip(images, prompts, strict=True)]


class NanOnEmpty(Right):
    """A mean over the words of a prompt, which may have none."""

    def score(self, images: Any, prompts: Any) -> Any:
        return [
            mean(i) + (np.mean([len(w) for w in p.split()]) if p else np.nan)
            for i, p in zip(images, prompts, strict=True)
        ]


class DefaultDtype(Right):
    """Rounds to the default dtype of torch, and lets autocast in by the back door."""

    def score(self, images: Any, prompts: Any) -> Any:
        return super().score(images, prompts)

    def __call__(self, images: Any, prompts: Any) -> Any:
        return super().__call__(images, prompts) + float(torch.get_default_dtype() == torch.float64)


class Clock(Right):
    """Its identity is the time."""

    def identity(self) -> Any:
        return next(COUNTER)


class History(Right):
    """Its identity is what it has scored."""

    def identity(self) -> Any:
        return sorted(self.lengths)


class Forgetful(Right):
    """Its key leaves the arguments out."""

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "arguments": {}}


class Unkeyed(Right):
    """Carries something that no key can tell."""

    def __init__(self, gain: Any = mean) -> None:
        super().__init__()


class EncodesAgain(Right):
    """Encodes every prompt of every batch."""

    def encode(self, prompt: str) -> int:
        self.encodings += 1
        return len(prompt)


class Stuck(Right):
    """Cannot be moved."""

    def move(self, device: torch.device) -> None:
        raise RuntimeError("no")


class Drifts(Right):
    """Every move changes its scores."""

    def move(self, device: torch.device) -> None:
        self.gain *= 1.01


class Silent(Right):
    __doc__ = None


class WrongMissing(Right):
    """Its missing() is no text."""

    @classmethod
    def missing(cls) -> Any:
        return True


BREAKS: dict[type[Reward], tuple[str, str]] = {
    TooShort: ("a_batch_gives_one_finite_score_an_image", "0 scores for 1 images. It must return 1"),
    Flat: ("different_pictures_get_different_scores", "A reward has to tell pictures apart"),
    ByPlace: ("order_never_changes_a_score", "Look for a sort"),
    Sorted: ("order_never_changes_a_score", "in another order got other scores"),
    Centred: ("batch_size_never_changes_a_score", "scored 1 at a time"),
    Dropout: ("the_same_pictures_get_the_same_scores_again", "left in training mode"),
    RandomWeights: ("the_same_pictures_get_the_same_scores_again", "a reward made anew gave other scores"),
    Original: ("pictures_of_any_mode_are_scored", "a picture of mode L got another score"),
    Contrasty: ("plain_pictures_are_scored", "division by a spread"),
    Unnamed: ("a_tiny_picture_is_scored_or_refused_by_number", "without saying which"),
    Painter: ("pictures_and_prompts_are_left_as_they_were", "Copy what you change"),
    FirstWord: ("odd_prompts_are_scored_or_refused_in_words", "the prompt '' made it fail: .*IndexError"),
    NanOnEmpty: ("odd_prompts_are_scored_or_refused_in_words", "the prompt '' made it fail: .*returned nan"),
    DefaultDtype: ("the_precision_around_it_does_not_matter", "another default dtype"),
    Clock: ("the_key_says_what_the_scores_depend_on", "made alike have different keys"),
    History: ("the_key_says_what_the_scores_depend_on", "scoring changed the key"),
    Forgetful: (
        "the_key_says_what_the_scores_depend_on",
        r"with \{'gain': 2.0\} it has a key that other arguments have",
    ),
    Unkeyed: ("the_key_says_what_the_scores_depend_on", r"key\(\) failed: unkeyed: 'gain' is a function"),
    EncodesAgain: ("each_distinct_prompt_is_encoded_once", "4 different prompts, scored twice, were encoded 12 times"),
    Stuck: ("it_works_on_the_cpu_and_on_every_gpu_kind_there_is", r"move\('\w+'\) failed: RuntimeError: no"),
    Drifts: ("it_works_on_the_cpu_and_on_every_gpu_kind_there_is", r"after move\('\w+'\) the scores differ"),
    Silent: ("it_says_what_it_is_and_what_it_lacks", "has no docstring"),
    WrongMissing: ("it_says_what_it_is_and_what_it_lacks", r"missing\(\) returned True"),
}


def subject(cls: Any, **attributes: Any) -> RewardContract:
    base = Counting if cls is EncodesAgain else Contract
    return type("Contract", (base,), {"reward": cls, **attributes})()


def failures(contract: RewardContract) -> dict[str, str]:
    """What every check says that fails."""
    found = {}
    for name in CHECKS:
        try:
            getattr(contract, name)()
        except unittest.SkipTest:
            continue
        except AssertionError as error:
            found[name] = str(error)
    return found


def test_what_is_right_passes() -> None:
    assert failures(Counting()) == {}
    Counting().check()


@pytest.mark.parametrize("cls", BREAKS, ids=lambda cls: cls.__name__)
def test_every_break_is_caught_by_the_check_for_it(cls: type[Reward]) -> None:
    check, says = BREAKS[cls]
    changes = {"other_arguments": ()} if cls is Unkeyed else {}
    with pytest.raises(AssertionError, match=f"(?s){says}"):
        getattr(subject(cls, **changes), f"test_{check}")()


LARGE = {TooShort, Dropout, RandomWeights, ByPlace, Sorted, Centred, Drifts, Painter}


@pytest.mark.parametrize("cls", [cls for cls in BREAKS if cls not in LARGE])
def test_a_small_break_fails_no_other_check(cls: type[Reward]) -> None:
    changes = {"other_arguments": ()} if cls is Unkeyed else {}
    assert list(failures(subject(cls, **changes))) == [f"test_{BREAKS[cls][0]}"]


def test_every_check_catches_something() -> None:
    assert {f"test_{check}" for check, _ in BREAKS.values()} == set(CHECKS)


def test_everything_wrong_is_said_at_once() -> None:
    class Both(Painter):
        __doc__ = None

    with pytest.raises(AssertionError, match=r"(?s)test_it_says_what.*test_pictures_and_prompts_are_left"):
        subject(Both).check()


def test_rewards_that_refuse_with_words_pass() -> None:
    class Choosy(Right):
        """Wants to hear of apples or cats, and large pictures."""

        def score(self, images: Any, prompts: Any) -> Any:
            for at, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
                if "apple" not in prompt and "cat" not in prompt:
                    raise RewardError("name an apple or a cat", index=at)
                if min(image.size) < 8:
                    raise RewardError(f"too small: {image.size}", index=at)
            return super().score(images, prompts)

    assert failures(subject(Choosy, prompts=("red apple", "cat", "cat"))) == {}
    assert "name an apple or a cat" in failures(subject(Choosy))["test_order_never_changes_a_score"]


def warmth(images: Any, prompts: Any, channel: int = 0) -> list[float]:
    """Mean of a channel."""
    return [float(np.asarray(image)[..., channel].mean()) for image in images]


class Plain:
    """A class without a base."""

    def __init__(self, channel: int = 0) -> None:
        self.channel = channel

    def __call__(self, images: Any, prompts: Any) -> Any:
        return warmth(images, prompts, self.channel)


def made() -> Reward:
    return FunctionReward(functools.partial(warmth, channel=2), "blue")


@pytest.mark.parametrize("thing", [warmth, Plain, f"{__file__}:warmth", f"{__file__}:Plain"])
def test_functions_classes_and_names_are_taken(thing: Any) -> None:
    class Mine(RewardContract):
        reward = thing
        arguments = MappingProxyType({"channel": 1})
        other_arguments = ({"channel": 0}, {"channel": 2})

    assert failures(Mine()) == {}


def test_a_made_reward_and_none_at_all() -> None:
    class Made(RewardContract):
        def make(self, **changes: Any) -> Reward:
            return made()

    assert failures(Made()) == {}
    with pytest.raises(AssertionError, match=r"Empty has no `reward`: set it to your class, or write make\(\)"):
        type("Empty", (RewardContract,), {})().check()


def test_unittest_runs_it_and_skips_what_is_not_counted() -> None:
    class Mine(RewardContract, unittest.TestCase):
        reward = warmth

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Mine).run(result)
    assert result.wasSuccessful()
    assert result.testsRun == len(CHECKS)
    assert [reason for _, reason in result.skipped] == ["encoded() is not written, so prompts are not counted"]


def test_pytest_is_not_needed() -> None:
    for file in Path(str(pagopt.testing.__file__)).parent.glob("*.py"):
        assert not re.search(r"^\s*(import|from) pytest", file.read_text(encoding="utf-8"), re.MULTILINE)


def test_example_pictures_differ_and_repeat() -> None:
    pictures = example_pictures(7, [(20, 10), (5, 9)])
    assert [p.size for p in pictures[:3]] == [(20, 10), (5, 9), (20, 10)]
    assert len({p.tobytes() for p in pictures}) == 7
    assert [p.tobytes() for p in pictures] == [p.tobytes() for p in example_pictures(7, [(20, 10), (5, 9)])]
    assert example_pictures(1, [(8, 8)], seed=1)[0].tobytes() != example_pictures(1, [(8, 8)])[0].tobytes()
