"""The shipped scorer through open_clip itself: `make openclip` runs this in an environment of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pagopt.models
from pagopt_rewards.encoder import Encoder

pytestmark = pytest.mark.openclip

FOLDER = Path(pagopt.models.__file__).parent / "emoji" / "scorer"


@pytest.fixture(scope="module")
def open_clip():
    import open_clip

    return open_clip


@pytest.fixture(scope="module")
def loaded(open_clip):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{FOLDER}")
    return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{FOLDER}")


def pictures():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(4)]


@torch.inference_mode()
def test_images_give_the_same_features(loaded):
    model, preprocess, _ = loaded
    theirs = model.encode_image(torch.stack([preprocess(image) for image in pictures()]), normalize=True)
    torch.testing.assert_close(Encoder("emoji").images(pictures()), theirs, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_texts_give_the_same_features(loaded):
    model, _, tokenizer = loaded
    facts = json.loads((FOLDER.parent / "styles.json").read_text())
    texts = [*facts["styles"], *(f"{facts['styles'][i % 5]}, {name}" for i, name in enumerate(facts["concepts"])), ""]
    theirs = model.encode_text(tokenizer(texts), normalize=True)
    torch.testing.assert_close(Encoder("emoji").texts(texts), theirs, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_scale_is_the_same(loaded):
    assert float(loaded[0].logit_scale) == pytest.approx(float(Encoder("emoji").model.logit_scale))
