"""Checkpoints: found, read without running what is in them, refused when they are another model's."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from published import cache_on_hub
from safetensors.torch import save_file

from pagopt.errors import RewardError
from pagopt.reward import identity
from pagopt_rewards.weights import (
    check_tensors,
    checkpoint,
    code_fingerprint,
    fingerprint,
    published_file,
    read_weights,
    tensors_fingerprint,
    uncached,
)


class Hostile:
    """An object whose loading runs a command, as any pickle may."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("wrapped", ["{}", "state_dict", "model", "module", "safetensors", "legacy"])
def test_tensors_are_read_from_every_layout(wrapped: str, tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(1, dtype=torch.float16)}
    path = tmp_path / ("x.safetensors" if wrapped == "safetensors" else "x.pt")
    if wrapped == "safetensors":
        save_file(tensors, path)
    elif wrapped == "legacy":
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"epoch": 3, wrapped: tensors} if wrapped != "{}" else {**tensors, "epoch": 3}, path)
    read = read_weights(path)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in tensors)


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(save: str, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pt"
    content = {"state_dict": {"a": torch.zeros(2)}, "more": Hostile(trace)}
    if save == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(RewardError, match=r"evil\.pt holds more than tensors, and loading it could run code"):
        read_weights(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if save == "torch" else pickle.loads(path.read_bytes())
    assert trace.exists()  # it would have


def test_damaged_and_empty_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "half.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(RewardError, match=r"half\.pt"):
        read_weights(path)
    (tmp_path / "half.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(RewardError, match=r"cannot read .*half\.safetensors as a checkpoint"):
        read_weights(tmp_path / "half.safetensors")
    torch.save([torch.zeros(2)], path)
    with pytest.raises(RewardError, match="holds a list, not named tensors"):
        read_weights(path)
    torch.save({"epoch": 1}, path)
    with pytest.raises(RewardError, match="holds no tensors"):
        read_weights(path)
    with pytest.raises(RewardError, match="cannot read"):
        read_weights(tmp_path / "nothing.pt")


def test_another_models_tensors_are_listed() -> None:
    tensors = {"a": torch.zeros(2), "b": torch.zeros(2, 3), "x": torch.zeros(1)}
    check_tensors(tensors, {"a": [2], "b": (2, 3), "x": torch.Size([1])}, Path("f.pt"), "it")
    with pytest.raises(RewardError) as caught:
        check_tensors(tensors, {"a": (2,), "b": (3, 2), "c": (), "d": (), "e": (), "f": ()}, Path("f.pt"), "HPS")
    assert str(caught.value) == (
        "f.pt is no checkpoint of HPS: 4 of 6 tensors are missing (c, d, e, ...); 1 of 3 tensors do not belong to it "
        "(x); 1 of 6 tensors have another shape (b (2, 3) instead of (3, 2)). Give the file made for that model."
    )


def test_a_checkpoint_is_a_file_or_in_a_folder_or_in_the_hubs_cache(tmp_path: Path, offline: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"1")
    assert checkpoint(str(tmp_path / "w.pt"), "a/b", "other.pt") == tmp_path / "w.pt"
    assert checkpoint(str(tmp_path), "a/b", "w.pt") == tmp_path / "w.pt"
    for location in (tmp_path, tmp_path / "no.pt"):
        with pytest.raises(RewardError, match=r"no checkpoint .*no\.pt\. Download no\.pt from https://hugg.*/a/b"):
            checkpoint(str(location), "a/b", "no.pt")
    with pytest.raises(RewardError, match=r"the hub does not give w\.pt of a/b.*Without a network.*`weights`"):
        checkpoint(None, "a/b", "w.pt")
    assert uncached("a/b", "w.pt", "3.9 GB") == "w.pt of a/b (3.9 GB) is not here yet: downloaded on first use"
    snapshot = cache_on_hub(offline, "a/b", tmp_path / "w.pt")
    assert checkpoint(None, "a/b", "w.pt") == snapshot / "w.pt"
    assert uncached("a/b", "w.pt") == ""


def test_a_published_file_is_kept_and_its_digest_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    source = tmp_path / "a+b.pth"
    source.write_bytes(b"weights")
    url = tmp_path.as_uri() + "/a%2Bb.pth"
    digest = hashlib.sha256(b"weights").hexdigest()
    assert published_file(str(tmp_path), url, digest) == published_file(str(source), url, digest) == source
    with pytest.raises(RewardError, match=r"no checkpoint .*a\+b\.pth\. Download file:"):
        published_file(str(tmp_path / "cache" / "a+b.pth"), url, digest)
    with pytest.raises(RewardError, match=r"cannot download.*invalid hash value.*`weights`"):
        published_file(None, url, "0" * 64)
    assert not (tmp_path / "cache" / "checkpoints" / "a+b.pth").exists()
    kept = published_file(None, url, digest)
    assert kept.read_bytes() == b"weights"
    source.unlink()
    assert published_file(None, url, digest) == kept
    kept.unlink()
    with pytest.raises(RewardError, match=r"cannot download .*put it at .*a\+b\.pth"):
        published_file(None, url, digest)


def test_fingerprints_see_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "WHOLE", 1000)
    path, seen = tmp_path / "w.pt", set()
    for content in (b"\0" * 10, b"\1" * 10, bytes(2**21) + b"\0" * 2**21, bytes(2**21) + b"\1" * 2**21):
        path.write_bytes(content)
        seen.add(fingerprint(path))
    assert len(seen) == 4
    for place in (None, 100 * 2**20 + 2**15, 200 * 2**20 - 100):  # a MiB of a large file, and its last bytes
        with path.open("wb") as file:
            file.truncate(200 * 2**20)
            if place is not None:
                file.seek(place)
                file.write(b"\1" * min(2**20, 200 * 2**20 - place))
        seen.add(fingerprint(path))
    assert len(seen) == 7
    tensors = {"a": torch.zeros(10000), "b": torch.zeros(3, dtype=torch.bfloat16)}
    found = [tensors_fingerprint(tensors), tensors_fingerprint({**tensors, "b": torch.ones(3, dtype=torch.bfloat16)})]
    found.append(tensors_fingerprint({"a": tensors["a"].view(100, 100), "b": tensors["b"]}))
    found.append(tensors_fingerprint({"c": tensors["a"], "b": tensors["b"]}))
    assert len(set(found)) == 4
    assert tensors_fingerprint({"b": tensors["b"], "a": tensors["a"].clone()}) == found[0]
    assert code_fingerprint("weights") != code_fingerprint("encoder") != code_fingerprint("encoder", "weights")
