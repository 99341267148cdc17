"""Every benchmark, on tiny models: it runs, its ratios are numbers, and the data are written. Not that it is fast."""

from __future__ import annotations

import json
import math
import threading
import time
from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel

from benchmarks import attention, candidates, memory, recompilations, scaling, weights, work
from benchmarks.common import CONFIGS, Model, options_of, tasks, twin
from benchmarks.report import quiet
from pagopt.guide import guided
from pagopt.recipe import Recipe
from tools.pretended_gpu import COMPILER

SMALL = ["--rounds", "1", "--steps", "2", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture(autouse=True)
def small_machine():
    """One thread, and no graphs of other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path, capsys):
    """Run a benchmark; all rows of its tables."""

    def call(script, *arguments: str):
        path: Path = tmp_path / "found" / "table.json"
        assert script.main([*SMALL, *arguments, "--json", str(path)]) == 0
        found = json.loads(path.read_text())
        printed = capsys.readouterr().out
        assert f"## {found['title']}" in printed
        assert {"device_name", "dtype", "threads", "versions", "size", "batch"} <= found["settings"].keys()
        rows = [row for table in found["tables"] for row in table["rows"]]
        for table in found["tables"]:
            assert f"| {' | '.join(table['rows'][0])} |" in printed
        for row in rows:
            assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
        return rows

    return call


@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-flux"])
def test_candidates(run, model):
    rows = run(candidates, "--model", model, "--candidates", "5", "--batch", "2", "--subset", "4")
    names = {row["variant"] for row in rows}
    assert {"pagopt", "unguided", "the user's loop"} <= names
    assert ("diffusers' PAG pipeline" in names) == (model == "tiny-sd3")
    assert all(row["x the loop's rate"] > 0 for row in rows)


@pytest.mark.parametrize(("model", "tokens"), [("tiny-sd3", 77 + 256), ("tiny-flux", 512)])
def test_candidates_from_prompts_to_pictures(run, model, tokens):
    words = ["--model", model, "--whole", "--candidates", "2", "--batch", "2"]
    rows = run(candidates, *words, "--subset", "1", "--only", "^pagopt")
    assert [row["variant"] for row in rows] == ["unguided", "pagopt", "the user's loop"]
    own = Model(options_of(__doc__, [*words[:3], *SMALL]))
    encoded = own.encoded("flat, red apple")
    assert encoded["prompt_embeds"].shape == (1, tokens, own.pipe.transformer.config.joint_attention_dim)
    assert own.call(own.pipe, encoded, tasks(1)).shape == (1, 3, 64, 64)


def test_only_some_candidates(run):
    words = ["--model", "tiny-sd3", "--compile", "--backend", "eager", "--candidates", "1", "--batch", "1"]
    rows = run(candidates, *words, "--subset", "1", "--only", "compiled")
    names = ["unguided", "the user's loop", "pagopt, compiled", "unguided, compiled"]
    assert [row["variant"] for row in rows] == names


def test_benchmarks_are_measured_one_after_another_when_all_are_ready(tmp_path):
    events: list[tuple[str, str]] = []

    def measured(name: str, preparation: float) -> None:
        time.sleep(preparation)
        events.append(("ready", name))
        with quiet(tmp_path / name):
            events.append(("begins", name))
            time.sleep(0.05)
            events.append(("ends", name))

    names = {"a": 0.0, "b": 0.3, "c": 0.1}
    for name in names:
        (tmp_path / name).touch()
    threads = [threading.Thread(target=measured, args=item) for item in names.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [what for what, _ in events] == ["ready"] * 3 + ["begins", "ends"] * 3
    assert all(events[place][1] == events[place + 1][1] for place in (3, 5, 7))


@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-flux"])
def test_the_users_loop_draws_the_same_picture(model):
    """Else its time would be compared with that of something else."""
    own = Model(options_of(__doc__, ["--model", model, *SMALL]))
    [task] = tasks(1)
    other = twin(own.pipe)
    for head in own.heads:
        recipe = Recipe([head], scale=2.0)
        with guided(own.pipe, recipe):
            want = own.call(own.pipe, own.encoded(task.prompt), [task])
        got = candidates.draw_by_hand(own, other, [(recipe, task)])
        assert (got - want).norm() < 1e-4 * want.norm()


def test_few_candidates_stand_for_all_heads():
    own = Model(options_of(__doc__, ["--model", "tiny-sd3", *SMALL]))
    every = [recipe.heads for recipe in own.random_recipes(len(own.heads))]
    assert sorted(every) == [(head,) for head in sorted(own.heads)] != every
    assert sorted(recipe.heads[0].block for recipe in own.random_recipes(own.blocks)) == list(range(own.blocks))


def test_forms_of_the_weights(run):
    rows = run(weights, "--contents", "1", "--forms", "bfloat16, int8")
    assert [row["weights"] for row in rows] == ["float32", "bfloat16, int8"]
    assert rows[0]["largest of a picture"] == 0 < rows[1]["largest of a picture"] < 10
    assert rows[0]["transformer MB"] > 3.5 * rows[1]["transformer MB"]


def test_candidates_of_the_embedded_model_are_encoded_and_decoded(run):
    rows = run(candidates, "--candidates", "2", "--batch", "2", "--subset", "1")
    assert [row["images measured"] for row in rows] == [2, 2, 1, 1]


@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-flux"])
def test_work(run, model):
    rows = {row["batch"]: row for row in run(work, "--model", model, "--batch", "2", "--matrix", "64")}
    assert rows["a head of the first block in every row"]["x unguided"] == 2
    assert rows["unguided, twice the rows"]["x unguided (GFLOP)"] == pytest.approx(2)
    assert rows["a head of the first block in every row"]["x unguided (GFLOP)"] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-flux"])
def test_attention(run, model):
    rows = run(attention, "--model", model, "--size", "128", "--batch", "2", "--compile", "--backend", "eager")
    assert [row["kernel"] for row in rows] == ["flash_attention", "flash_attention, rounded up", "mean keys"]
    assert rows[1]["tokens"] == 128 > rows[0]["tokens"] == rows[2]["tokens"]
    assert max(rows[0]["away from float32"], rows[2]["away from float32"]) < 1e-6


@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("tokens", [77, 128, 333])
def test_mean_keys_change_nothing(tokens, spread):
    """Also where every score is far below zero, so that keys of zeros would weigh more than all true ones."""
    draw = torch.Generator().manual_seed(tokens)
    q, k, v = (torch.randn(2, 3, tokens, 8, generator=draw, dtype=torch.float64) * spread for _ in range(3))
    q, k = q.abs() + spread, -k.abs() - spread
    want = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, dim=-1) @ v
    assert (attention.with_mean_keys(q, k, v) - want).norm() < 1e-10 * want.norm()


def test_memory(run):
    rows = run(memory, "--model", "tiny-sd3", "--batch", "2", "--targets", "identity")
    assert [row["batch"] for row in rows] == [memory.PLAIN, "identity"]
    assert all(row["peak MB"] > row["MB above the loaded model"] > 0 for row in rows)


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
def test_memory_of_a_big_model(run, monkeypatch):
    """At most 1.1 times that of a plain batch of as many rows; a block is as wide in a model of few."""
    config = CONFIGS["sd3-medium"] | {"num_layers": 3}
    monkeypatch.setitem(CONFIGS, "sd3-medium", config)
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(**config)
    numbers = sum(tensor.numel() for tensor in (*transformer.parameters(), *transformer.buffers()))
    words = ["--model", "sd3-medium", "--size", "1024", "--dtype", "bfloat16", "--batch", "4", "--counted"]
    plain, *guided_ones = run(memory, *words, "--steps", "1", "--targets", "identity", "row_maximum")
    model = plain["peak MB"] - plain["MB above the loaded model"]
    assert model == pytest.approx(2 * numbers / 1e6, rel=0.01)
    assert plain["MB above the loaded model"] > 8 * 4429 * 4 * 1536 * 2 / 1e6, "the widest layer of all rows"
    for row in guided_ones:
        assert 0.9 < row["x plain (above the model)"] < 1.1


def test_recompilations(run):
    [row] = run(recompilations, "--model", "tiny-sd3", "--batch", "3", "--backend", "eager")
    assert row["new graphs"] == row["graph breaks"] == 0
    assert row["graphs after the warm-up"] >= 4


@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-flux"])
def test_scaling(run, model):
    rows = run(scaling, "--model", model, "--batch", "2", "--sizes", "32", "64")
    assert len(rows) == 2 + 2 + 3  # sizes, batches, heads
    assert all(row["counted"] == pytest.approx(row["block evaluations expected"]) for row in rows)
