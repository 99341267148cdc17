"""What people do to a transformer before they draw: other kernels, LoRA, quantised layers, offloading, compiling."""

from __future__ import annotations

import copy

import accelerate
import pytest
import torch
from diffusers.models.attention_dispatch import attention_backend
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
from explicit import error
from peft import LoraConfig
from reference import guided_prediction, predict
from tiny_families import GRID, inputs, make_pipeline, normal
from under_guidance import predict_under_guidance

from pagopt.compiled import compile_blocks
from pagopt.errors import GuidanceError
from pagopt.recipe import Recipe
from tests.quantised import QUANTISERS

FAMILIES = ("flux", "flux2", "qwen", "chroma", "zimage")
RECIPES = [
    Recipe("L1.H0 L2.H1", strength=0.6, scale=2.0),
    Recipe("L0.H1", target="temperature", scale=1.5),
    Recipe("L2.H0", target="uniform", path="fisher_rao"),
]


def single(arguments):
    """The same in float32."""
    return {
        name: value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.float64 else value
        for name, value in arguments.items()
    }


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("backend", ["native", "_native_math", "flex"])
@pytest.mark.parametrize("variant", FAMILIES)
def test_attention_backends(transformers, variant, backend):
    """Whatever kernel computes the attention, the perturbation is the same."""
    model = copy.deepcopy(transformers[variant]).float()
    arguments = single(inputs(variant, 3, masked=backend != "flex"))  # diffusers' flex takes no mask of Qwen's form
    want = predict_under_guidance(variant, model, RECIPES, arguments)[0]
    with attention_backend(backend):
        found = predict_under_guidance(variant, model, RECIPES, arguments)[0]
    assert error(found, want) < 1e-5


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize("variant", FAMILIES)
def test_lora(transformers, variant):
    model = copy.deepcopy(transformers[variant])
    plain = predict_under_guidance(variant, model, RECIPES, inputs(variant, 3))[0]
    ends = ("to_q", "to_v", "add_v_proj", "to_add_out", "to_out.0", "to_qkv_mlp_proj", "attn.to_out", "proj_out")
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    model.add_adapter(
        LoraConfig(r=2, target_modules=[n for n in linear if ("blocks." in n or "layers." in n) and n.endswith(ends)])
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.double()
    found, _, arguments = predict_under_guidance(variant, model, RECIPES, inputs(variant, 3))
    assert error(found, plain) > 1e-3
    assert error(found, guided_prediction(model, RECIPES, arguments, GRID)) < 1e-10


@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
@pytest.mark.parametrize("layers", QUANTISERS)
@pytest.mark.parametrize("variant", FAMILIES)
def test_quantised_layers(transformers, variant, layers):
    model = copy.deepcopy(transformers[variant]).float()
    QUANTISERS[layers](model)
    found, _, arguments = predict_under_guidance(variant, model, RECIPES, single(inputs(variant, 3)))
    plain = predict(model, [None] * 3, arguments, GRID)
    assert error(found, plain) > 1e-3
    assert error(found, guided_prediction(model, RECIPES, arguments, GRID)) < 1e-4


@pytest.mark.parametrize("variant", FAMILIES)
def test_offloading(transformers, variant):
    """The hooks by which accelerate moves modules to and fro, for the model as a whole and layer by layer."""
    want = predict_under_guidance(variant, transformers[variant], RECIPES, inputs(variant, 3))[0]
    whole = accelerate.cpu_offload_with_hook(copy.deepcopy(transformers[variant]), "cpu")[0]
    assert error(predict_under_guidance(variant, whole, RECIPES, inputs(variant, 3))[0], want) < 1e-12
    layered = accelerate.cpu_offload(copy.deepcopy(transformers[variant]), "cpu")
    assert error(predict_under_guidance(variant, layered, RECIPES, inputs(variant, 3))[0], want) < 1e-12


@pytest.mark.parametrize("variant", FAMILIES)
def test_compiled_blocks(transformers, variant):
    model = copy.deepcopy(transformers[variant])
    want = predict_under_guidance(variant, transformers[variant], RECIPES, inputs(variant, 3))[0]
    torch._dynamo.reset()
    compile_blocks(make_pipeline(variant, model), backend="aot_eager")
    assert error(predict_under_guidance(variant, model, RECIPES, inputs(variant, 3))[0], want) < 1e-6
    mixed = [
        Recipe("L1.H0 L2.H1", strength=0.3),
        Recipe("L1.H1", target="uniform"),  # with padding in Qwen-Image
        Recipe("L0.H0", target="image_identity"),
    ]
    want = predict_under_guidance(variant, transformers[variant], mixed, inputs(variant, 3))[0]
    assert error(predict_under_guidance(variant, model, mixed, inputs(variant, 3))[0], want) < 1e-6


@pytest.mark.parametrize("variant", ["flux", "chroma"])
def test_an_ip_adapter_is_refused(transformers, variant):
    """Its processor adds a second attention, whose share would not be perturbed."""
    model = copy.deepcopy(transformers[variant])
    model.transformer_blocks[1].attn.processor = FluxIPAdapterAttnProcessor(hidden_size=32, cross_attention_dim=8)
    with pytest.raises(GuidanceError, match="L1 is computed by FluxIPAdapterAttnProcessor"):
        predict_under_guidance(variant, model, Recipe("L1.H0"), inputs(variant, 1))


@pytest.mark.parametrize("variant", ["flux", "chroma"])
def test_an_ip_adapter_elsewhere(transformers, variant):
    """Rows that differ in nothing but the picture that the adapter sees are not the same."""
    model = copy.deepcopy(transformers[variant])
    torch.manual_seed(2)
    processor = FluxIPAdapterAttnProcessor(hidden_size=model.inner_dim, cross_attention_dim=8)
    model.transformer_blocks[0].attn.processor = processor.double()
    pictures = normal(3, 4, 8, seed=3)
    pictures[2] = pictures[0]
    recipes = [Recipe("L1.H0"), Recipe(scale=0), Recipe("L3.H1", target="blur")]

    def predict(rows):
        one = inputs(variant, 1)
        many = {name: torch.cat([value] * len(rows)) for name, value in one.items() if not name.endswith("_ids")}
        adapted = {"ip_hidden_states": [pictures[rows]]}
        arguments = one | many | {"joint_attention_kwargs": adapted}
        return predict_under_guidance(variant, model, [recipes[row] for row in rows], arguments)[:2]

    found, guidance = predict([0, 1, 2])
    assert guidance.block_evaluations == 2 * 4 + 3 + 1  # rows 0 and 2 are the same until guidance parts them
    assert error(found, torch.cat([predict([row])[0] for row in range(3)])) < 1e-12
