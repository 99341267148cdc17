"""One process of several ends before the others: a clear error, and nothing lost."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed import DistBackendError

from pagopt.errors import StudyError
from pagopt.evaluate.ranks import LAUNCHER, announced, together
from pagopt.experiment import run_study
from pagopt.results import load_results
from pagopt.store import Store, verify
from pagopt.study import Study

# The command line as it is, which also leaves the numbers of its processes.
SEARCH = """
import os, sys
from pagopt.cli import main
open(os.path.join(sys.argv[1], os.environ.get("LOCAL_RANK", "0")), "w").write(str(os.getpid()))
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    "error",
    [RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer"), DistBackendError("NCCL error")],
)
def test_what_torch_says_of_it_is_put_in_words(error: RuntimeError) -> None:
    with pytest.raises(StudyError, match=r"another process .* has ended.* What is finished is kept"), together():
        raise error
    with pytest.raises(RuntimeError, match="mat1 and mat2"), together():
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_what_lightning_says_of_it_is_put_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """By Lightning's own observer, with a process that has ended; only the end of this one is left out."""
    from lightning.fabric.strategies.launchers import subprocess_script

    announced()
    announced()
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    ended.wait()
    observer = subprocess_script._ChildProcessObserver(main_pid=0, child_processes=[ended])
    observer._terminate_all = lambda: None  # type: ignore[method-assign]
    assert observer._run()
    said = capsys.readouterr().err
    assert said.count("error: another process of this run has ended (status 3), so all of them do.") == 1
    assert len(logging.getLogger(LAUNCHER).filters) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_dies_ends_the_run_and_the_next_start_goes_on(
    study: Study, study_file: Path, tmp_path: Path
) -> None:
    whole = run_study(study, "tiny", tmp_path / "whole", trainer={"accelerator": "cpu"})
    out, store = tmp_path / "run", tmp_path / "run" / "store"
    words = ["search", str(study_file), "--out", str(out), "--batch_size", "2", "--trainer.accelerator", "cpu"]
    script = tmp_path / "search.py"  # a file, since the first process starts the second by its name
    script.write_text(SEARCH)
    words = [sys.executable, str(script), str(tmp_path), *words, "--trainer.devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while len(list(store.rglob("*.webp"))) < 9:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(int((tmp_path / "1").read_text()), signal.SIGKILL)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    assert "error: another process of this run has ended" in errors
    assert "the same command goes on" in errors
    with Store(store, read_only=True) as kept:
        assert verify(kept).clean
        before = kept.counts()["images"]
    assert before >= 9
    again = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert again.returncode == 0, again.stderr
    results = load_results(out / "results.json")
    assert results.recipe == whole.recipe
    assert results.images_generated <= whole.images_generated - before + 4, "at most the batches in flight again"
