"""The autoencoder: 64 x 64 pictures to 16 x 16 latents of 8 channels, trained on all the artwork."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from tools.emoji.artwork import Artwork
from tools.emoji.augment import shift_scale, to_unit
from tools.emoji.training import MovingAverage, Stage

__all__ = ["AutoencoderStage", "build_autoencoder", "measure_latents", "psnr"]


def build_autoencoder(channels: tuple[int, ...] = (24, 48, 64), latent_channels: int = 8) -> AutoencoderKL:
    """A small convolutional autoencoder without attention; it reduces each side by 4."""
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    # Start with little noise in the latents; from the usual start (deviation 1) the latents first collapse.
    out = model.encoder.conv_out
    with torch.no_grad():
        out.weight[latent_channels:] *= 0.01
        out.bias[latent_channels:] = -6.0
    return model


def _edges(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return images[..., 1:, :] - images[..., :-1, :], images[..., :, 1:] - images[..., :, :-1]


class AutoencoderStage(Stage):
    """L1 + squared error (also of 4 x 4 means: colour) + error of the edges + a very small KL term, on moved artwork.

    Not compiled: under torch 2.13 on a CPU the compiled encoder's gradients are lost, and nothing is gained in speed.
    """

    def __init__(self, artwork: Artwork, *, steps: int, batch: int = 16, lr: float = 2e-3, seed: int = 1) -> None:
        super().__init__(steps=steps, lr=lr, batch=batch, seed=seed, weight_decay=1e-4)
        self.pictures = artwork.images.flatten(0, 1)
        self.model = build_autoencoder().to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.model)

    def trained(self) -> nn.Module:
        return self.model

    def loss(self, step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        rows = torch.randint(len(self.pictures), (self.batch,), generator=generator)
        images = shift_scale(to_unit(self.pictures[rows]), generator)
        # Two of five sets are in one colour; exchanging channels in half of the pictures teaches all the others.
        exchange = torch.stack([torch.randperm(3, generator=generator) for _ in range(self.batch // 2)])
        images[: self.batch // 2] = images[: self.batch // 2].gather(
            1, exchange[:, :, None, None].expand(-1, -1, *images.shape[2:])
        )
        images = images.to(self.device, memory_format=torch.channels_last)
        posterior = self.model.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(self.device)
        output = self.model.decode(posterior.mean + posterior.std * noise).sample
        edges = sum(F.l1_loss(a, b) for a, b in zip(_edges(output), _edges(images), strict=True))
        squared = F.mse_loss(output, images)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        areas = F.mse_loss(F.avg_pool2d(output, 4), F.avg_pool2d(images, 4))
        loss = F.l1_loss(output, images) + 2 * squared + 4 * areas + 0.5 * edges + 1e-5 * kl
        return {"loss": loss, "mse": squared, "kl": kl}

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        self.average.update(self.model, self.global_step)


def psnr(model: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each picture, float (B, 3, 64, 64) in [-1, 1], through the autoencoder."""
    with torch.inference_mode():
        output = model.decode(model.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    return -10 * torch.log10(((output - images) / 2).square().mean(dim=(1, 2, 3)).clamp_min(1e-9))


def measure_latents(model: AutoencoderKL, images: torch.Tensor) -> tuple[float, float]:
    """(mean, standard deviation) of the latents of these pictures: the shift and the inverse scale of the pipeline."""
    with torch.inference_mode():
        latents = torch.cat([model.encode(part).latent_dist.mode() for part in images.split(64)])
    return float(latents.mean()), float(latents.std())
