"""hps: the authors' formula on tiny checkpoints in their format."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from published import LETTERS, open_clip_state, save_hps, save_letters
from torch import Tensor

from pagopt.errors import RewardError
from pagopt.reward import load_reward
from pagopt_rewards.hps import HPS
from pagopt_rewards.preprocessing import letterbox
from pagopt_rewards.vocabulary import clean, clip_tokenizer
from pagopt_rewards.weights import read_weights

PROMPTS = ["a red apple", "Salt &amp; pepper", "", "“quoted”", "a red apple", "a cat", "東京 🍎"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_hps(tmp_path_factory.mktemp("hps") / "2.1")


@pytest.fixture(scope="module")
def reward(file: Path) -> HPS:
    return HPS(weights=str(file))


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * weight + bias


def blocks(x: Tensor, state: dict[str, Tensor], stem: str, layers: int, head: int, causal: bool) -> Tensor:
    """The transformer of one sequence, (tokens, width), head by head."""
    for layer in range(layers):
        at = f"{stem}.resblocks.{layer}"
        linear = functools.partial(
            lambda at, y, name: y @ state[f"{at}.{name}weight"].T + state[f"{at}.{name}bias"], at
        )
        q, k, v = linear(norm(x, state, f"{at}.ln_1"), "attn.in_proj_").chunk(3, dim=-1)
        parts = []
        for start in range(0, x.shape[1], head):
            end = start + head
            weights = q[:, start:end] @ k[:, start:end].T / head**0.5
            if causal:
                weights = weights.masked_fill(torch.ones_like(weights).triu(1).bool(), -torch.inf)
            parts.append(weights.softmax(-1) @ v[:, start:end])
        x = x + linear(torch.cat(parts, dim=-1), "attn.out_proj.")
        hidden = linear(norm(x, state, f"{at}.ln_2"), "mlp.c_fc.")
        x = x + linear(0.5 * hidden * (1 + torch.erf(hidden / 2**0.5)), "mlp.c_proj.")
    return x


def slow(file: Path, image: Image.Image, tokens: list[int]) -> float:
    """open_clip's ViT by its published tensors, one image and one text, in float64."""
    state = {name: tensor.double() for name, tensor in read_weights(file).items()}
    pixels = letterbox(image, 28).double()
    patches = pixels.unfold(1, 14, 14).unfold(2, 14, 14).permute(1, 2, 0, 3, 4).reshape(4, -1)
    x = torch.cat([state["visual.class_embedding"][None], patches @ state["visual.conv1.weight"].reshape(160, -1).T])
    x = norm(x + state["visual.positional_embedding"], state, "visual.ln_pre")
    x = blocks(x, state, "visual.transformer", 2, 80, causal=False)
    seen = norm(x[0], state, "visual.ln_post") @ state["visual.proj"]
    y = state["token_embedding.weight"][tokens] + state["positional_embedding"][: len(tokens)]
    y = norm(blocks(y, state, "transformer", 1, 64, causal=True), state, "ln_final")
    read = y[max(range(len(tokens)), key=tokens.__getitem__)] @ state["text_projection"]
    return float(F.cosine_similarity(seen, read, dim=0))


def test_scores_are_those_of_the_slow_network(reward: HPS, file: Path, pictures: list[Image.Image]) -> None:
    scores = reward(pictures, PROMPTS)
    for image, prompt, score in zip(pictures, PROMPTS, scores.tolist(), strict=True):
        text = {"Salt &amp; pepper": "salt & pepper", "“quoted”": '"quoted"'}.get(prompt, prompt)
        words = "".join(f"{word} " for word in text.split(" ")) if text else ""
        tokens = [LETTERS - 2, *_letters(words), LETTERS - 1][:24]
        tokens[-1] = LETTERS - 1
        assert score == pytest.approx(slow(file, image, tokens), abs=1e-5), prompt
    assert scores.std() > 1e-3


def _letters(words: str) -> list[int]:
    """Tokens of a vocabulary without merges, spelled out: each byte, and another one where a word ends."""
    import regex

    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = {byte: at for at, byte in enumerate(printing + [b for b in range(256) if b not in printing])}
    found: list[int] = []
    for word in regex.findall(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", words):
        at = [order[byte] for byte in word.encode()]
        found += [*at[:-1], at[-1] + 256]
    return found


def filter_(before: int, after: int) -> Tensor:
    """Catmull-Rom's bicubic filter as a matrix (after, before), widened where it reduces."""
    scale, rows = before / after, torch.zeros(after, before, dtype=torch.float64)
    for row in range(after):
        for column in range(before):
            x = abs(column + 0.5 - (row + 0.5) * scale) / max(scale, 1)
            near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
            rows[row, column] = near if x < 1 else far if x < 2 else 0
    return rows / rows.sum(dim=1, keepdim=True)


# None becomes one pixel wide: there torch's own filter, and with it the authors', goes wrong.
@pytest.mark.parametrize("size", [(28, 28), (64, 48), (40, 96), (33, 35), (10, 7), (20, 300), (28, 9)])
def test_the_whole_picture_is_on_a_black_square(size: tuple[int, int]) -> None:
    image = Image.effect_noise(size, 90).convert("RGB").quantize(40).convert("RGB")
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in _statistics())
    width, height = (max(1, round(side * 28 / max(size))) for side in size)
    plain = torch.tensor(list(image.getdata()), dtype=torch.float64).view(size[1], size[0], 3).permute(2, 0, 1) / 255
    expected = torch.zeros(3, 28, 28, dtype=torch.float64)
    left, top = (28 - width) // 2, (28 - height) // 2
    expected[:, top : top + height, left : left + width] = filter_(size[1], height) @ plain @ filter_(size[0], width).T
    torch.testing.assert_close(letterbox(image, 28) * std + mean, expected.float(), atol=1e-5, rtol=0)


def _statistics() -> tuple[list[float], list[float]]:
    return [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def test_neither_batch_size_nor_order_matters(reward: HPS, pictures: list[Image.Image]) -> None:
    images, prompts = (pictures * 5)[:32], (PROMPTS * 5)[:32]
    whole = reward(images, prompts)
    alone = torch.cat([reward([image], [prompt]) for image, prompt in zip(images, prompts, strict=True)])
    sevens = torch.cat([reward(images[i : i + 7], prompts[i : i + 7]) for i in range(0, 32, 7)])
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(sevens, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(reward(images[::-1], prompts[::-1]), whole.flip(0), atol=1e-5, rtol=0)


def test_each_prompt_is_encoded_once(file: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    reward, seen = HPS(weights=str(file)), []
    whole = reward.encoder.model.get_text_features

    def counted(input_ids: Tensor, attention_mask: Tensor) -> object:
        seen.append(len(input_ids))
        return whole(input_ids=input_ids, attention_mask=attention_mask)

    monkeypatch.setattr(reward.encoder.model, "get_text_features", counted)
    reward(pictures[:4], ["a", "b", "a", "b"])
    reward(pictures[:2], ["b", "c"])
    assert seen == [2, 1]


def test_what_is_cut_is_said_once(reward: HPS, pictures: list[Image.Image], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pagopt.rewards"):
        long = reward(pictures[:1], ["abcdefghijklmnopqrstuvwxyz"])
        reward(pictures[:1], ["abcdefghijklmnopqrstuvwxyz"])
        reward(pictures[:1], ["abcdefghijklmnopqrstuv"])  # 22 letters and two marks: all there is room for
    (record,) = caplog.records
    assert "more than the 22 tokens" in record.getMessage()
    assert "leaves out 'wxyz' of 'abcdefghijklmnopqrstuvwxyz'" in record.getMessage()
    assert long.isfinite().all()


def test_versions_take_their_own_files(tmp_path: Path, pictures: list[Image.Image]) -> None:
    folder = save_hps(tmp_path / "w", "2.0").parent
    with pytest.raises(RewardError, match=r"no checkpoint .*HPS_v2\.1_compressed\.pt\. Download .*xswu/HPSv2"):
        HPS(weights=str(folder))
    old = load_reward("pagopt_rewards.hps:HPS", version=2.0, weights=str(folder))
    save_hps(folder, "2.1", seed=1)
    new = load_reward("pagopt_rewards.hps:HPS", version=2.1, weights=str(folder))
    assert not torch.allclose(old(pictures, PROMPTS), new(pictures, PROMPTS), atol=1e-3)
    assert old.key() != new.key()
    with pytest.raises(RewardError, match=r"version is one of 2\.0, 2\.1, not '3'"):
        HPS("3")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_precisions_are_near_and_return_float32(
    dtype: str, file: Path, reward: HPS, pictures: list[Image.Image]
) -> None:
    half = HPS(weights=str(file), dtype=dtype)
    scores = half(pictures, PROMPTS)
    assert next(half.encoder.model.parameters()).dtype == getattr(torch, dtype)
    assert scores.dtype == torch.float32
    assert 0 < (scores - reward(pictures, PROMPTS)).abs().max() < 0.05
    with pytest.raises(RewardError, match="dtype is one of float32, bfloat16, float16, not 'half'"):
        HPS(weights=str(file), dtype="half")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path = save_hps(tmp_path / "w")
    state = open_clip_state()
    count = len(state)
    for change, message in (
        (
            {"ln_final.bias": None, "visual.proj": None},
            rf"2 of {count} tensors are missing \(ln_final\.bias, visual\.proj\)",
        ),
        (
            {"visual.head.weight": torch.zeros(2)},
            rf"1 of {count + 1} tensors do not belong to it \(visual\.head\.weight\)",
        ),
        ({"visual.proj": torch.zeros(160, 33)}, r"visual\.proj \(160, 33\) instead of \(160, 32\)"),
        ({"visual.conv1.weight": None}, r"there is no visual\.conv1\.weight"),
        ({"visual.conv1.weight": torch.zeros(100, 3, 14, 14)}, "its width 100 is no multiple of a head's, 80"),
    ):
        torch.save({k: v for k, v in {**state, **change}.items() if v is not None}, path)
        with pytest.raises(RewardError, match=rf"is no checkpoint of HPS v2\.1 \(open_clip's ViT-H-14\).*{message}"):
            HPS(weights=str(path))


def test_the_tokenizer_must_be_there_and_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no open_clip
    path = save_hps(tmp_path / "w")
    save_letters(path.parent, "a b", "ab c</w>")
    with pytest.raises(RewardError, match=r"ends a text with token 515, .* knows 514 tokens"):
        HPS(weights=str(path))
    (path.parent / "bpe_simple_vocab_16e6.txt.gz").unlink()
    with pytest.raises(RewardError, match=r"no tokenizer: .*Without a network, put tokenizer\.json, or .*`tokenizer`"):
        HPS(weights=str(path))
    with pytest.raises(RewardError, match=r"there is no CLIP tokenizer at .*/hub"):
        HPS(weights=str(path), tokenizer=str(tmp_path / "hub"))
    (tmp_path / "bad.gz").write_bytes(b"no")
    with pytest.raises(RewardError, match=r"bad\.gz is damaged"):
        HPS(weights=str(path), tokenizer=str(tmp_path / "bad.gz"))
    letters = save_letters(tmp_path)
    assert HPS(weights=str(path), tokenizer=str(letters)).encoder.network.limit == 24
    assert "HPS_v2.1_compressed.pt of xswu/HPSv2 (3.9 GB)" in HPS.missing()


def test_merges_are_applied_and_folders_read(tmp_path: Path) -> None:
    made, files = clip_tokenizer(str(save_letters(tmp_path, "a b", "ab c</w>")), tmp_path, "")
    assert made.convert_ids_to_tokens(made("abc abd").input_ids)[1:-1] == ["abc</w>", "ab", "d</w>"]
    made.save_pretrained(tmp_path / "folder")
    again, files = clip_tokenizer(None, tmp_path / "folder", "")
    assert "tokenizer.json" in {path.name for path in files}
    assert again("abc d!").input_ids == made("abc d!").input_ids


def test_text_is_cleaned_as_clip_does() -> None:
    assert clean(" “a” ‘b’ &amp;amp;  c\n&lt;d&gt; ") == "\"a\" 'b' & c <d>"
    assert clean("ﬁne ＦＵＬＬ　width！ 東京") == "fine FULL width! 東京"
