"""The shipped scorer through open_clip itself: `make openclip` runs this in an environment of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pagopt.models
from pagopt.errors import RewardError
from pagopt_rewards.encoder import Encoder
from pagopt_rewards.openclip import OpenClipNetwork

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


@pytest.mark.parametrize("projected", [True, False])
def test_both_libraries_agree_before_and_after_the_projection(projected):
    images = [*pictures(), *(image.resize((50, 80)) for image in pictures())]
    theirs = Encoder(f"open_clip:local-dir:{FOLDER}")
    seen = theirs.images(images, projected)
    torch.testing.assert_close(Encoder("emoji").images(images, projected), seen, rtol=0, atol=1e-5)
    assert theirs.model.visual.proj is not None  # put back


def test_towers_of_other_kinds_before_the_projection(open_clip):
    class Tokenizer:
        context_length = 77

    for name, width in (("ViT-B-16-SigLIP", 768), ("coca_ViT-B-32", 512), ("RN50", None)):
        model = open_clip.create_model(name).eval()
        network = OpenClipNetwork(model, None, Tokenizer(), FOLDER, torch.float32)
        pixels = torch.randn(2, 3, 224, 224)
        with torch.no_grad():
            assert network.see(pixels[:1]).shape == (1, network.width)
            if width is None:
                with pytest.raises(RewardError, match="`projected: true`"):
                    network.look(pixels)
            else:
                assert network.look(pixels).shape == (2, width)
