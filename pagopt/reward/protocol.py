"""The one thing a reward has to do, and the checks before and after it."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pagopt.device import is_out_of_memory
from pagopt.errors import PagoptError, RewardError
from pagopt.reward.hardware import gpu_hint
from pagopt.reward.identity import arguments_of, canonical, files_in, plain, state_of
from pagopt.reward.source import source_of

__all__ = ["FunctionReward", "Reward", "Scores"]

Scores: TypeAlias = "Tensor | NDArray[Any] | Sequence[float]"


class Reward(ABC):
    """A judgement of images: subclass it and write :meth:`score`. Call the object, never ``score`` itself.

    Scores are higher-is-better, one finite number an image, in whatever unit the reward likes.

    Attributes:
        name: How error messages and tables call it; the loader sets it to what the user wrote.
        version: Raise it when the same code gives other scores, because of a package or weights it uses.
        reads_prompts: Whether a score without a prompt means nothing; ``pagopt score`` then asks for one.
    """

    name: str = "reward"
    version: ClassVar[str] = "1"
    reads_prompts: ClassVar[bool] = False
    _arguments: Mapping[str, Any]
    _named: str = ""  # sha256 of the file that the user named, which may only import what scores
    _key: str

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember the arguments: they are part of :meth:`key`, also for rewards made without the loader."""
        reward = super().__new__(cls)
        object.__setattr__(reward, "_arguments", arguments_of(cls, args, kwargs))
        return reward

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__.lower()

    @abstractmethod
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """Judge a batch. Called with one to many images at once, in no particular order or grouping.

        Args:
            images: RGB images of any size, ``n >= 1`` of them.
            prompts: The prompt of each image.

        Returns:
            ``n`` finite numbers, higher is better. A score must not depend on the other images of the batch.
        """

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Refuse prompts that cannot be scored. Called before anything is drawn for them.

        Raises:
            RewardError: If there is one; says which.
        """
        del prompts

    def move(self, device: torch.device) -> None:
        """Move networks to a device, before scoring starts. Without networks there is nothing to do."""
        del device

    def identity(self) -> Any:
        """What else changes the scores, as JSON: a fingerprint of weights, say. Called once."""
        return None

    @classmethod
    def missing(cls) -> str:
        """What is missing before this reward works with its default arguments; empty when it is ready."""
        return ""

    def describe(self) -> dict[str, Any]:
        """What the scores depend on, as JSON: name, arguments, version, source code, :meth:`identity`.

        Raises:
            RewardError: If an argument is not plain JSON.
        """
        arguments = {name: plain(value, f"{self.name}: {name!r}") for name, value in self._arguments.items()}
        return {
            "reward": self.name,
            "arguments": arguments,
            "version": self.version,
            "source": " ".join(filter(None, dict.fromkeys((self._source(), self._named)))),
            "identity": self.identity(),
        }

    def key(self) -> str:
        """A short text that changes whenever :meth:`describe` does; the store keeps scores under it."""
        if "_key" not in self.__dict__:
            digest = hashlib.sha256(canonical(self.describe()).encode()).hexdigest()
            object.__setattr__(self, "_key", f"{self.name}@{digest}")
        return self._key

    def _source(self) -> str:
        return source_of(type(self))

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Score a batch, checking what goes in and what comes out; in halves, where a GPU's memory is too small for it.

        Args:
            images: At least one image, of any size. Transparent ones are put on white, grey ones become RGB.
            prompts: The prompt of each image.

        Returns:
            float32 scores of shape ``(n,)`` on the CPU, finite.

        Raises:
            TypeError: If these are not images and prompts.
            ValueError: If there are none, or not as many prompts as images.
            RewardError: If an image is damaged or has more than 8 bits a channel, or if the reward raises, or returns
                the wrong number, type, NaN or infinity; ``index`` and ``prompt`` say for which image, where that can be
                known.
        """
        pictures, texts = _checked(images, prompts)
        too_large = False
        with _full_precision(), torch.no_grad():
            try:
                returned = self.score(pictures, texts)
            except RewardError as error:
                error.reward = error.reward or self.name
                raise
            except Exception as error:
                too_large = len(pictures) > 1 and is_out_of_memory(error)
                if not too_large:
                    raise self._failed(error, pictures, texts) from error
            if too_large:  # and only here, behind the exception, is what it held let go
                return self._by_halves(pictures, texts)
            scores = self._tensor(returned, len(pictures))
        for index in (~torch.isfinite(scores)).nonzero().flatten().tolist()[:1]:
            raise RewardError(
                f"reward {self.name!r} returned {scores[index].item()} for image {index + 1} of "
                f"{len(pictures)}, prompt {texts[index]!r}. A score must be a finite float32 number.",
                reward=self.name,
                index=index,
                prompt=texts[index],
            )
        return scores

    def _by_halves(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        half = len(images) // 2
        first = self(images[:half], prompts[:half])
        try:
            return torch.cat([first, self(images[half:], prompts[half:])])
        except RewardError as error:
            error.index = None if error.index is None else error.index + half
            raise

    def _failed(self, error: Exception, images: list[Image.Image], prompts: list[str]) -> RewardError:
        """Say which image it was: the first one that fails alone, too."""
        at = 0 if len(images) == 1 else None
        for index in range(len(images)) if at is None else ():
            try:
                self.score(images[index : index + 1], prompts[index : index + 1])
            except Exception as again:
                at, error = index, again
                break
        where = (
            f"image {at + 1} of {len(images)}, prompt {prompts[at]!r}"
            if at is not None
            else f"a batch of {len(images)} images, though on none of them alone; first prompt {prompts[0]!r}"
        )
        trace, line = error.__traceback__, ""
        while trace is not None:
            line = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
            trace = trace.tb_next
        said = str(error) if isinstance(error, PagoptError) else f"{type(error).__name__}: {error}{line}"
        said += gpu_hint(error)
        return RewardError(
            f"reward {self.name!r} failed on {where}: {said}",
            reward=self.name,
            index=at,
            prompt=None if at is None else prompts[at],
        )

    def _tensor(self, returned: Any, count: int) -> Tensor:
        """What ``score`` returned, as float32 on the CPU."""
        need = f"It must return {count}, one number an image, as a tensor, an array or a list."
        numeric = False
        if isinstance(returned, Tensor) and not returned.is_meta:
            values, numeric = returned.detach().to("cpu"), not returned.is_complex()
        elif isinstance(returned, (np.ndarray, list, tuple)):
            with contextlib.suppress(TypeError, ValueError, RuntimeError):
                array = np.asarray([item.item() if isinstance(item, Tensor) else item for item in returned])
                numeric = array.dtype.kind in "fiub" or array.size == 0
                values = torch.from_numpy(array.astype(np.float64)) if numeric else torch.empty(0)
        if not numeric:
            raise RewardError(f"reward {self.name!r} returned {returned!r:.80}. {need}", reward=self.name)
        if tuple(values.shape) != (count,):
            shape = f"shape {tuple(values.shape)}" if values.ndim != 1 else f"{len(values)} scores"
            raise RewardError(f"reward {self.name!r} returned {shape} for {count} images. {need}", reward=self.name)
        return values.to(torch.float32)


class FunctionReward(Reward):
    """A function ``f(images, prompts) -> scores`` as a reward.

    Args:
        function: Any callable; see :meth:`Reward.score` for what it gets and must return.
        name: Its name; by default the function's own.
        arguments: What it was made with, as JSON; part of :meth:`key`, with the content of files that they name. By
            default what it carries: the values of a closure, the arguments of a ``functools.partial``, the attributes
            of an object.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Image.Image], Sequence[str]], Scores],
        name: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.function = function
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self._arguments = arguments if arguments is not None else {}
        self._carries = arguments is None

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """Call the function."""
        return self.function(images, prompts)

    def move(self, device: torch.device) -> None:
        """Move the callable, if it has a ``move`` of its own."""
        move = getattr(self.function, "move", None)
        if callable(move):
            move(device)

    def identity(self) -> Any:
        """What the function carries beside its code."""
        return state_of(self.function) if self._carries else None

    def describe(self) -> dict[str, Any]:
        """As for every reward, and digests of the files that its arguments, or what it carries, name."""
        described = super().describe()
        files = files_in([described["arguments"], described["identity"]])
        return {**described, **({"files": files} if files else {})}

    def _source(self) -> str:
        return source_of(self.function)


def _checked(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[list[Image.Image], list[str]]:
    if isinstance(prompts, str) or isinstance(images, Image.Image):
        raise TypeError("a reward takes a list of images and a list of prompts, not a single one")
    pictures, texts = list(images), list(prompts)
    if not pictures or len(pictures) != len(texts):
        raise ValueError(f"{len(pictures)} images, {len(texts)} prompts: it takes as many, and at least one")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"prompt {index} is a {type(text).__name__}, not a string")
    return [_rgb(picture, index) for index, picture in enumerate(pictures)], texts


def _rgb(image: Any, index: int) -> Image.Image:
    if not isinstance(image, Image.Image):
        raise TypeError(f"image {index} is a {type(image).__name__}, not a PIL image")
    try:
        image.load()
    except Exception as error:  # Pillow's plug-ins raise what they like
        raise RewardError(f"image {index + 1} cannot be read: {error}", index=index) from error
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in {"I", "F"} or image.mode.startswith("I;"):
        raise RewardError(f"image {index + 1} has mode {image.mode!r}: convert it to 8 bits a channel", index=index)
    if image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """A reward measures in float32, whatever precision the Trainer draws the images in."""
    before = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
