"""`pagopt score` and `pagopt rewards`: what a user types, reads, and gets back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from pagopt.cli import main
from pagopt.cli.pictures import find_images
from pagopt.reward import describe_rewards

Run = Callable[..., tuple[int, str, str]]
GREY = {"black": 0, "dark": 64, "light": 191, "white": 255}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a folder with four pictures in "grey"; exit status, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("grey").mkdir()
    for name, level in GREY.items():
        Image.new("RGB", (8, 8), (level,) * 3).save(f"grey/{name}.png")

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main(list(words))
        except SystemExit as stop:
            status = int(stop.code or 0)
        output = capsys.readouterr()
        return status, output.out, output.err

    return command


def scores(out: str, label: str = "brightness") -> dict[str, float]:
    return {row["image"]: row["scores"][label] for row in json.loads(out)}


def test_a_table_is_sorted_best_first(run: Run) -> None:
    status, out, _ = run("score", "--reward", "brightness", "grey")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["image", "brightness"]
    assert [line[0] for line in lines[1:]] == [f"grey/{name}.png" for name in ("white", "light", "dark", "black")]
    assert lines[1][1] == "1.0000"


def test_a_small_negative_score_has_no_lonely_sign(run: Run) -> None:
    Path("mine.py").write_text("def low(images, prompts):\n    return [-1e-6, -1.0]\n")
    _, out, _ = run("score", "--reward", "mine.py:low", "grey/black.png", "grey/white.png")
    assert [line.split()[-1] for line in out.splitlines()[1:]] == ["0.0000", "-1.0000"]


def test_several_rewards_in_every_format(run: Run) -> None:
    words = ["score", "--reward", "brightness", "--reward", "{name: sharpness}", "--prompt", "a, b", "grey"]
    status, out, _ = run(*words, "--format", "json")
    rows = json.loads(out)
    assert status == 0
    assert [row["image"] for row in rows] == [f"grey/{name}.png" for name in sorted(GREY)], "in the order given"
    assert {row["prompt"] for row in rows} == {"a, b"}
    assert scores(out) == pytest.approx({f"grey/{name}.png": level / 255 for name, level in GREY.items()}, abs=1e-6)
    assert run(*words, "--json")[1] == out
    table = list(csv.DictReader(io.StringIO(run(*words, "--format", "csv")[1])))
    assert list(table[0]) == ["image", "prompt", "brightness", "sharpness"]
    assert {row["image"]: float(row["brightness"]) for row in table} == scores(out)
    assert run(*words)[1].splitlines()[0].split() == ["image", "brightness", "sharpness"]


def test_files_folders_and_patterns(run: Run) -> None:
    Path("grey/inner").mkdir()
    Image.new("RGB", (8, 8)).save("grey/inner/one.JPG")
    Path("grey/notes.txt").write_text("no image")
    names = [f"grey/{name}.png" for name in sorted(GREY)]
    assert [str(path) for path in find_images(["grey"])] == names
    assert [str(path) for path in find_images(["grey/white.png", "grey", "grey/*.png"])] == [
        "grey/white.png",
        *[name for name in names if "white" not in name],
    ]
    assert [path.name for path in find_images(["grey/**/*.JPG"])] == ["one.JPG"]
    Path("empty").mkdir()
    for word, says in (
        ("empty", "the folder empty holds no images (.avif, .bmp"),
        ("none.png", "there is no file or folder none.png"),
        ("grey/*.webp", "no file matches grey/*.webp"),
    ):
        status, _, err = run("score", "--reward", "brightness", word)
        assert status == 2
        assert says in err


def write_length(name: str) -> str:
    Path("length.py").write_text(
        'def length(images, prompts):\n    """Letters of the prompt."""\n    return [len(p) for p in prompts]\n'
    )
    return f"length.py:{name}"


def test_a_prompt_for_each_image(run: Run) -> None:
    reward = write_length("length")
    lines = [{"file_name": f"{name}.png", "text": name, "more": 1} for name in GREY]
    Path("grey/metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    Path("grey/metadata.csv").write_text("\ufeffimage,prompt\n" + "\n".join(f"{n}.png,{n}" for n in GREY))
    Path("grey/metadata.json").write_text(json.dumps(lines))
    for name in GREY:
        Path(f"grey/{name}.txt").write_text(f"{name}\n")
    expected = {f"grey/{name}.png": len(name) for name in GREY}
    for source in ("grey/metadata.jsonl", "grey/metadata.csv", "grey/metadata.json", "beside"):
        status, out, err = run("score", "--reward", reward, "--prompts", source, "--json", "grey")
        assert (status, err) == (0, "")
        assert scores(out, "length") == expected, source
    status, out, _ = run("score", "--reward", reward, "--prompts", "grey/metadata.jsonl", "--json")
    assert scores(out, "length") == expected, "all that the file names"
    one = run("score", "--reward", reward, "--prompts", "grey/metadata.jsonl", "--json", "grey/dark.png")[1]
    assert scores(one, "length") == {"grey/dark.png": 4}
    table = run("score", "--reward", reward, "--prompts", "beside", "grey")[1]
    assert table.splitlines()[0].split() == ["image", "prompt", "length"]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("p.jsonl", '{"file_name": "black.png", "text": "a"}', "there is no prompt in grey/p.jsonl for grey/dark.png,"),
        ("p.jsonl", '{"file_name": "black.png"', "cannot read the prompts grey/p.jsonl: Expecting"),
        ("p.jsonl", '{"file_name": "black.png"}', "row 1 needs file_name and text (or image and prompt); it has file_"),
        ("p.jsonl", '["black.png"]', "row 1 is ['black.png'], not an object"),
        ("p.csv", "image,prompt\nblack.png,a\nblack.png,b", "gives black.png two prompts: 'a' and 'b'"),
        ("p.txt", "a", 'grey/p.txt is no .jsonl, .json or .csv; for a .txt beside each image write "beside"'),
        ("none", "", "grey/gone.csv: No such file"),
        ("black.txt", "a", "there is no text file beside grey/dark.png, grey/light.png, grey/white.png"),
    ],
)
def test_prompts_that_do_not_fit(run: Run, file: str, content: str, says: str) -> None:
    Path("grey", file).write_text(content)
    source = {"none": "grey/gone.csv", "black.txt": "beside"}.get(file, f"grey/{file}")
    status, _, err = run("score", "--reward", "brightness", "--prompts", source, "grey")
    assert status == 2
    assert says in err


def test_batches_and_a_reward_in_a_file(run: Run) -> None:
    Path("sizes.py").write_text(
        "def size(images, prompts):\n    print(len(images))\n    return [1.0 * len(images)] * len(images)\n"
    )
    status, out, err = run("score", "--reward", "sizes.py:size", "--batch_size", "3", "--format", "csv", "grey")
    assert (status, err) == (0, ""), "no bar in the first two seconds"
    assert out.splitlines()[:2] == ["3", "1"]


def test_a_bar_shows_when_it_takes_long(run: Run) -> None:
    Path("slow.py").write_text(
        "import time\ndef slow(images, prompts):\n    time.sleep(1.1)\n    return [1.0] * len(images)\n"
    )
    status, out, err = run("score", "--reward", "slow.py:slow", "--batch_size", "1", "--format", "csv", "grey")
    assert status == 0
    assert "4/4" in err or "3/4" in err or "2/4" in err
    assert "image," in out.splitlines()[0]


def test_transparent_files_are_scored_on_white(run: Run) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save("glass.png")
    assert scores(run("score", "--reward", "brightness", "--json", "glass.png")[1]) == {"glass.png": 1.0}


def test_files_that_cannot_be_scored_are_named(run: Run) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    for suffix in ("png", "jpg", "webp", "gif", "tif"):
        noise.save(f"whole.{suffix}")
        data = Path(f"whole.{suffix}").read_bytes()
        Path(f"cut.{suffix}").write_bytes(data[: len(data) // 2])
        status, _, err = run("score", "--reward", "brightness", "grey/black.png", f"cut.{suffix}")
        assert status == 2
        assert f"cannot read cut.{suffix} as an image" in err
        assert "Traceback" not in err
    Path("text.png").write_text("no picture")
    assert "cannot read text.png as an image: cannot identify" in run("score", "--reward", "brightness", "text.png")[2]
    Image.new("I;16", (8, 8)).save("deep.png")
    err = run("score", "--reward", "brightness", "grey/black.png", "deep.png")[2]
    assert "convert it to 8 bits a channel" in err
    assert "image: deep.png" in err
    Image.new("RGB", (2, 2)).save("small.png")
    err = run("score", "--reward", "sharpness", "grey", "small.png")[2]
    assert "image: small.png" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(run: Run) -> None:
    Path("gpu.py").write_text(
        "import torch\n"
        "from pagopt.reward import Reward\n"
        "def call(images, prompts):\n    return torch.zeros(len(images), device='cuda')\n"
        "class Make(Reward):\n"
        "    def __init__(self): self.net = torch.nn.Linear(1, 1).cuda()\n"
        "    def score(self, images, prompts): return [0.0] * len(images)\n"
        "class Move(Reward):\n"
        "    def move(self, device): torch.zeros(1).to('cuda')\n"
        "    def score(self, images, prompts): return [0.0] * len(images)\n"
    )
    for name, says in (("call", "failed on"), ("Make", "could not be made"), ("Move", "cannot be moved to cpu")):
        status, _, err = run("score", "--reward", f"gpu.py:{name}", "grey/black.png")
        assert status == 2
        assert says in err
        assert "it asks for a device that this machine lacks; torch can use: cpu" in err
    for device in ("cuda", "cuda:7", "tpu9"):
        status, _, err = run("score", "--reward", "brightness", "--device", device, "grey")
        assert status == 2
        assert f"there is no device {device!r} here; torch can use: cpu" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--reward", "brightnes", "grey"], "Did you mean 'brightness'?"),
        (["--reward", "brightness"], "no images: name files, folders or patterns"),
        (["--reward", "brightness", "--format", "xml", "grey"], "--format must be one of table, json, csv, not 'xml'"),
        (["--reward", "brightness", "--batch_size", "0", "grey"], "--batch_size must be at least 1, not 0"),
        (["--reward", "brightness", "--prompt", "a", "--prompts", "beside", "grey"], "not both"),
        (["--reward", "brightness", "--reward", "clip", "--args", "{model: emoji}", "grey"], "a single --reward"),
        (["--reward", "{name: clip, arg: 1}", "grey"], "Did you mean 'args'"),
        (["--reward", "{name: clip, weight: 2}", "grey"], "a term has name and args alone"),
        (["--reward", "{name: clip", "grey"], "is no reward's name, and no list of rewards"),
        (["grey"], "the following arguments are required: reward"),
    ],
)
def test_score_refuses_in_words(run: Run, words: list[str], says: str) -> None:
    status, _, err = run("score", *words)
    assert status == 2
    assert says in err
    assert "Traceback" not in err


def test_rewards_are_listed_in_groups(run: Run) -> None:
    status, out, _ = run("rewards")
    assert status == 0
    ready, rest = out.split("Your own")[0].split("Need something first") if "Need something" in out else (out, "")
    for info in describe_rewards():
        assert f"\n{info.name}(" in (rest if info.missing else ready), info.name
        assert (" ".join(info.missing.split())[:40]) in " ".join(rest.split())
    assert "path/to/file.py:function" in out


def test_rewards_as_json(run: Run) -> None:
    status, out, _ = run("rewards", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    assert rows["brightness"] == {
        "name": "brightness",
        "summary": rows["brightness"]["summary"],
        "arguments": {},
        "missing": "",
        "package": rows["brightness"]["package"],
        "ready": True,
    }
    assert all(row["ready"] == (not row["missing"]) for row in rows.values())


def test_rewards_of_other_packages_are_marked_and_clashes_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(name: str, source: str, reward: str) -> None:
        info = tmp_path / name / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (tmp_path / name / f"{name}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[pagopt.rewards]\n{reward} = {name}:f\n")
        monkeypatch.syspath_prepend(str(tmp_path / name))

    install("one_package", 'def f(images, prompts):\n    """One."""\n    return [1.0] * len(images)\n', "one")
    install("broken_package", "import nowhere_to_be_found\n", "broken")
    out = run("rewards")[1]
    assert "one()  from one_package 1.2" in out
    assert "needs: the installed reward 'broken' of broken_package" in out
    install("two_package", "def f(images, prompts): return [2.0] * len(images)\n", "one")
    for words in (["rewards"], ["rewards", "--json"], ["score", "--reward", "one", "grey"]):
        status, _, err = run(*words)
        assert status == 2
        assert "two rewards are called 'one'" in err


def test_a_reward_that_reads_prompts_asks_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    words = ["score", "--reward", "clip", "--reward", "brightness", str(tmp_path / "red.png")]
    assert main(words) == 2
    assert "clip: how well an image fits its prompt. Give --prompt" in " ".join(capsys.readouterr().err.split())
    for prompt in ("", "flat, red apple"):
        assert main([*words, "--prompt", prompt]) == 0
