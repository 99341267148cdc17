"""One resumable command that makes the embedded model: `python -m tools.emoji`.

Every stage leaves its result in the build folder and is skipped when that is there; an interrupted training goes on
from its last checkpoint.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from tools.emoji import artwork
from tools.emoji.augment import reduce_area, to_unit
from tools.emoji.autoencoder import AutoencoderStage, build_autoencoder, measure_latents, psnr
from tools.emoji.denoiser import DenoiserStage
from tools.emoji.imperfect import Bank, make_bank
from tools.emoji.latents import encode_variants
from tools.emoji.pipeline import Anatomy, Denoiser, assemble, save
from tools.emoji.scorer import ScorerStage, build_scorer, save_scorer
from tools.emoji.store import average_of
from tools.emoji.training import fit
from tools.emoji.vocabulary import keywords, synonyms, train_tokenizer

__all__ = ["Build", "main"]

MODEL = Path("pagopt/models/emoji")


@dataclass(frozen=True)
class Build:
    """Where things are built and how much is trained.

    Args:
        folder: Checkpoints and intermediate results; not part of the repository.
        model: The folder that is shipped.
        start: A folder like `model` to go on from: its tokenizer and its autoencoder are taken over, and the
            transformer and the text encoders start with its weights.
        concepts: Use this many of the concepts, spread over the list; all by default.
        autoencoder_images: Pictures the autoencoder sees.
        images_seen: Pictures the transformer sees.
        seed: Of the transformer's batches; another one than before where `start` was trained on the same pictures.
        variants: Shifted and scaled versions of each picture.
        bank: The model's own imperfect pictures for the scorer.
        scorer_images: Pictures the scorer sees.
        batch: Batch of the transformer and of the scorer.
        compile: Compile the transformer (slow start, then about twice the speed).
        precision: Of the transformer's training, as Lightning names it: "bf16-mixed" on a GPU.
        threads: CPU threads; 0 leaves torch's choice.
    """

    folder: Path = Path("build/emoji")
    model: Path = MODEL
    start: Path | None = None
    concepts: int | None = None
    autoencoder_images: int = 23_040
    images_seen: int = 537_600
    seed: int = 3
    variants: int = 6
    bank: int = 12_800
    scorer_images: int = 448_000
    batch: int = 64
    compile: bool = True
    precision: str = "32-true"
    threads: int = 0

    @cached_property
    def art(self) -> artwork.Artwork:
        """All artwork; drawn on first use."""
        path = self.folder / "art.safetensors"
        if not path.exists():
            artwork.render(path)
        return artwork.load(path)

    @cached_property
    def chosen(self) -> artwork.Artwork:
        """The artwork of the concepts."""
        return self.art.select(artwork.concepts(self.concepts))

    @cached_property
    def held_out(self) -> artwork.HeldOut:
        """Pairs and concepts that are never trained on."""
        return artwork.held_out(self.chosen.names)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer; trained on first use."""
        path = self.folder / "tokenizer"
        if not path.exists() and self.start is not None:
            shutil.copytree(self.start / "pipeline" / "tokenizer", path)
        elif not path.exists():
            train_tokenizer(path, self.art.names, keywords())
        return CLIPTokenizer.from_pretrained(path)

    @cached_property
    def vae(self) -> AutoencoderKL:
        """The autoencoder with its measured scale; trained on first use."""
        path = self.folder / "vae"
        if not path.exists() and self.start is not None:
            shutil.copytree(self.start / "pipeline" / "vae", path)
        elif not path.exists():
            stage = AutoencoderStage(self.art, steps=self.autoencoder_images // 16)
            fit(stage, self.folder / "autoencoder")
            model = build_autoencoder().eval()
            model.load_state_dict(average_of(self.folder / "autoencoder" / "last.ckpt"))
            pictures = reduce_area(to_unit(self.chosen.images.flatten(0, 1)))
            mean, deviation = measure_latents(model, pictures)
            model.register_to_config(scaling_factor=1 / deviation, shift_factor=mean)
            model.save_pretrained(path)
            print(f"autoencoder: {float(psnr(model, pictures[::5]).mean()):.1f} dB")
        return AutoencoderKL.from_pretrained(path).eval()

    @cached_property
    def latents(self) -> torch.Tensor:
        """The transformer's training set; encoded on first use."""
        path = self.folder / "latents.safetensors"
        if not path.exists():
            save_file({"latents": encode_variants(self.vae, self.chosen, variants=self.variants).half()}, path)
        return load_file(path)["latents"].float()

    def transformer(self) -> None:
        """Train the transformer and the text encoders."""
        stage = DenoiserStage(
            self.latents,
            self.chosen.styles,
            self.chosen.names,
            self.held_out.from_model(),
            self.tokenizer,
            synonyms=synonyms(self.chosen.names),
            steps=self.images_seen // self.batch,
            batch=self.batch,
            seed=self.seed,
            compiled=self.compile,
            start=None if self.start is None else self.start / "pipeline",
        )
        steps = fit(stage, self.folder / "transformer", precision=self.precision)
        print(f"transformer: {steps * self.batch} images seen")

    def export(self) -> None:
        """Write the pipeline folder from the last checkpoint (training may still be running) and `styles.json`."""
        denoiser = Denoiser(self.tokenizer, Anatomy())
        denoiser.load_state_dict(average_of(self.folder / "transformer" / "last.ckpt"))
        save(assemble(denoiser.eval(), self.vae, self.tokenizer), self.model / "pipeline")
        names, styles = [name.replace("-", " ") for name in self.chosen.names], self.chosen.styles
        facts = {
            "styles": styles,
            "concepts": names,
            "held_out_pairs": [[styles[s], names[n]] for s, n in self.held_out.pairs],
            "held_out_concepts": [names[n] for n in self.held_out.names],
            "recommended": {"steps": 12, "guidance_scale": 2.0, "max_sequence_length": 1},
        }
        (self.model / "styles.json").write_text(json.dumps(facts, indent=1) + "\n")

    def scorer(self) -> None:
        """Draw the imperfect pictures, train the scorer and write its folder."""
        path = self.folder / "bank.safetensors"
        if not path.exists():
            pipe = StableDiffusion3Pipeline.from_pretrained(self.model / "pipeline")
            styles, names, absent = self.chosen.styles, self.chosen.names, self.held_out.from_model()
            make_bank(pipe, self.latents, styles, names, absent, count=self.bank).save(path)
        others = [name for name in self.art.names if name not in set(self.chosen.names)]
        stage = ScorerStage(
            self.art.select([*self.chosen.names, *others]),
            self.held_out.pairs,
            self.tokenizer,
            focus=len(self.chosen.names),
            synonyms=synonyms(self.chosen.names),
            bank=Bank.load(path),
            steps=self.scorer_images // self.batch,
            batch=self.batch,
        )
        fit(stage, self.folder / "scorer")
        model = build_scorer(self.tokenizer)
        model.load_state_dict(average_of(self.folder / "scorer" / "last.ckpt"))
        save_scorer(model.eval(), self.tokenizer, self.model / "scorer")


def main(build: Build | None = None, only: list[str] | None = None) -> None:
    """Make the embedded model.

    Args:
        build: Sizes and folders.
        only: Run only these of the stages transformer, export, scorer (what they need is made first).
    """
    build = build or Build()
    if build.threads:
        torch.set_num_threads(build.threads)
    stages = {"transformer": build.transformer, "export": build.export, "scorer": build.scorer}
    for name in only or list(stages):
        if name not in stages:
            raise ValueError(f"no stage {name!r}; there are {', '.join(stages)}")
        stages[name]()
