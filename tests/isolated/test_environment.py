"""Environments: built, found, half-built, removed; and the reward that uses one. Nothing is downloaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from pagopt.cli import main
from pagopt.errors import PagoptError, RewardError
from pagopt.isolated import find_environment, home, install, installed, not_installed, read_record, remove
from pagopt.isolated.install import _pinned
from pagopt.reward import RewardSpec, load_reward, own_keys

RECORD = """
name: gain
scorer: gain_scorer.py:Gain
inherit: true
requirements: [./gain_tool-1.0-py3-none-any.whl]
no_deps: [./gain_data-2.1-py3-none-any.whl]
copy: [[gain_data/factor.txt, gain_tool/]]
"""
SCORER = """
import gain_tool
class Gain:
    def __init__(self, by=1.0, weights=None, device="cpu"):
        self.by, self.device = by, device
    def __call__(self, images, prompts):
        if prompts[0] == "nan":
            return [float("nan")] * len(images)
        return [gain_tool.factor() * self.by * image.getpixel((0, 0))[0] for image in images[: len(set(prompts))]]
"""
TOOL = """
from pathlib import Path
print("imported from", __file__)
def factor(): return float(Path(__file__).with_name("factor.txt").read_text())
"""
RED = Image.new("RGB", (4, 3), (200, 0, 0))


def wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    """A wheel, as pip takes it."""
    info = f"{name}-{version}.dist-info"
    files = {f"{name}/{path}": text for path, text in files.items()}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


def project(folder: Path) -> Path:
    """A record with two wheels to install, which takes pip some seconds."""
    folder.mkdir(exist_ok=True)
    wheel(folder, "gain_tool", "1.0", {"__init__.py": TOOL})
    wheel(folder, "gain_data", "2.1", {"__init__.py": "", "factor.txt": "0.5"})
    (folder / "gain_scorer.py").write_text(SCORER)
    (folder / "gain.yaml").write_text(RECORD)
    return folder / "gain.yaml"


def small(folder: Path) -> Path:
    """A record with nothing to install."""
    folder.mkdir()
    (folder / "gain_scorer.py").write_text(SCORER.replace("import gain_tool", "").replace("gain_tool.factor()", "0.5"))
    (folder / "gain.yaml").write_text("name: gain\nscorer: gain_scorer.py:Gain\ninherit: true\n")
    return folder / "gain.yaml"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the record, and its environment in ``home`` beside it."""
    folder = tmp_path_factory.mktemp("gain")
    said: list[str] = []
    install(read_record(str(project(folder))), folder=folder / "home", say=said.append)
    assert [line.partition(":")[0] for line in said[:-1]] == [f"gain {step}/4" for step in range(1, 5)]
    assert said[-1].startswith("gain is ready after")
    return folder


@pytest.fixture
def gain(built: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PAGOPT_HOME", str(built / "home"))
    return str(built / "gain.yaml")


def test_what_was_built(gain: str) -> None:
    record = read_record(gain)
    found = find_environment(record)
    assert found.ready
    assert found.name == "gain"
    assert not_installed(record) == ""
    assert found.packages["gain-tool"] == "1.0"
    assert found.packages["gain-data"] == "2.1"
    assert found.packages["pillow"]  # inherited
    assert found.facts["packages"] == found.packages
    run = [str(found.python), "-c", "import gain_tool, PIL; print(gain_tool.factor())"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.endswith("0.5\n")
    said: list[str] = []
    assert install(record, say=said.append) == found  # nothing is done again
    assert said == [f"gain is ready in {found.folder} (--force builds it again)"]


def test_the_reward(gain: str, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0)
    images = [Image.fromarray(noise.integers(0, 256, (h, 7, 3), dtype=np.uint8)) for h in range(1, 33)]
    images[1:4] = [image.convert(mode) for image, mode in zip(images[1:4], ("L", "RGBA", "P"), strict=True)]
    prompts = [f"prompt {index}" for index in range(32)]
    reward = load_reward("isolated", record=gain, args={"by": 3})
    expected = [1.5 * image.convert("RGB").getpixel((0, 0))[0] for image in images]  # type: ignore[index]
    scores = reward(images, prompts)
    assert scores.dtype == torch.float32
    assert scores.tolist() == expected
    for size in (1, 7):
        parts = [reward(images[i : i + size], prompts[i : i + size]) for i in range(0, 32, size)]
        assert torch.cat(parts).tolist() == expected
    order = np.random.default_rng(1).permutation(32).tolist()
    assert reward([images[i] for i in order], [prompts[i] for i in order]).tolist() == [expected[i] for i in order]
    assert "[gain] imported from" in capsys.readouterr().err
    by_name = load_reward("isolated", record="gain", args={"by": 3})
    assert by_name([RED], ["p"]).tolist() == [300]
    with pytest.raises(RewardError, match="returned nan for image 1 of 1, prompt 'nan'"):
        reward([RED], ["nan"])
    with pytest.raises(RewardError, match="returned 1 scores for 2 images"):
        reward([RED, RED], ["same", "same"])
    with pytest.raises(RewardError, match=r"(?s)Gain\(by=1.0, .*got an unexpected keyword argument 'gain'"):
        load_reward("isolated", record=gain, args={"gain": 1})([RED], ["p"])


def test_it_goes_where_pagopt_goes(gain: str) -> None:
    reward = load_reward("isolated", record=gain)
    assert reward.worker.start["device"] == "cpu"  # type: ignore[attr-defined]
    reward([RED], ["p"])
    reward.move(torch.device("cpu"))
    reward([RED], ["p"])
    assert reward.worker.starts == 1  # type: ignore[attr-defined]
    reward.move(torch.device("meta"))  # the scorer does not care
    assert reward([RED], ["p"]).tolist() == [100]
    assert reward.worker.starts == 2  # type: ignore[attr-defined]
    assert reward.worker.start["device"] == "meta"  # type: ignore[attr-defined]
    fixed = load_reward("isolated", record=gain, device="cpu")
    fixed.move(torch.device("meta"))
    assert fixed.worker.start["device"] == "cpu"  # type: ignore[attr-defined]


def test_its_key(gain: str, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"1")

    def key(**options: object) -> str:
        return load_reward("isolated", record=gain, **options).key()

    first = key(args={"weights": str(weights)})
    assert key(args={"weights": str(weights)}, batch_seconds=5, restarts=0, device="cuda:7") == first
    assert key(args={"weights": str(weights), "by": 2}) != first
    weights.write_bytes(b"2")
    second = key(args={"weights": str(weights)})
    assert second != first
    scorer = Path(gain).with_name("gain_scorer.py")
    scorer.write_text(SCORER + "# edited\n")
    assert key(args={"weights": str(weights)}) != second
    scorer.write_text(SCORER)
    assert key(args={"weights": str(weights)}) == second
    packages = find_environment(read_record(gain)).folder / "lib"
    (info,) = packages.glob("python*/site-packages/gain_tool-1.0.dist-info")
    other = info.rename(info.with_name("gain_tool-1.1.dist-info"))  # as after an upgrade by hand
    assert key(args={"weights": str(weights)}) != second
    other.rename(info)
    several = {"weights": [str(weights), {"a": "x" * 300, "b": "~no_such_user"}]}
    second = key(args=several)
    assert key(args=several) == second
    weights.write_bytes(b"3")
    assert key(args=several) != second
    with pytest.raises(RewardError, match="is a Tensor, so its scores"):
        key(args={"by": torch.ones(1)})
    with pytest.raises(RewardError, match=r"gain: args are \['by'\], not names with values"):
        key(args=["by"])


def test_the_command_line(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    record = small(tmp_path / "here")
    RED.save(tmp_path / "red.png")
    score = ["score", "--reward", "isolated", "--args", f"{{record: {record}}}", str(tmp_path / "red.png")]
    assert main(score) == 2
    assert f"gain has no environment yet. Build it: pagopt rewards install {record}" in capfd.readouterr().err
    assert main(["rewards", "environments"]) == 0
    assert f"no environments in {home / 'environments'}" in capfd.readouterr().out
    assert main(["rewards", "install", str(record)]) == 0
    assert "gain 1/4: an environment with" in capfd.readouterr().out
    assert main(score) == 0
    assert "100.0" in capfd.readouterr().out
    assert main(["rewards", "environments"]) == 0
    assert "ready" in capfd.readouterr().out
    with record.open("a") as file:
        file.write("python: '>=3.9'\n")
    assert main(["rewards", "environments"]) == 0
    assert "outdated" in capfd.readouterr().out
    assert main(["rewards", "remove", "gain"]) == 0
    assert "removed" in capfd.readouterr().out
    assert installed() == []
    assert main(["rewards", "remove", "gain"]) == 2
    assert "no environment of 'gain'" in capfd.readouterr().err
    assert main(["rewards", "install"]) == 2
    assert "which one?" in capfd.readouterr().err
    assert main(["rewards", "instal"]) == 2
    assert "Did you mean 'install'" in capfd.readouterr().err
    assert main(["rewards", "install", "image-rewards"]) == 2
    assert "Did you mean 'image-reward'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ("class Gain", "import gain_tools\nclass Gain"),
            r"(?s)ModuleNotFoundError: No module named 'gain_tools'.*line 3",
        ),
        (("inherit: true", "inherit: true\ncopy: [[gain/a.txt, tool/]]"), "cannot copy gain/a.txt to tool/"),
        (("inherit: true", "inherit: true\nno_deps: [./broken.whl]"), r"a step ended with status 1.*broken\.whl"),
        (("inherit: true", "inherit: true\npython: '<3'"), "needs Python <3; here: 3.*has to be pagopt's own Python"),
        (("inherit: true", "python: '<3'"), "needs Python <3; here: 3.*name it with `--python`"),
        (("inherit: true", "python: 'three'"), "python is 'three'"),
    ],
)
def test_what_fails_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], says: str
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    record = small(tmp_path / "here")
    (record.parent / "broken.whl").write_text("no wheel")
    for file in (record, record.with_name("gain_scorer.py")):
        file.write_text(file.read_text().replace(*change))
    with pytest.raises(RewardError, match=says):
        install(read_record(str(record)), say=str)
    assert installed() == []
    with pytest.raises(PagoptError, match="has no environment yet"):
        load_reward("isolated", record=str(record))


def test_killed_while_it_is_built(home: Path, tmp_path: Path) -> None:
    """What remains does not look ready, and the next try starts from nothing."""
    path = small(tmp_path / "here")
    scorer = path.with_name("gain_scorer.py")
    scorer.write_text(f"import time\nopen({str(tmp_path / 'here' / 'now')!r}, 'w').close()\ntime.sleep(60)\n")
    building = subprocess.Popen([sys.executable, "-m", "pagopt", "rewards", "install", str(path)])
    until = time.monotonic() + 60
    while not (tmp_path / "here" / "now").exists() and time.monotonic() < until:
        time.sleep(0.05)
    with pytest.raises(RewardError, match="another process is building"):
        install(read_record(str(path)), say=str)
    building.send_signal(signal.SIGKILL)
    building.wait()
    (rest,) = installed()
    assert rest.python.exists()
    assert not rest.ready
    assert not_installed(read_record(str(path))).startswith("pagopt rewards install ")
    (rest.folder / "rubbish").touch()
    scorer.write_text("def Gain(images, prompts): return [1.0] * len(images)\n")
    assert install(read_record(str(path)), say=str).ready
    assert not (rest.folder / "rubbish").exists()
    assert remove("gain") == [rest.folder]


def test_ctrl_c_while_it_is_built(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small(tmp_path / "here")

    def say(line: str) -> None:
        if "4/4" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install(read_record(str(path)), say=say)
    assert installed() == []


def test_one_at_a_time(home: Path, tmp_path: Path) -> None:
    record = read_record(str(small(tmp_path / "here")))
    folder = find_environment(record).folder
    folder.parent.mkdir(parents=True)
    with (
        FileLock(folder.parent / f".{folder.name}.lock"),
        pytest.raises(RewardError, match="another process is building"),
    ):
        install(record, say=str)


def test_a_slip_in_an_option_leaves_the_environment_that_is_there(home: Path, tmp_path: Path) -> None:
    record = read_record(str(small(tmp_path / "a folder")))
    assert not_installed(record) == f"pagopt rewards install '{record.path}'"
    install(record, say=str)
    for options, says in [
        ({"installer": "pipp"}, "installer is 'pipp'"),
        ({"python": "python9"}, "takes pagopt's own Python, not python9"),
        ({"constraint": tmp_path / "none.txt"}, r"there is no constraints file .*none\.txt"),
    ]:
        with pytest.raises(RewardError, match=says):
            install(record, force=True, say=str, **options)  # type: ignore[arg-type]
        assert find_environment(record).ready
    with pytest.raises(RewardError, match=r"cannot make an environment in .*gain.yaml.environments: Not a directory"):
        install(record, folder=record.path, say=str)


def test_the_python_that_is_asked_for(home: Path, tmp_path: Path) -> None:
    path = small(tmp_path / "here")
    with pytest.raises(RewardError, match=r"inherits pagopt's own packages, so it takes pagopt's own Python, not /usr"):
        install(read_record(str(path)), python="/usr/bin/python3", say=str)
    path.write_text(path.read_text().replace("inherit: true", "python: '>=3.6'"))
    (tmp_path / "python").write_text("#!/bin/sh\necho 2.7.18\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(RewardError, match=r"needs Python >=3.6; here: 2.7.18. Install one"):
        install(read_record(str(path)), python=str(tmp_path / "python"), say=str)
    with pytest.raises(RewardError, match=r"needs Python >=3.6; here: .*nowhere is none"):
        install(read_record(str(path)), python=str(tmp_path / "nowhere"), say=str)
    with pytest.raises(RewardError, match="installer is 'conda'; it must be auto, pip, or uv"):
        install(read_record(str(path)), installer="conda", say=str)


def test_pins_replace_requirements() -> None:
    needed, alone = _pinned(["torch==2.13.0", "tqdm"], ["Some_Thing>=1"], ["torch==2.6.0", "numpy<2", "some.thing==3"])
    assert needed == ["torch==2.6.0", "tqdm", "numpy<2"]
    assert alone == ["some.thing==3"]


def test_where_home_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAGOPT_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("PAGOPT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert home() == tmp_path / "cache" / "pagopt"
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / "Library/Caches/pagopt"


def test_names_without_a_record(home: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RewardError, match=r"unknown record 'gain'.*A name of your own is known after `pagopt rewards"):
        load_reward("isolated", record="gain")
    monkeypatch.setenv("PAGOPT_HOME", str(built / "home"))
    assert own_keys([RewardSpec("isolated", args={"record": "gain"})]) == [load_reward("isolated", record="gain").key()]
    moved = (built / "gain.yaml").rename(built / "moved.yaml")
    try:
        with pytest.raises(RewardError, match=r"cannot read the record .*gain.yaml"):
            load_reward("isolated", record="gain")
    finally:
        moved.rename(built / "gain.yaml")


def test_the_shipped_rewards_say_what_is_missing(home: Path) -> None:
    from pagopt.reward import describe_rewards

    described = {info.name: info for info in describe_rewards()}
    for name in ("image-reward", "hpsv2", "hpsv3"):
        assert described[name].missing == f"pagopt rewards install {name}"
        with pytest.raises(
            RewardError, match=f"{name} has no environment yet. Build it: pagopt rewards install {name}"
        ):
            load_reward(name, weights="/nowhere")
    with pytest.raises(RewardError, match=r"version is one of 2.0, 2.1, not '3'"):
        load_reward("hpsv2", version="3")


def test_a_reward_is_not_pickled_with_its_process(gain: str) -> None:
    reward = load_reward("isolated", record=gain)
    reward([RED], ["p"])
    assert os.getpid() == reward.worker._life.owner  # type: ignore[attr-defined]
    assert reward.worker.__getstate__()["_life"] is None  # type: ignore[attr-defined]
