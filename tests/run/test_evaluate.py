"""The evaluator: recipes x tasks to scores, with nothing done twice and nothing lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import accelerate
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from pagopt.cli import main
from pagopt.errors import RewardError, StoreError, StudyError, UnknownName
from pagopt.evaluate import Evaluator, make_trainer
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task
from pagopt.reward import FunctionReward, Objective, load_reward
from pagopt.store import Store

TASKS = [Task("red apple", 0), Task("house", 1), Task("cat", 2)]
RECIPES = [Recipe(scale=0.0), Recipe("L1.H0"), Recipe("L2.H1", strength=0.5)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


@pytest.fixture(scope="module")
def renderer(tiny_model: Path) -> Renderer:
    return Renderer(load_pipeline(str(tiny_model)), steps=2)


def evaluator(renderer: Renderer, store: Store, *rewards: FunctionReward | str, batch_size: int = 4) -> Evaluator:
    loaded = [load_reward(r) if isinstance(r, str) else r for r in rewards]
    trainer = make_trainer(accelerator="cpu")
    return Evaluator(renderer, {reward.name: reward for reward in loaded}, store, trainer, batch_size)


def test_scores_are_those_of_the_images(renderer: Renderer, store: Store) -> None:
    table = evaluator(renderer, store, "colorfulness", "brightness")(RECIPES, TASKS)
    assert sorted(table) == ["brightness", "colorfulness"]
    reward = load_reward("colorfulness")
    for recipe, row in zip(RECIPES, table["colorfulness"], strict=True):
        images = renderer.render([Job(recipe, task) for task in TASKS])
        # A batch of another size may differ by one level in a few pixels.
        np.testing.assert_allclose(row, reward(images, [task.prompt for task in TASKS]).numpy(), atol=0.2)


def test_the_second_time_nothing_is_drawn_and_another_reward_costs_its_scoring(
    renderer: Renderer, store: Store
) -> None:
    first = evaluator(renderer, store, "colorfulness")
    table = first(RECIPES, TASKS)
    assert first.images_generated == 9
    calls: list[int] = []

    def darkness(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        calls.append(len(images))
        return [-float(np.asarray(image).mean()) for image in images]

    second = evaluator(renderer, store, "colorfulness", FunctionReward(darkness, "darkness"))
    again = second(RECIPES, TASKS)
    assert second.images_generated == 0
    assert sum(calls) == 9
    np.testing.assert_array_equal(again["colorfulness"], table["colorfulness"])


def test_networks_stay_on_their_device_between_the_loops(
    tiny_model: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning moves a module, and what is registered with it, to the CPU after every loop."""
    own = Renderer(load_pipeline(str(tiny_model)), steps=2)
    devices: list[str] = []
    monkeypatch.setattr(own.pipe, "to", lambda device, **more: devices.append(str(device)))
    drawn = evaluator(own, store, "colorfulness")
    drawn(RECIPES[:2], TASKS)
    drawn(RECIPES, TASKS)
    assert devices == ["cpu", "cpu"]  # where the Trainer runs, before each loop
    assert not set(drawn.module.modules()) & set(own.modules().values())


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
def test_a_trainer_of_ones_own_converts_the_networks(
    tiny_model: Path, store: Store, precision: str, dtype: torch.dtype
) -> None:
    own = Renderer(load_pipeline(str(tiny_model)), steps=1)
    rewards = {"colorfulness": load_reward("colorfulness")}
    Evaluator(own, rewards, store, make_trainer(accelerator="cpu", precision=precision))(RECIPES[:2], TASKS[:1])
    assert {parameter.dtype for parameter in own.pipe.transformer.parameters()} == {dtype}


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--trainer.accelerator=tpu", "does not take trainer.accelerator tpu here: "),
        ("--trainer.devices=0", "does not take trainer.devices 0 here: "),
        ("--trainer.num_nodes=0", "does not take trainer.num_nodes 0 here: `num_nodes` must be a positive integer"),
        ("--trainer.strategy=nonsense", "does not take trainer.strategy nonsense here: You selected an invalid"),
        ("--trainer.strategy=ddp_spawn", "every round of a search: take ddp"),
    ],
)
def test_what_lightning_does_not_take(
    option: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pagopt.experiment.load_model", lambda *_: pytest.fail("a model is loaded before"))
    assert main(["search", "flat", "--out", str(tmp_path / "run"), option]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_where_there_is_none() -> None:
    with pytest.raises(
        StudyError, match=r"does not take trainer\.accelerator gpu here: No supported gpu backend found"
    ):
        make_trainer(accelerator="gpu", devices="auto")


def test_offloading_of_ones_own_is_left_alone(tiny_model: Path, store: Store) -> None:
    own = Renderer(load_pipeline(str(tiny_model)), steps=2)
    accelerate.cpu_offload_with_hook(own.pipe.transformer, "cpu")
    evaluator(own, store, "colorfulness")(RECIPES, TASKS)
    assert hasattr(own.pipe.transformer, "_hf_hook")


def test_a_reward_that_changes_its_pictures_changes_no_other(renderer: Renderer, store: Store) -> None:
    def spoils(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        for image in images:
            image.paste((0, 0, 0), (0, 0, *image.size))
        return [0.0] * len(images)

    want = evaluator(renderer, store, "colorfulness")(RECIPES, TASKS)
    with Store(store.folder.parent / "other") as other:
        found = evaluator(renderer, other, FunctionReward(spoils, "spoils"), "colorfulness")(RECIPES, TASKS)
    np.testing.assert_array_equal(found["colorfulness"], want["colorfulness"])


def test_recipes_that_do_nothing_share_one_image(renderer: Renderer, store: Store) -> None:
    evaluate = evaluator(renderer, store, "brightness")
    table = evaluate([Recipe(scale=0.0), Recipe("L0.H0", scale=0.0, cfg=1.0), Recipe("L0.H0", strength=0.0)], TASKS)
    assert evaluate.images_generated == len(TASKS)
    assert np.ptp(table["brightness"], axis=0).max() == 0


def test_equal_recipes_share_their_images(renderer: Renderer, store: Store) -> None:
    one = Recipe("L1.H0", target="blur", target_options={"sigma": 1.0})
    evaluate = evaluator(renderer, store, "brightness")
    table = evaluate([one, one.replace(target_options={"sigma": 1})], TASKS)["brightness"]
    assert evaluate.images_generated == len(TASKS)
    np.testing.assert_array_equal(table[0], table[1])


def test_seeds_of_any_kind(renderer: Renderer, store: Store) -> None:
    evaluate = evaluator(renderer, store, "brightness")
    tasks = [Task("house", seed) for seed in (1, True, np.int64(1), np.uint8(1), torch.tensor(1))]
    assert len(set(evaluate.keys(RECIPES[:1], tasks)[0])) == 1
    assert {type(task.seed) for task in tasks} == {int}
    assert len(evaluate(RECIPES[:1], tasks)["brightness"][0]) == 5
    assert evaluate.images_generated == 1
    renderer.render([Job(RECIPES[0], Task("house", np.uint64(2**64 - 1)))])  # type: ignore[arg-type]
    for seed in (1.0, "1", None, np.float32(1)):
        with pytest.raises(StudyError, match="a seed must be a whole number"):
            Task("house", seed)  # type: ignore[arg-type]
    for seed in (-1, 2**64):
        with pytest.raises(StudyError, match=r"must not be negative, nor 2\*\*64 or more"):
            Task("house", seed)
    with pytest.raises(StudyError, match="a prompt is a text, not 3"):
        Task(3, 1)  # type: ignore[arg-type]


def test_threads_take_turns(renderer: Renderer, store: Store) -> None:
    """As Optuna's ``study.optimize(..., n_jobs=2)`` calls it; guidance and Trainer are not for two at once."""
    evaluate = evaluator(renderer, store, "brightness")
    with ThreadPoolExecutor(2) as pool:
        tables = list(pool.map(lambda recipe: evaluate([recipe], TASKS)["brightness"], RECIPES))
    np.testing.assert_array_equal(np.concatenate(tables), evaluate(RECIPES, TASKS)["brightness"])
    assert evaluate.images_generated == 9


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_batch_size_changes_no_score_to_speak_of(renderer: Renderer, store: Store, batch_size: int) -> None:
    table = evaluator(renderer, store, "brightness", batch_size=batch_size)(RECIPES, TASKS)["brightness"]
    expected = [
        [load_reward("brightness")(renderer.render([Job(r, t)]), [t.prompt]).item() for t in TASKS] for r in RECIPES
    ]
    np.testing.assert_allclose(table, expected, atol=2e-3)


def test_a_failing_reward_names_itself_the_prompt_and_the_file(renderer: Renderer, store: Store) -> None:
    def moody(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return [float("nan") if prompt == "house" else 1.0 for prompt in prompts]

    evaluate = evaluator(renderer, store, "brightness", FunctionReward(moody, "moody"), batch_size=3)
    with pytest.raises(RewardError, match="moody") as caught:
        evaluate(RECIPES[:1], TASKS)
    key = evaluate.keys(RECIPES[:1], TASKS)[0][1]
    assert "'house'" in str(caught.value)
    assert str(store.image_path(key)) in str(caught.value)
    assert store.image_path(key).exists()
    known = store.get_scores(load_reward("brightness").key(), evaluate.keys(RECIPES[:1], TASKS)[0])
    assert len(known) == 3, "what the other reward has scored stays"


def test_prompts_that_a_reward_refuses_are_not_drawn(renderer: Renderer, store: Store) -> None:
    evaluate = evaluator(renderer, store, "brightness", "classifier", batch_size=1)
    with pytest.raises(RewardError, match="the prompt 'house' names no style"):
        evaluate(RECIPES, [Task("flat, cat", 2), Task("house", 1)])
    assert evaluate.images_generated == 0
    assert evaluate.missing(RECIPES, [Task("flat, cat", 2)]) == len(RECIPES)


def test_refuses_nothing(renderer: Renderer, store: Store) -> None:
    with pytest.raises(StudyError, match="at least one recipe and one prompt"):
        evaluator(renderer, store, "brightness")(RECIPES, [])
    with pytest.raises(StudyError, match="batch_size must be at least 1"):
        evaluator(renderer, store, "brightness", batch_size=0)


def test_rewards_and_tasks_in_hand(renderer: Renderer, store: Store) -> None:
    def redness(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return [float(np.asarray(image)[..., 0].mean()) for image in images]

    trainer = make_trainer(accelerator="cpu")
    want = Evaluator(renderer, {"x": FunctionReward(redness)}, store, trainer)(RECIPES, TASKS)["x"]
    tasks = [("red apple", 0), ["house", np.int64(1)], TASKS[2]]
    by_label = Evaluator(renderer, {"x": redness}, store, trainer)
    objective = Evaluator(renderer, Objective(redness), store, trainer)
    np.testing.assert_array_equal(by_label(RECIPES, tasks)["x"], want)  # type: ignore[arg-type]
    np.testing.assert_array_equal(objective(RECIPES, tasks)["redness"], want)  # type: ignore[arg-type]
    assert by_label.images_generated == objective.images_generated == 0
    assert by_label.missing(RECIPES, tasks) == 0  # type: ignore[arg-type]
    stored = by_label.stored(RECIPES, TASKS)
    assert stored is not None
    np.testing.assert_array_equal(stored["x"], want)
    assert by_label.stored(RECIPES, [*TASKS, Task("new", 0)]) is None


def test_what_is_no_recipe_task_or_store(renderer: Renderer, store: Store) -> None:
    evaluate = evaluator(renderer, store, "brightness")
    for recipes, tasks, says in [
        (RECIPES[0], TASKS, r"recipes and tasks are lists: put the single recipe into one, \[recipe\]"),
        (RECIPES, TASKS[0], r"put the single task into one, \[task\]"),
        (["L1.H0"], TASKS, "'L1.H0' is no Recipe: "),
        (RECIPES, ["house"], "'house' is no task: a prompt and a seed"),
        (RECIPES, [("house", 1, 2)], "is no task"),
        (RECIPES, [("house", -1)], "must not be negative"),
    ]:
        with pytest.raises(StudyError, match=says):
            evaluate(recipes, tasks)  # type: ignore[arg-type]
    for path in (store.folder, str(store.folder)):
        with pytest.raises(StoreError, match=r"has to be an open Store: with Store\('.*store'\) as store"):
            Evaluator(renderer, {}, path, make_trainer(accelerator="cpu"))  # type: ignore[arg-type]


def test_an_option_that_a_trainer_does_not_have() -> None:
    with pytest.raises(UnknownName, match=r"option of Lightning's Trainer 'gpus'\. Known: accelerator, "):
        make_trainer(gpus=8)
    with pytest.raises(UnknownName, match=r"'acelerator'\. Did you mean 'accelerator'\?") as caught:
        make_trainer(accelerator="cpu", acelerator="cpu")
    assert "cpu" not in str(caught.value), "what is right is not blamed"


@pytest.mark.parametrize(
    ("option", "value"),
    [("limit_predict_batches", 1), ("limit_predict_batches", 0.5), ("fast_dev_run", True), ("fast_dev_run", 2)],
)
def test_a_trainer_that_leaves_images_out(renderer: Renderer, store: Store, option: str, value: float) -> None:
    says = rf"has {option}={value}, so it would leave images out.* leave the option out"
    with pytest.raises(StudyError, match=says):
        make_trainer(accelerator="cpu", **{option: value})
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **{option: value})
    with pytest.raises(StudyError, match=says):
        Evaluator(renderer, {"b": load_reward("brightness")}, store, trainer)
    make_trainer(accelerator="cpu", limit_predict_batches=1.0, fast_dev_run=False)
