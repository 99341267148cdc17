"""A worker's process: what it is sent, what it answers, and every way in which it can fail."""

from __future__ import annotations

import ast
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagopt.errors import RewardError
from pagopt.isolated import worker as script
from pagopt.isolated.client import Worker

Make = Callable[..., Worker]
PLAIN = "def f(images, prompts): return [len(prompt) for prompt in prompts]\n"


def pid(worker: Worker) -> int:
    assert worker._life is not None
    return worker._life.process.pid


def gone(process: int, seconds: float = 10) -> bool:
    """Whether a process ends in time; a dead one that nobody has waited for counts as gone."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_images_and_prompts_arrive_as_they_are(workers: Make, pictures: list[Image.Image]) -> None:
    source = """
        import hashlib
        def f(images, prompts):
            assert {image.mode for image in images} == {"RGB"}
            return [digest(image.size, image.tobytes(), prompt) for image, prompt in zip(images, prompts)]
        def digest(size, pixels, prompt):
            return int(hashlib.sha256(repr((size, pixels, prompt)).encode()).hexdigest()[:12], 16)
    """
    worker = workers(textwrap.dedent(source))
    here: dict[str, object] = {}
    exec(textwrap.dedent(source), here)
    prompts = [f"Grüße {'苹果' * index} \ud83c" for index in range(len(pictures))]  # also what is no valid text
    expected = here["f"](pictures, prompts)  # type: ignore[operator]
    assert worker.score(pictures, prompts) == expected
    assert len(set(expected)) == len(pictures)
    for size in (1, 7):
        parts = [worker.score(pictures[i : i + size], prompts[i : i + size]) for i in range(0, len(pictures), size)]
        assert [score for part in parts for score in part] == expected
    assert worker.starts == 1


def test_pipes_that_the_system_does_not_widen(
    workers: Make, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Linux answers once a user's pipes hold all that they may (``pipe-user-pages-soft``)."""
    fcntl = pytest.importorskip("fcntl")
    asked: list[int] = []

    def refuse(file: object, command: int, size: int = 0) -> int:
        asked.append(size)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert workers(PLAIN).score(pictures[:1], ["four"]) == [4]
    assert set(asked) == {2**20}


def test_a_class_is_made_once_with_arguments_and_device(workers: Make, pictures: list[Image.Image]) -> None:
    source = """
        class Scorer:
            made = 0
            def __init__(self, gain, device="?"):
                type(self).made += 1
                self.gain, self.device, self.calls = gain, device, 0
            def __call__(self, images, prompts):
                self.calls += 1
                return [self.gain, self.made, self.calls, float(self.device == "cpu")]
    """
    worker = workers(textwrap.dedent(source), "Scorer", args={"gain": 2.5})
    assert worker.score(pictures[:4], ["p"] * 4) == [2.5, 1, 1, 1]
    assert worker.score(pictures[:4], ["p"] * 4) == [2.5, 1, 2, 1]
    wrong = workers(textwrap.dedent(source), "Scorer", args={"again": 1})
    with pytest.raises(RewardError, match=r"Scorer\(gain, device='\?'\) got .*'again': 1.*: missing a required arg"):
        wrong.score(pictures[:1], ["p"])


def test_what_a_scorer_may_return(workers: Make, pictures: list[Image.Image]) -> None:
    worker = workers("import numpy, torch\ndef f(images, prompts): return eval(prompts[0])\n")
    for returned, scores in [
        ("torch.tensor([0.5, 2.0], dtype=torch.bfloat16, requires_grad=True)", [0.5, 2.0]),
        ("numpy.array([1, 2], dtype=numpy.float16)", [1, 2]),
        ("[torch.tensor(3.0), numpy.float32(4)]", [3, 4]),
        ("(True, 1)", [1, 1]),
    ]:
        assert worker.score(pictures[:2], [returned, ""]) == scores
    for returned, says in [
        ("None", "the scorer returned None, not one number an image"),
        ("0.5", "the scorer returned 0.5, not one number an image"),
        ("[[1], [2]]", "TypeError: float"),
    ]:
        with pytest.raises(RewardError, match=says):
            worker.score(pictures[:2], [returned, ""])
    assert worker.starts == 1


def test_what_the_package_prints_reaches_the_user_and_disturbs_nothing(
    workers: Make, pictures: list[Image.Image], capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
        import os, subprocess, sys
        print("while it is imported")
        def f(images, prompts):
            print("to stdout")
            os.write(1, b"PGO1 from compiled code\\n")
            subprocess.run(["echo", "from a child"])
            print("half\\rto stderr", file=sys.stderr)
            return [0.0 if sys.stdin.read() == "" else 1.0]
    """
    worker = workers(textwrap.dedent(source))
    assert worker.score(pictures[:1], [""]) == [0]
    assert worker.score(pictures[:1], [""]) == [0]
    worker.close()
    said = capsys.readouterr()
    assert said.out == ""
    for line in ("while it is imported", "to stdout", "PGO1 from compiled code", "from a child", "half", "to stderr"):
        assert f"[tiny] {line}\n" in said.err


def test_an_exception_shows_the_traceback_and_ends_nothing(workers: Make, pictures: list[Image.Image]) -> None:
    source = """
        def f(images, prompts):
            if prompts[0] == "bad":
                inner()
            return [1.0]
        def inner():
            raise LookupError("nothing here")
    """
    worker = workers(textwrap.dedent(source))
    with pytest.raises(RewardError, match=r'(?s)tiny: LookupError: nothing here\n.*scorer.py", line 7, in inner'):
        worker.score(pictures[:1], ["bad"])
    assert worker.score(pictures[:1], ["good"]) == [1]
    assert worker.starts == 1


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import nowhere_to_be_found", r"(?s)ModuleNotFoundError: No module.*scorer.py\", line 1, in <module>"),
        ("raise SystemExit(3)", r"(?s)SystemExit: 3.*scorer.py\", line 1"),
        ("print('last words')\nimport os; os._exit(5)", r"(?s)ended with status 5\..*  last words\n.*was loaded"),
        ("import faulthandler; faulthandler._sigsegv()", r"(?s)SIGSEGV.*scorer.py\", line 1 in <module>"),
        ("g = 1", "AttributeError: module '_pagopt_scorer' has no attribute 'f'"),
    ],
)
def test_a_death_at_import_shows_why(workers: Make, pictures: list[Image.Image], source: str, says: str) -> None:
    worker = workers(source)
    for _ in range(2):
        with pytest.raises(RewardError, match=says):
            worker.score(pictures[:1], [""])
    assert worker.starts == 2
    assert worker._life is None
    with pytest.raises(RewardError, match=says):
        worker.check()


def test_after_a_crash_the_batch_is_scored_again(
    workers: Make, pictures: list[Image.Image], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"""
        import os
        def f(images, prompts):
            if os.path.exists({str(tmp_path / "crash")!r}):
                os.remove({str(tmp_path / "crash")!r})
                os.abort()
            return [len(prompt) for prompt in prompts]
    """
    worker = workers(textwrap.dedent(source))
    (tmp_path / "crash").touch()
    assert worker.score(pictures[:2], ["a", "bb"]) == [1, 2]
    assert worker.starts == 2
    assert "[tiny] the worker was ended by SIGABRT. Starting it again for this batch." in capsys.readouterr().err


def test_a_batch_that_always_crashes_is_given_up(workers: Make, pictures: list[Image.Image]) -> None:
    source = """
        import os
        def f(images, prompts):
            if prompts[0] == "bad":
                print("out of luck", flush=True)
                os._exit(7)
            return [1.0]
    """
    worker = workers(textwrap.dedent(source), restarts=1)
    with pytest.raises(RewardError, match=r"(?s)died 2 times on this batch of 1 .* status 7\..*  out of luck"):
        worker.score(pictures[:1], ["bad"])
    assert worker.starts == 2
    assert worker.score(pictures[:1], ["good"]) == [1]


def test_killed_from_outside_in_the_middle_of_a_batch(workers: Make, pictures: list[Image.Image]) -> None:
    worker = workers("import time\ndef f(images, prompts):\n    time.sleep(1)\n    return [1.0]\n")
    worker.score(pictures[:1], [""])
    killed = pid(worker)
    threading.Timer(0.3, os.kill, (killed, signal.SIGKILL)).start()
    assert worker.score(pictures[:1], [""]) == [1]
    assert worker.starts == 2
    assert pid(worker) != killed


@pytest.mark.parametrize(
    "hang",
    ["time.sleep(60)", "ctypes.PyDLL(None).sleep(60)"],  # the second keeps the interpreter lock
)
def test_a_hang_ends_at_the_limit_and_shows_where(workers: Make, pictures: list[Image.Image], hang: str) -> None:
    source = f"""
        import ctypes, time
        def f(images, prompts):
            if prompts[0] == "slow":
                {hang}
            return [1.0]
    """
    worker = workers(textwrap.dedent(source), batch_seconds=1.5)
    assert worker.score(pictures[:1], [""]) == [1]
    process, began = pid(worker), time.monotonic()
    says = r'(?s)scoring 1 images took longer than 1.5 seconds.*`batch_seconds`.*scorer.py", line 5 in f'
    with pytest.raises(RewardError, match=says):
        worker.score(pictures[:1], ["slow"])
    assert time.monotonic() - began < 20
    assert gone(process)
    assert worker.score(pictures[:1], [""]) == [1]
    assert worker.starts == 2


def test_a_hang_while_it_is_loaded(workers: Make, pictures: list[Image.Image]) -> None:
    worker = workers("import time\ntime.sleep(60)\n" + PLAIN, start_seconds=0.5)
    with pytest.raises(RewardError, match=r"(?s)loading the scorer took longer than 0.5 seconds.*`start_seconds`"):
        worker.score(pictures[:1], [""])


def test_a_worker_that_does_not_even_listen(workers: Make) -> None:
    """More than a pipe holds is sent, and nobody reads it."""
    worker = workers(PLAIN, batch_seconds=1)
    worker.score([Image.new("RGB", (1, 1))], [""])
    os.kill(pid(worker), signal.SIGSTOP)
    with pytest.raises(RewardError, match="took longer than 1 seconds"):
        worker.score([Image.new("RGB", (1500, 1500))], [""])


def test_ctrl_c_ends_it(workers: Make, pictures: list[Image.Image]) -> None:
    worker = workers("import time\ndef f(images, prompts):\n    time.sleep(float(prompts[0]))\n    return [1.0]\n")
    worker.score(pictures[:1], ["0"])
    process = pid(worker)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        worker.score(pictures[:1], ["60"])
    assert gone(process)
    assert worker.score(pictures[:1], ["0"]) == [1]


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphan_when_the_parent_is_killed(tmp_path: Path, ended_by: signal.Signals) -> None:
    """Neither the worker in the middle of a batch nor what it started outlives us."""
    (tmp_path / "scorer.py").write_text("""
import subprocess, sys, time
def f(images, prompts):
    child = subprocess.Popen(["sleep", "60"])
    print("started", child.pid, flush=True)
    time.sleep(60)
""")
    code = f"""
import sys
from pathlib import Path
from PIL import Image
from pagopt.isolated.client import Worker
start = {{"scorer": "{tmp_path}/scorer.py:f", "args": {{}}, "device": "cpu", "before": []}}
worker = Worker("tiny", Path(sys.executable), start)
worker._running()
print("worker", worker._life.process.pid, file=sys.stderr, flush=True)
worker.score([Image.new("RGB", (8, 8))], [""])
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert parent.stderr is not None
    found: list[int] = []
    for line in parent.stderr:
        found += [int(line.split()[-1])] if "worker " in line or "started " in line else []
        if len(found) == 2:
            break
    parent.send_signal(ended_by)
    parent.wait()
    parent.stderr.close()
    assert all(gone(process) for process in found)


def test_it_ends_with_what_refers_to_it(workers: Make, pictures: list[Image.Image], tmp_path: Path) -> None:
    start = {"scorer": f"{tmp_path}/scorer.py:f", "args": {}, "device": "cpu", "before": []}
    (tmp_path / "scorer.py").write_text(PLAIN)
    worker = Worker("tiny", Path(sys.executable), start)
    worker.score(pictures[:1], ["abc"])
    process = pid(worker)
    copied = pickle.loads(pickle.dumps(worker))
    del worker
    assert gone(process)
    assert copied.score(pictures[:1], ["abc"]) == [3]  # in a process of its own
    copied.close()


def test_nothing_of_ours_leaks_in(
    workers: Make, pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "leak.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.chdir(tmp_path / "lib")
    worker = workers("import leak\n" + PLAIN)
    with pytest.raises(RewardError, match="No module named 'leak'"):
        worker.score(pictures[:1], [""])
    own = workers("import os, sys\ndef f(images, prompts): return [float(os.environ['GAIN']), len(sys.modules)]\n")
    own.variables["GAIN"] = "2.5"
    gain, modules = own.score(pictures[:2], ["", ""])
    assert gain == 2.5
    assert modules < 400  # neither torch nor pagopt


def test_repairs_run_first(workers: Make, pictures: list[Image.Image], tmp_path: Path) -> None:
    (tmp_path / "repair.py").write_text("import math\nmath.lost = lambda: 4.0\n")
    worker = workers(
        "from math import lost\ndef f(images, prompts): return [lost()]\n", before=[str(tmp_path / "repair.py")]
    )
    assert worker.score(pictures[:1], [""]) == [4]


def test_an_edit_of_the_same_size_in_the_same_second_counts(workers: Make, pictures: list[Image.Image]) -> None:
    source = "def f(images, prompts): return [1.0]\n"
    for number in ("1.0", "2.0"):
        worker = workers(source.replace("1.0", number))
        os.utime(worker.start["scorer"].rpartition(":")[0], (1, 1))
        assert worker.score(pictures[:1], [""]) == [float(number)]


def test_limits_that_make_no_sense(tmp_path: Path) -> None:
    for options, says in [
        ({"batch_seconds": 0}, "batch_seconds is 0"),
        ({"start_seconds": float("nan")}, "start_seconds is nan"),
        ({"batch_seconds": float("inf")}, "batch_seconds is inf; it must be a number above 0, and at most 9e"),
        ({"batch_seconds": "600"}, "batch_seconds is '600'"),
        ({"restarts": -1}, "restarts is -1"),
        ({"restarts": 1.5}, "restarts is 1.5"),
    ]:
        with pytest.raises(RewardError, match=says):
            Worker("tiny", Path(sys.executable), {}, **options)  # type: ignore[arg-type]
    absent = Worker("tiny", tmp_path / "python", {"scorer": "", "args": {}, "device": "cpu", "before": []})
    with pytest.raises(RewardError, match=r"cannot start .*python: No such file.*rewards install tiny --force"):
        absent.score([Image.new("RGB", (1, 1))], [""])


def test_old_pythons_can_read_the_script() -> None:
    ast.parse(Path(script.__file__).read_text(), feature_version=(3, 7))


def test_frames_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    with path.open("wb") as file:
        script.send(file, {"kind": "x"}, [b"ab", np.arange(3, dtype=np.uint8).tobytes()])
    with path.open("rb") as file:
        assert script.receive(file) == ({"kind": "x"}, b"ab\x00\x01\x02")
        assert script.receive(file) is None
    path.write_bytes(path.read_bytes()[:-1])
    with path.open("rb") as file:
        assert script.receive(file) is None
    path.write_bytes(b"hello, this is no frame")
    with path.open("rb") as file, pytest.raises(ValueError, match="not a frame"):
        script.receive(file)
