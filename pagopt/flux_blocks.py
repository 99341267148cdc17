"""FLUX.1's modular pipeline with a place for a guider, which diffusers' own blocks do not have.

    pipe = guided_flux_blocks().init_pipeline("black-forest-labs/FLUX.1-dev")
    pipe.load_components()
    pipe.update_components(guider=HeadPerturbationGuidance(recipe, guidance_scale=1.0))

In diffusers 0.42 ``FluxLoopDenoiser``, the block of the denoising loop that calls the transformer, knows no guider; it
is the only block that has to be another one.
"""

from __future__ import annotations

import copy
from typing import Any

from diffusers.configuration_utils import FrozenDict
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines import FluxAutoBlocks
from diffusers.modular_pipelines.flux.denoise import FluxLoopDenoiser
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec

from pagopt.errors import GuidanceError

__all__ = ["GuidedFluxLoopDenoiser", "guided_flux_blocks"]


class GuidedFluxLoopDenoiser(FluxLoopDenoiser):  # type: ignore[misc]
    """Calls the transformer for every batch of a guider, as the denoisers of SD3 and Qwen-Image do.

    All batches have the same inputs: FLUX.1's blocks make no negative embeddings. So a guider may not ask for
    classifier-free guidance, and the one that stands here before another is put in its place guides nothing.
    """

    @property
    def expected_components(self) -> list[Any]:
        """Those of the block of diffusers, and a guider."""
        guider = ComponentSpec(
            "guider",
            ClassifierFreeGuidance,
            config=FrozenDict({"guidance_scale": 1.0}),
            default_creation_method="from_config",
        )
        return [*super().expected_components, guider]

    def __call__(self, components: Any, block_state: Any, i: int, t: Any) -> tuple[Any, Any]:
        """One round of the loop: sets ``noise_pred`` to the guided prediction.

        Raises:
            GuidanceError: If the guider asks for an unconditional prediction.
        """
        guider, transformer = components.guider, components.transformer
        guider.set_state(step=i, num_inference_steps=block_state.num_inference_steps, timestep=t)
        batches = guider.prepare_inputs({"latents": block_state.latents})
        if any(getattr(batch, guider._identifier_key) == "pred_uncond" for batch in batches):
            raise GuidanceError(
                "the modular pipeline of FLUX.1 has no negative prompt, so there is no classifier-free guidance: make "
                "the guider with guidance_scale=1"
            )
        for batch in batches:
            guider.prepare_models(transformer)
            super().__call__(components, block_state, i, t)
            batch.noise_pred = block_state.noise_pred
            guider.cleanup_models(transformer)
        block_state.noise_pred = guider(batches).pred
        return components, block_state


def guided_flux_blocks() -> Any:
    """The blocks of FLUX.1's modular pipeline (text-to-image and image-to-image) with a guider.

    Returns:
        ``FluxAutoBlocks`` with its ``denoise.denoise.denoiser`` replaced.
    """
    blocks = copy.deepcopy(FluxAutoBlocks())  # instances share what is in them
    blocks.sub_blocks["denoise"].sub_blocks["denoise"].sub_blocks["denoiser"] = GuidedFluxLoopDenoiser()
    return blocks
