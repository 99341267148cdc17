"""The checks themselves. Each fails with a message that says what is wrong and what to do."""

from __future__ import annotations

import random
import unittest
import warnings
from collections.abc import Sequence

import torch
from PIL import Image

from pagopt.errors import RewardError
from pagopt.reward import FunctionReward, Reward
from pagopt.testing.pictures import example_pictures
from pagopt.testing.subject import Subject, require

__all__ = ["RewardContract"]

COLOURS = ("white", "black", "red", (128, 128, 128))
MODES = ("L", "1", "P", "LA", "RGBA", "CMYK")


class RewardContract(Subject):
    """What a reward has to keep, whatever it measures: subclass it in your tests, see :mod:`pagopt.testing`.

    The names of the checks say what has to be so, their docstrings why.
    """

    def test_a_batch_gives_one_finite_score_an_image(self) -> None:
        """A search puts the scores of a batch beside its images, one to one."""
        reward = self.kept()
        for count in (1, 7):
            scores = self.scores(reward, *self.batch(count))
            require(scores.shape == (count,), f"{count} images gave scores of shape {tuple(scores.shape)}")

    def test_different_pictures_get_different_scores(self) -> None:
        """A search cannot climb what is flat everywhere."""
        scores = self.scores(self.kept(), *self.batch(7))
        require(
            self.constant or len(set(scores.tolist())) > 1,
            f"all 7 pictures got the score {scores[0].item():.6g}. A reward has to tell pictures apart; if yours is "
            "right to give one score to all of these, set `constant = True`, or give `prompts` that it knows.",
        )

    def test_order_never_changes_a_score(self) -> None:
        """Batches come in any order: a score must belong to its picture, not to its place."""
        images, prompts = self.batch(7)
        order = list(range(7))
        random.Random(1).shuffle(order)
        reward = self.kept()
        mixed = self.scores(reward, [images[i] for i in order], [prompts[i] for i in order])
        self.same(
            mixed,
            self.scores(reward, images, prompts)[order],
            "the same pictures in another order got other scores. Look for a sort, a loop that pairs the wrong prompt "
            "with a picture, or a state that one picture leaves for the next.",
        )

    def test_batch_size_never_changes_a_score(self) -> None:
        """One GPU scores 32 at once, another 7, and the store keeps one score: 1, 7 and 32 must agree."""
        images, prompts = self.batch(32)
        reward = self.kept()
        whole = self.scores(reward, images, prompts)
        for size in (1, 7):
            parts = [self.scores(reward, images[at : at + size], prompts[at : at + size]) for at in range(0, 32, size)]
            self.same(
                torch.cat(parts),
                whole,
                f"scored {size} at a time the pictures got other scores than 32 at once. Nothing may be computed over "
                "the batch: no mean, rank or softmax over the pictures, no batch norm in training mode.",
            )

    def test_the_same_pictures_get_the_same_scores_again(self) -> None:
        """The store never scores twice: a second time has to give the same, also from a reward made anew."""
        images, prompts = self.batch(7)
        reward = self.kept()
        first = self.scores(reward, images, prompts)
        advice = "Is a network left in training mode (dropout)? Is something drawn at random without a fixed seed?"
        self.same(self.scores(reward, images, prompts), first, f"scored again, the pictures got other scores. {advice}")
        self.same(self.scores(self.make(), images, prompts), first, f"a reward made anew gave other scores. {advice}")

    def test_pictures_of_any_mode_are_scored(self) -> None:
        """They arrive as RGB; a grey or transparent file must give what its RGB version gives."""
        reward, prompt = self.kept(), [self.prompts[0]]
        for mode in MODES:
            image = example_pictures(1, self.sizes)[0].convert(mode)
            plain = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
            if mode == "CMYK":
                plain = image.convert("RGB")
            self.same(
                self.scores(reward, [image], prompt),
                self.scores(reward, [plain], prompt),
                f"a picture of mode {mode} got another score than the same in RGB. Use the RGB pictures that score() "
                "gets, not the files behind them.",
            )

    def test_plain_pictures_are_scored(self) -> None:
        """A failed guidance draws one colour: that must be a low score, not NaN and not a crash."""
        images = [Image.new("RGB", self.sizes[0], colour) for colour in COLOURS]
        try:
            self.kept()(images, self.cycle(len(images)))
        except RewardError as error:
            raise AssertionError(
                f"pictures of one colour (white, black, red, grey) could not be scored: {error}\nA search meets such "
                "pictures, and stops at an error. Look for a division by a spread or a norm that is 0 there."
            ) from error

    def test_a_tiny_picture_is_scored_or_refused_by_number(self) -> None:
        """Where a picture cannot be scored, the error has to say which one it is."""
        images = [*example_pictures(2, self.sizes), Image.new("RGB", (1, 1), "red")]
        try:
            self.kept()(images, self.cycle(3))
        except RewardError as error:
            require(
                error.index == 2,
                f"a picture of 1 x 1 pixels among others failed without saying which it was ({error}). Score each "
                "picture on its own, or raise RewardError(..., index=...) for it.",
            )

    def test_pictures_and_prompts_are_left_as_they_were(self) -> None:
        """The next reward looks at the same pictures."""
        images, prompts = self.batch(4)
        before, texts = [image.tobytes() for image in images], list(prompts)
        self.scores(self.kept(), images, prompts)
        after = [image.tobytes() for image in images]
        require(
            before == after and texts == prompts,
            "score() changed the pictures or prompts that it was given. Copy what you change: image.copy(), "
            "np.array(image) instead of np.asarray(image).",
        )

    def test_odd_prompts_are_scored_or_refused_in_words(self) -> None:
        """Prompts are what people type: empty ones, other scripts, emoji, and very long ones."""
        reward, images = self.kept(), example_pictures(1, self.sizes)
        for prompt in ("", "naïve 漢字 🍎", "line\nbreak", "a red apple on a table " * 100):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a long prompt is cut may be said
                try:
                    reward(images, [prompt])
                except RewardError as error:
                    require(
                        _refuses(reward, images, [prompt]),
                        f"the prompt {prompt[:40]!r} made it fail: {error}\nScore every text, and cut one that is too "
                        "long; or raise a RewardError that says which prompts it takes.",
                    )

    def test_the_precision_around_it_does_not_matter(self) -> None:
        """The pictures may be drawn in bfloat16; scores are measured in float32."""
        images, prompts = self.batch(3)
        reward = self.kept()
        plain = self.scores(reward, images, prompts)
        before = torch.get_default_dtype()
        try:
            torch.set_default_dtype(torch.float64)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                other = self.scores(reward, images, prompts)
        finally:
            torch.set_default_dtype(before)
        self.same(
            other, plain, "under autocast and another default dtype the scores differ. Do not set them in score()."
        )

    def test_the_key_says_what_the_scores_depend_on(self) -> None:
        """Scores are kept under it: too few changes and old scores are taken for new ones."""
        reward = self.make()
        try:
            key = reward.key()
        except RewardError as error:
            raise AssertionError(f"key() failed: {error}") from error
        require(
            self.make().key() == key,
            "two rewards made alike have different keys, so nothing would be found in the store. identity() must not "
            "depend on time, memory addresses, the order of a set, or a temporary path.",
        )
        fresh = self.make()
        self.scores(fresh, *self.batch(2))
        require(fresh.key() == key, "scoring changed the key. identity() must not depend on what was scored before.")
        keys = {key}
        for changes in self.other_arguments:
            other = self.make(**changes).key()
            require(
                other not in keys,
                f"with {dict(changes)} it has a key that other arguments have, too, so their scores would be mixed up. "
                "Arguments of a Reward's __init__ are in the key by themselves; add the rest to identity().",
            )
            keys.add(other)

    def test_each_distinct_prompt_is_encoded_once(self) -> None:
        """All candidates of a search share their prompts. Counted only where :meth:`encoded` is written."""
        reward = self.make()
        before = self.encoded(reward)
        if before is None:
            raise unittest.SkipTest("encoded() is not written, so prompts are not counted")
        images, prompts = self.batch(len(self.prompts))
        for _ in range(2):
            self.scores(reward, images, prompts)
        after, distinct = self.encoded(reward), len(set(prompts))
        require(
            after is not None and after - before == distinct,
            f"{distinct} different prompts, scored twice, were encoded {(after or 0) - before} times. Keep what you "
            "made of a text in a dict, and encode only what is not in it.",
        )

    def test_it_works_on_the_cpu_and_on_every_gpu_kind_there_is(self) -> None:
        """move() is called once before scoring, with the device that draws the pictures."""
        images, prompts = self.batch(3)
        reward = self.kept()
        plain = self.scores(reward, images, prompts)
        there = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}
        kinds = [kind for kind, backend in there.items() if backend.is_available()]
        for kind in (*kinds, "cpu"):
            try:
                reward.move(torch.device(kind))
            except Exception as error:
                raise AssertionError(f"move({kind!r}) failed: {type(error).__name__}: {error}") from error
            self.same(
                self.scores(reward, images, prompts),
                plain,
                f"after move({kind!r}) the scores differ. Move every tensor and network, and forget what was computed "
                "on the device before.",
                self.tolerance if kind == "cpu" else self.device_tolerance,
            )

    def test_it_says_what_it_is_and_what_it_lacks(self) -> None:
        """`pagopt rewards` shows the first line of the docstring, and what is missing."""
        reward = self.kept()
        thing = reward.function if isinstance(reward, FunctionReward) else type(reward)
        thing = getattr(thing, "func", thing)
        text = (getattr(thing, "__doc__", None) or "").strip()
        require(bool(text), f"{reward.name} has no docstring: its first line is what `pagopt rewards` shows")
        missing = type(reward).missing()
        require(isinstance(missing, str), f"missing() returned {missing!r}: it must be a text, empty when ready")

    # Without pytest.

    def check(self) -> None:
        """Run all checks.

        Raises:
            AssertionError: With everything that is wrong.
        """
        wrong = []
        for name in [name for name in dir(self) if name.startswith("test_")]:
            try:
                getattr(self, name)()
            except unittest.SkipTest:
                continue
            except AssertionError as error:
                wrong.append(f"{name}: {error}")
        if wrong:
            raise AssertionError("\n".join(wrong))


def _refuses(reward: Reward, images: Sequence[Image.Image], prompts: Sequence[str]) -> bool:
    """Whether the reward itself raises a RewardError, with words of its author."""
    try:
        with torch.no_grad():
            reward.score(images, prompts)
    except RewardError:
        return True
    except Exception:
        return False
    return False
