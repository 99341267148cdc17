"""Models through open_clip and through transformers: the same numbers for the same weights (`make openclip`)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pagopt.errors import RewardError, UnknownName
from pagopt.reward import load_reward
from pagopt_rewards.conversion import clip_from_open_clip
from pagopt_rewards.encoder import Encoder
from pagopt_rewards.vocabulary import BPE_FILE, clean, clip_tokenizer
from pagopt_rewards.weights import read_weights

pytestmark = pytest.mark.openclip

NAME = "ViT-B-32"
# Two of them leave a margin whose half is rounded up by torchvision and down by transformers: 227 and 231 at 224.
SIZES = [
    (224, 224),
    (512, 512),
    (64, 64),
    (17, 9),
    (640, 480),
    (227, 224),
    (300, 309),
    (333, 1000),
    (1, 30),
    (231, 224),
]
TEXTS = [
    "a red apple",
    "",
    "A photo of the Eiffel Tower at night, 4k; don't blur it!",
    "naïve café, Straße, Москва, 東京タワー, 한국어 🍎🍏",
    "  many   spaces\tand\nlines ",
    "100% of 3,000 it's we'll they've I'd",
    "word " * 200,
]
# What ftfy and html.unescape change in open_clip's tokenizer.
CLEANED = [
    "“curly” ‘quotes’ it’s",
    "salt &amp;amp; pepper &lt;b&gt;",
    "ﬁne ﬂuﬀy",
    "ＦＵＬＬ　ｗｉｄｔｈ！",
    "e\u0301te\u0301",
]


@pytest.fixture(scope="module")
def pictures():
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A random model of full size, as open_clip saves it while it trains."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(NAME)
    for name, parameter in model.named_parameters():  # so that pictures and texts differ by more than rounding
        if name.endswith("bias") or "embedding" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("weights") / "epoch_1.pt"
    torch.save({"epoch": 1, "state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, path)
    return path


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    """The same weights as a folder of transformers."""
    state = {name.removeprefix("module."): value for name, value in read_weights(weights).items()}
    folder = tmp_path_factory.mktemp("folder")
    clip_from_open_clip(state, weights, NAME, torch.float32).save_pretrained(folder)
    tokenizer, files = clip_tokenizer(None, weights.parent, "")
    assert files[0].name == BPE_FILE  # open_clip's own
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def theirs(weights):
    """open_clip without pagopt."""
    import open_clip

    model, _, prepare = open_clip.create_model_and_transforms(NAME, str(weights))
    return model.eval(), prepare, open_clip.get_tokenizer(NAME)


def largest(a, b):
    return (a - b).abs().max().item()


@torch.no_grad()
def test_both_libraries_give_open_clips_features(weights, folder, theirs, pictures, record_property):
    model, prepare, tokenizer = theirs
    images = torch.cat([model.encode_image(prepare(picture)[None], normalize=True) for picture in pictures])
    texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    assert largest(images[0], images[1]) > 1e-2
    for encoder in (Encoder(f"open_clip:{NAME}", str(weights)), Encoder(str(folder))):
        differences = largest(encoder.images(pictures), images), largest(encoder.texts(TEXTS), texts)
        record_property(type(encoder.network).__name__, differences)
        print(type(encoder.network).__name__, "largest difference of images, texts:", differences)
        assert max(differences) < 1e-5
        assert encoder.scale == pytest.approx(model.logit_scale.exp().item())
        assert (encoder.network.width, encoder.network.patch, encoder.network.limit) == (512, 32, 77)
        lengths = torch.cat([model.encode_image(prepare(picture)[None]) for picture in pictures[:2]]).norm(dim=-1)
        torch.testing.assert_close(encoder.features(pictures[:2]), images[:2] * lengths[:, None], atol=1e-4, rtol=1e-4)


def test_scores_are_equal(weights, folder, pictures):
    texts = (TEXTS * 2)[: len(pictures)]
    one = load_reward("clip", model=f"open_clip:{NAME}", weights=str(weights))
    two = load_reward("clip", model=str(folder))
    torch.testing.assert_close(one(pictures, texts), two(pictures, texts), atol=1e-3, rtol=0)  # of 100 x the cosine
    assert len({one.key(), two.key()}) == 2


def test_a_pretrained_tag_is_taken_from_the_hubs_cache(weights, theirs, pictures, tmp_path, monkeypatch):
    import huggingface_hub.constants
    import open_clip

    about = open_clip.get_pretrained_cfg(NAME, "laion2b_s34b_b79k")
    place = tmp_path / f"models--{about['hf_hub'].strip('/').replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    (place / "snapshots" / ("0" * 40)).mkdir(parents=True)
    shutil.copy(weights, place / "snapshots" / ("0" * 40) / "open_clip_pytorch_model.bin")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    encoder = Encoder(f"open_clip:{NAME}/laion2b_s34b_b79k")
    assert largest(encoder.images(pictures[:3]), Encoder(f"open_clip:{NAME}", str(weights)).images(pictures[:3])) == 0
    (place / "snapshots" / ("0" * 40) / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(RewardError, match="Without a network, download its weights elsewhere"):
        Encoder(f"open_clip:{NAME}/laion2b_s34b_b79k")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(weights, pictures, dtype):
    whole = Encoder(f"open_clip:{NAME}", str(weights))
    half = Encoder(f"open_clip:{NAME}", str(weights), dtype)
    assert half.images(pictures).dtype == torch.float32
    assert 0 < largest(half.images(pictures), whole.images(pictures)) < 0.02
    assert 0 < largest(half.texts(TEXTS), whole.texts(TEXTS)) < 0.02
    assert half.fingerprint != whole.fingerprint


def test_what_is_cut_is_said(weights, folder, caplog):
    text = " ".join(f"word{number}" for number in range(40))  # two tokens or three each
    lost = []
    for encoder in (Encoder(f"open_clip:{NAME}", str(weights)), Encoder(str(folder))):
        caplog.clear()
        encoder.texts([text, "short"])
        encoder.texts([text])
        assert len(caplog.records) == 1
        lost.append(encoder.network.cut(text).replace(" ", ""))
        assert text.replace(" ", "").endswith(lost[-1])
        assert repr(encoder.network.cut(text)) in caplog.text
        assert encoder.network.cut("short") == ""
    assert lost[0] == lost[1] != ""


def test_the_tokenizer_is_that_of_open_clip(weights):
    import open_clip

    ours, _ = clip_tokenizer(None, weights.parent, "")
    theirs = open_clip.get_tokenizer(NAME)
    for text in [*TEXTS, *CLEANED]:
        mine = ours(clean(text), truncation=True, max_length=77).input_ids
        expected = theirs([text])[0].tolist()
        assert mine == expected[: len(mine)], text
        assert not any(expected[len(mine) :]), text


def test_hps_is_the_network_of_open_clip(tmp_path, pictures, record_property):
    import open_clip
    from torchvision.transforms import functional

    torch.manual_seed(1)
    model = open_clip.CLIP(
        64,
        open_clip.CLIPVisionCfg(layers=3, width=160, head_width=80, patch_size=14, image_size=224),
        open_clip.CLIPTextCfg(layers=2, width=128, heads=2),
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "HPS_v2.1_compressed.pt")

    def prepare(image):
        """By torchvision, as the authors' code does it."""
        pixels = functional.to_tensor(image)
        scale = 224 / max(image.size)
        if scale != 1:
            sides = [max(1, round(side * scale)) for side in pixels.shape[1:]]
            pixels = functional.resize(pixels, sides, functional.InterpolationMode.BICUBIC)
        high, wide = (224 - side for side in pixels.shape[1:])
        pixels = functional.pad(pixels, [wide // 2, high // 2, wide - wide // 2, high - high // 2])
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        return functional.normalize(pixels, mean, std)

    prompts = [*TEXTS, *CLEANED][: len(pictures)]
    with torch.no_grad():
        seen = model.encode_image(torch.stack([prepare(picture) for picture in pictures]), normalize=True)
        read = model.encode_text(open_clip.get_tokenizer("ViT-H-14")(prompts), normalize=True)
    scores = load_reward("hps", weights=str(tmp_path))(pictures, prompts)
    difference = largest(scores, (seen * read).sum(dim=-1))
    record_property("hps", difference)
    print("hps, largest difference of scores:", difference)
    assert difference < 1e-5
    assert scores.std() > 1e-3


def test_bad_names_and_weights_are_refused(weights, tmp_path):
    for name, error, text in (
        ("ViT-B-23", UnknownName, "Did you mean 'ViT-B-32'"),
        (f"{NAME}/laion", UnknownName, "laion2b_s34b_b79k"),
        (NAME, RewardError, f"which weights for open_clip:{NAME}.*laion2b_s34b_b79k"),
        (f"local-dir:{tmp_path}", RewardError, "open_clip_config.json"),
    ):
        with pytest.raises(error, match=text):
            Encoder(f"open_clip:{name}")
    with pytest.raises(RewardError, match="not both"):
        Encoder(f"open_clip:{NAME}/laion2b_s34b_b79k", str(weights))
    with pytest.raises(RewardError, match=r"no checkpoint .*nothing\.pt"):
        Encoder(f"open_clip:{NAME}", str(tmp_path / "nothing.pt"))
    # Of another image size: open_clip's own loader would stretch the position embedding.
    with pytest.raises(RewardError, match=r"no checkpoint of open_clip's ViT-B-32-256: 1 of 302 tensors have another"):
        Encoder("open_clip:ViT-B-32-256", str(weights))
    with pytest.raises(RewardError, match="tensors are missing"):
        Encoder("open_clip:ViT-L-14", str(weights))


def test_open_clips_own_folders_load(theirs, weights, pictures, tmp_path):
    import open_clip

    config = {"model_cfg": open_clip.get_model_config(NAME), "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    shutil.copy(weights, tmp_path / "open_clip_pytorch_model.bin")
    encoder = Encoder(f"open_clip:local-dir:{tmp_path}")
    assert encoder.folder == Path(tmp_path)
    other = encoder.images(pictures[:2])
    assert largest(other, Encoder(f"open_clip:{NAME}", str(weights)).images(pictures[:2])) > 1e-3  # another mean
