"""A model that a function of the user's makes, wherever a model is asked for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image

from pagopt.cli import main
from pagopt.errors import ModelError
from pagopt.evaluate import Generation
from pagopt.experiment import run_study
from pagopt.models import has_weights, head_map_of, load_model, load_pipeline, own_source
from pagopt.recipe import PLAIN, Provenance, Recipe, load_recipe
from pagopt.render import Job, Renderer, Task
from pagopt.results import Results, load_results
from pagopt.store import Store
from pagopt.study import Study

MINE = """
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, StableDiffusion3Img2ImgPipeline

def shifted(dtype=torch.float32):
    pipe = DiffusionPipeline.from_pretrained({folder!r}, dtype=dtype)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=2.5)
    return pipe

def half():
    return shifted(torch.bfloat16)

def plain():
    return DiffusionPipeline.from_pretrained({folder!r})

def needs_an_image():
    return StableDiffusion3Img2ImgPipeline.from_pipe(plain())

def number():
    return 3

def broken():
    return {{}}["x"]

made = 4
"""
SMALL = [
    "--reward", "colorfulness", "--prompts", "[red apple, house]", "--held_out_prompts", "[cat, sun]",
    "--heads", "L1.H*", "--rounds", "1", "--heads_per_round", "1", "--steps", "2", "--cfg_scales", "[2.0]",
    "--trainer.accelerator", "cpu",
]  # fmt: skip
NAME = "mine.py:shifted"
STUDY = Study(reward="colorfulness", prompts=["house"], heads="L1.H0", rounds=1, heads_per_round=1, steps=2)


@pytest.fixture(autouse=True)
def mine(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(MINE.format(folder=str(tiny_model)), encoding="utf-8")
    return file


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command, and gives what it says."""

    def run(*words: str, status: int = 0) -> str:
        found = main([str(word) for word in words])
        text = capsys.readouterr()
        assert found == status, text.err
        return " ".join((text.out + text.err).split())

    return run


def test_from_a_search_to_a_picture(said: Callable[..., str], mine: Path) -> None:
    search = ["search", "vivid", *SMALL, "--model", NAME, "--out", "run"]
    said(*search)
    found = load_results("run/results.json")
    assert found.model == NAME
    _, provenance = load_recipe("run/recipe.json")
    assert provenance is not None
    assert (provenance.model, provenance.fingerprint) == (NAME, found.fingerprint)
    assert found.fingerprint != of_plain().fingerprint  # the scheduler counts

    assert "this run was finished before" in said(*search)
    draw = ["generate", "--recipe", "run/recipe.json", "--prompt", "cat", "--out", "cat.png"]
    assert "say --model mine.py:shifted if you trust it" in said(*draw, status=2)
    assert not Path("cat.png").exists()
    assert "note" not in said(*draw, "--model", NAME)
    with Image.open("cat.png") as picture:
        assert picture.size == (16, 16)
    assert "was found on other weights" in said(*draw, "--model", "mine.py:plain")

    Path("new.txt").write_text("tree\nboat\n", encoding="utf-8")
    compare = ["evaluate", "run/recipe.json", "--prompts", "new.txt", "--cfg_scales", "[]", "--out", "compared"]
    assert "say --model mine.py:shifted if you trust it" in said(*compare, status=2)
    said(*compare, "--model", NAME, "--trainer.accelerator", "cpu")
    assert json.loads(Path("compared/comparison.json").read_text())["model"] == NAME

    mine.write_text(mine.read_text().replace("shift=2.5", "shift=1.5"), encoding="utf-8")
    assert "new images" in said(*search)
    assert load_results("run/results.json").fingerprint != found.fingerprint


def of_plain() -> Results:
    return run_study(replace(STUDY, model="mine.py:plain"), "plain", "plain")


def test_the_other_commands(said: Callable[..., str]) -> None:
    assert "heads in 3 blocks" in said("heads", NAME)
    assert "here, from batches of" in said("plan", "vivid", *SMALL, "--model", NAME, "--out", "run")
    assert "GiB of weights (bfloat16)" in said("plan", "vivid", *SMALL, "--model", "mine.py:half", "--out", "run")
    said("init", "mine.yaml", "--model", NAME)
    assert "model: mine.py:shifted" in Path("mine.yaml").read_text(encoding="utf-8")
    said("atlas", NAME, "--prompt", "cat", "--heads", "L1.H*", "--steps", "2", "--trainer.accelerator", "cpu")
    assert json.loads(Path("runs/atlas-mine.py-shifted/atlas.json").read_text())["model"] == NAME


def test_a_tuning(said: Callable[..., str], mine: Path) -> None:
    said("search", "vivid", *SMALL, "--model", NAME, "--out", "run")
    tune = ["tune", "vivid", *SMALL, "--model", NAME, "--recipe", "run/recipe.json", "--trials", "2", "--out", "tuned"]
    tune = [word for word in tune if word not in {"--rounds", "--heads_per_round", "--heads", "1", "L1.H*"}]
    said(*tune)
    assert "nothing: " in said(*tune)
    mine.write_text(mine.read_text() + "\n# changed\n", encoding="utf-8")
    assert "a reward or model of your own has changed" in said(*tune, status=2)


def test_dtype() -> None:
    pipe, weights = load_model(NAME)
    assert (pipe.transformer.dtype, str(weights)) == (torch.float32, "float32")
    pipe, weights = load_model(NAME, "bfloat16")
    assert (pipe.transformer.dtype, str(weights)) == (torch.bfloat16, "bfloat16")
    assert load_pipeline(NAME, torch.float16).vae.dtype == torch.float16
    study = replace(STUDY, model=NAME)
    assert run_study(study, "half", "half", trainer={"precision": "bf16-true"}).weights == {"dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("mine.py", (), 'which model of mine.py? Write "mine.py:function".'),
        ("mine.py:shift", (), "unknown function or class 'shift'. Did you mean 'shifted'?"),
        ("none.py:make", (), "cannot read none.py: No such file"),
        ("mine.txt:make", (), "mine.txt cannot be imported"),
        ("no_such_package:make", (), "A model in a file is path/to/file.py:name"),
        (":make", (), "names no model"),
        ("mine.py:made", (), "an object of type int, not a function"),
        ("mine.py:number", (), "mine.py:number gave an object of type int, and no pipeline of diffusers"),
        ("mine.py:broken", (), "mine.py:broken could not be made: KeyError: 'x'"),
        ("mine.py:needs_an_image", (), "StableDiffusion3Pipeline.from_pipe(pipe)"),
        ("mine.py:plain", ("--dtype", "float16"), "mine.py:plain takes no dtype, and float16 is asked for"),
        ("mine.py:plain", ("--trainer.precision", "bf16-true"), "takes no dtype, and bfloat16 is asked for"),
        (NAME, ("--quantize", "int8"), "mine.py:shifted has to quantise its own"),
        (NAME, ("--dtype", "half"), "unknown dtype 'half'"),
    ],
)
def test_what_cannot_be(said: Callable[..., str], name: str, words: tuple[str, ...], message: str) -> None:
    assert message in said("search", "vivid", *SMALL, "--model", name, *words, "--out", "run", status=2)
    assert not Path("run").exists()


def test_whether_it_is_there_is_known_without_running_it() -> None:
    Path("loud.py").write_text("raise SystemExit('was run')", encoding="utf-8")
    assert has_weights("loud.py:make")
    with pytest.raises(ModelError, match=r"cannot read none\.py"):
        has_weights("none.py:make")
    with pytest.raises(ModelError, match="was run"):
        load_model("loud.py:make")


def test_a_recipe_file_runs_no_reward_either(said: Callable[..., str]) -> None:
    Path("own.py").write_text("def light(images, prompts):\n    return [1.0] * len(images)\n", encoding="utf-8")
    said("search", "vivid", *SMALL, "--reward", "own.py:light", "--model", "emoji", "--out", "run")
    Path("own.py").write_text("raise SystemExit('was run')", encoding="utf-8")
    Path("new.txt").write_text("tree\nboat\n", encoding="utf-8")
    text = said("evaluate", "run/recipe.json", "--prompts", "new.txt", "--out", "compared", status=2)
    assert "was found for own.py:light, and no code is run because a recipe file names it: say --reward" in text


@pytest.mark.parametrize(
    ("term", "written"),
    [
        ({"name": "os:system"}, "--reward os:system if"),
        ({"name": "isolated", "args": {"record": "evil.yaml"}}, '--reward \'{"name": "isolated"'),
    ],
)
def test_recipes_that_came_from_anywhere(said: Callable[..., str], term: dict[str, object], written: str) -> None:
    provenance = Provenance(model="emoji", fingerprint="0", objective=[term], evidence={"steps": 2})
    Recipe("L1.H0", scale=2.0).save("sent.json", provenance)
    Path("new.txt").write_text("tree\nboat\n", encoding="utf-8")
    text = said("evaluate", "sent.json", "--prompts", "new.txt", "--out", "compared", status=2)
    assert "no code is run because a recipe file names it" in text
    assert written in text


def test_the_page_with_a_lora(said: Callable[..., str], tiny_flux: Path) -> None:
    """docs/models.md, with a tiny FLUX.1 in place of the published one."""
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(# mine\.py\n.*?)```", page, re.DOTALL)
    assert block is not None
    Path("mine.py").write_text(block[1].replace("black-forest-labs/FLUX.1-dev", str(tiny_flux)), encoding="utf-8")
    lora = load_pipeline(str(tiny_flux)).transformer
    lora.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    FluxPipeline.save_lora_weights(".", get_peft_model_state_dict(lora), weight_name="watercolour.safetensors")

    words = [*SMALL, "--height", "16", "--width", "16"]
    said("search", "vivid", *words, "--model", "mine.py:with_lora", "--out", "runs/watercolour")
    found = load_results("runs/watercolour/results.json")
    assert found.weights == {"dtype": "bfloat16"}
    said("search", "vivid", *words, "--model", str(tiny_flux), "--dtype", "bfloat16", "--out", "runs/plain")
    assert load_results("runs/plain/results.json").fingerprint != found.fingerprint


def test_study_with_no_such_file() -> None:
    with pytest.raises(ModelError, match=r"cannot read none\.py"):
        run_study(replace(STUDY, model="none.py:make"), "none", "none")


def test_a_module_that_is_installed(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine.parent / "package").mkdir()
    (mine.parent / "package" / "models.py").write_text(mine.read_text(), encoding="utf-8")
    monkeypatch.syspath_prepend(str(mine.parent))
    assert own_source("package.models:shifted") == own_source(NAME) == hashlib.sha256(mine.read_bytes()).hexdigest()
    assert load_pipeline("package.models:plain").transformer.dtype == torch.float32
    assert own_source("emoji") == ""


def test_a_folder_with_such_a_name_is_a_folder(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "12:30.py"
    folder.symlink_to(tiny_model)
    assert len(head_map_of(str(folder))) == 6
    assert own_source(str(folder)) == ""


def test_a_class_of_ones_own_counts(tiny_model: Path, mine: Path) -> None:
    """It may draw what it likes."""

    def key(times: int) -> str:
        mine.write_text(
            "from diffusers import StableDiffusion3Pipeline\n\n"
            "class Darker(StableDiffusion3Pipeline):\n"
            f"    times = {times}\n\n"
            f"def make():\n    return Darker.from_pretrained({str(tiny_model)!r})\n",
            encoding="utf-8",
        )
        with Store(mine.parent / "store") as store:
            renderer = Renderer(load_pipeline("mine.py:make"), 2)
            return Generation(renderer, {}, store).key(Job(PLAIN, Task("cat", 0)))

    assert key(1) == key(1) != key(2)


def test_results_that_name_it_as_it_was_first(said: Callable[..., str]) -> None:
    said("search", "vivid", *SMALL, "--model", "mine.py:plain", "--out", "run")
    file = Path("run/results.json")
    found = load_results(file)
    assert found.own_code == [own_source("mine.py:plain")]
    file.write_text(file.read_text().replace('"own_code"', '"own_rewards"'), encoding="utf-8")
    assert load_results(file) == found
