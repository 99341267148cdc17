"""Records: what a YAML file may say, and what is told apart by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pagopt.errors import RewardError, UnknownName
from pagopt.isolated import Record, available_records, read_record

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(**values: object) -> Path:
        (tmp_path / "f.py").touch()
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({"name": "tiny", "scorer": "f.py:f", **values}))
        return path

    return file


def test_all_fields(write: Write, tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"1")
    (tmp_path / "repair.py").touch()
    path = write(
        requirements=["a==1", "./x.whl"],
        no_deps=["b"],
        copy=[["a/b.txt", "c/"]],
        before=["repair.py"],
        python=">=3.9",
        inherit=True,
        variables={"A": "1"},
        summary="Tiny",
    )
    record = read_record(str(path))
    assert record == Record(
        "tiny",
        "f.py:f",
        ("a==1", "./x.whl"),
        ("b",),
        (("a/b.txt", "c/"),),
        ("repair.py",),
        ">=3.9",
        True,
        {"A": "1"},
        "Tiny",
        path,
    )
    assert record.resolved(record.requirements) == ["a==1", str(tmp_path / "x.whl")]
    assert record.start({"gain": 2}, "cuda:1") == {
        "scorer": f"{tmp_path / 'f.py'}:f",
        "before": [str(tmp_path / "repair.py")],
        "args": {"gain": 2},
        "device": "cuda:1",
    }
    assert read_record(str(write(scorer="package.module:f"))).target == "package.module:f"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "a b"}, "the name 'a b' must be letters"),
        ({"name": "../x"}, "must be letters"),
        ({"scorer": "f.py"}, "the scorer is 'f.py'; write 'file.py:name'"),
        ({"scorer": "g.py:f"}, "there is no file .*g.py; paths are relative to the record"),
        ({"before": ["g.py"]}, "there is no file .*g.py"),
        ({"requirements": ["-r file"]}, "'-r file' is an option of pip"),
        ({"requirements": ["./y.whl"]}, "there is no .*y.whl"),
        ({"requirements": "torch"}, "requirements is 'torch'; it must be a list of texts"),
        ({"no_deps": [1]}, r"no_deps is \[1\]; it must be a list of texts"),
        ({"copy": [["a"]]}, "must be a list of pairs of paths"),
        ({"copy": [["../a", "b"]]}, "inside site-packages, not ../a"),
        ({"copy": [["a", "/b"]]}, "inside site-packages, not /b"),
        ({"inherit": 1}, "inherit is 1; it must be true or false"),
        ({"variables": {"A": 1}}, "must be names with texts"),
        ({"python": 3.9}, "python is 3.9; it must be a text"),
        ({"name": 5}, "name is 5; it must be a text"),
        ({"requirement": []}, "unknown field 'requirement'. Did you mean 'requirements'"),
    ],
)
def test_what_makes_no_sense(write: Write, values: dict[str, object], says: str) -> None:
    with pytest.raises(RewardError, match=says) as caught:
        read_record(str(write(**values)))
    assert "tiny.yaml" in str(caught.value)


def test_files_that_are_no_record(tmp_path: Path) -> None:
    for text, says in [
        ("- a", "holds a list, not a record"),
        ("name: tiny", "a record needs a scorer"),
        ("a: [", "is no YAML"),
    ]:
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(RewardError, match=says):
            read_record(str(tmp_path / "x.yaml"))
    with pytest.raises(RewardError, match=r"cannot read the record .*y.yaml: No such file"):
        read_record(str(tmp_path / "y.yaml"))
    with pytest.raises(UnknownName, match=r"unknown record 'hpsv4'. Did you mean 'hpsv\d'.* A path to a YAML file"):
        read_record("hpsv4")


def test_what_needs_a_new_environment_and_what_only_new_scores(write: Write, tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"1")
    (tmp_path / "folder" / "__pycache__").mkdir(parents=True)
    (tmp_path / "folder" / "a.py").write_text("1")
    base: dict[str, object] = {"requirements": ["a==1", "./x.whl", "./folder"]}
    record = read_record(str(write(**base)))
    digest, identity = record.digest(), record.identity()

    def changed(**values: object) -> tuple[bool, bool]:
        other = read_record(str(write(**{**base, **values})))
        return other.digest() != digest, other.identity() != identity

    assert changed() == (False, False)
    assert changed(summary="other") == (False, False)
    assert changed(requirements=["a==2", "./x.whl", "./folder"]) == (True, True)
    assert changed(no_deps=["c"]) == (True, True)
    assert changed(copy=[["a", "b"]]) == (True, True)
    assert changed(inherit=True) == (True, True)
    assert changed(variables={"A": "1"}) == (False, True)
    (tmp_path / "f.py").write_text("# another scorer\n")
    assert changed() == (False, True)
    (tmp_path / "f.py").write_text("")
    (tmp_path / "folder" / "__pycache__" / "a.pyc").write_text("1")
    assert changed() == (False, False)
    (tmp_path / "folder" / "a.py").write_text("2")
    assert changed() == (True, True)
    (tmp_path / "folder" / "a.py").write_text("1")
    (tmp_path / "x.whl").write_bytes(b"2")
    assert changed() == (True, True)


def test_the_shipped_records_are_whole() -> None:
    known = available_records()
    assert list(known) == ["hpsv2", "hpsv3", "image-reward"]
    for name, path in known.items():
        record = read_record(name)
        assert record.name == name == path.stem
        assert record.summary
        assert "==" in " ".join([*record.requirements, *record.no_deps])
        for file in record.files():
            assert "pagopt." not in file.read_text(encoding="utf-8")
            compile(file.read_text(encoding="utf-8"), str(file), "exec")


def test_two_packages_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("brings_a", "brings_b"):
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[pagopt.isolated]\n{package} = {package}\n")
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "f.py").touch()
        (tmp_path / package / "warm.yaml").write_text("name: warm\nscorer: f.py:f\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RewardError, match=r"two records are called 'warm': .*brings_a.*and .*brings_b.*Give the path"):
        available_records()
    assert read_record(str(tmp_path / "brings_b" / "warm.yaml")).target.endswith("brings_b/f.py:f")
    (tmp_path / "brings_b-1.0.dist-info" / "entry_points.txt").write_text("[pagopt.isolated]\nb = brings_nothing\n")
    with pytest.raises(RewardError, match=r"'b' of brings_b in the group pagopt\.isolated names 'brings_nothing'"):
        available_records()
