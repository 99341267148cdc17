"""``pagopt studies``: the studies and tunings that are installed, with what each finds, costs and found."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from rich.padding import Padding
from rich.text import Text

from pagopt.cli.parsing import new_parser
from pagopt.cli.printing import new_console
from pagopt.errors import PagoptError, UnknownName
from pagopt.models import has_weights
from pagopt.reward import describe_rewards

__all__ = ["StudyInfo", "describe_studies", "main", "parser", "read_header"]

DESCRIPTION = """List the installed studies and tunings: what each looks for, on which model, what it costs, and what it
found. Nothing is run, and no model is loaded.

  pagopt search NAME       run a study
  pagopt tune NAME         run a tuning
  pagopt plan NAME         what it will cost on this machine
  pagopt init NAME         write a study of your own to start from

A package of yours adds its own: an entry point of the group `pagopt.studies` or `pagopt.tunings` that names a package
with YAML files.
"""

GROUPS = {"pagopt.studies": "search", "pagopt.tunings": "tune"}
OWN_PACKAGE = "pagopt"
COST, RESULT = "cost:", "result:"


@dataclass(frozen=True)
class StudyInfo:
    """One line of ``pagopt studies``.

    Attributes:
        name: What to write after the command.
        kind: The command: "search" or "tune".
        model: The model.
        objective: The rewards, in words.
        finds: What it looks for: the first paragraph of the file's comment.
        command: How its author runs it.
        cost: The paragraph of the comment that begins with "Cost:".
        result: The one that begins with "Result:".
        missing: What is not on this machine yet; empty when it is ready.
        package: The distribution that brings it, with its version.
        file: The YAML file.
    """

    name: str
    kind: str
    model: str
    objective: str
    finds: str
    command: str
    cost: str
    result: str
    missing: str
    package: str
    file: str


def parser() -> ArgumentParser:
    """All options."""
    command = new_parser("pagopt studies", "[STUDY] [--json]", DESCRIPTION)
    command.add_argument("name", type=str, nargs="?", help="Only this one, with its YAML.")
    command.add_argument("--json", action="store_true", help="Print JSON, for scripts.")
    return command


def main(words: list[str]) -> None:
    """Print the list."""
    options = parser().parse_args(words)
    infos = describe_studies()
    if options.name is not None:
        chosen = [info for info in infos if info.name == options.name]
        if not chosen:
            raise UnknownName("study or tuning", options.name, [info.name for info in infos])
        infos = chosen
    if options.json:
        print(json.dumps([_row(info) for info in infos], ensure_ascii=False, indent=1))
    elif options.name is not None:
        for info in infos:
            print(Path(info.file).read_text(encoding="utf-8"), end="")
    else:
        print_list(infos)


def describe_studies() -> list[StudyInfo]:
    """All installed studies, then all tunings, those of pagopt first; a file that cannot be read says so."""
    rewards = {info.name: info.missing for info in describe_rewards()}
    infos = [
        _describe(file, kind, point, rewards)
        for group, kind in GROUPS.items()
        for point in entry_points(group=group)
        for file in sorted(resources.files(point.value).iterdir(), key=lambda file: file.name)
        if file.name.endswith(".yaml")
    ]
    return sorted(infos, key=lambda info: (info.kind, _package(info) != OWN_PACKAGE, _package(info), info.name))


def read_header(text: str) -> dict[str, str]:
    """The comment on top of a study: its paragraphs, each as one line.

    Returns:
        ``finds`` (the first paragraph), ``command`` (the line that begins with ``pagopt``), ``cost`` and ``result``
        (the paragraphs that begin with "Cost:" and "Result:"); empty where there is none.
    """
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", "\n".join(lines)) if part.strip()]
    found = {"finds": "", "command": "", "cost": "", "result": ""}
    for number, paragraph in enumerate(paragraphs):
        start = paragraph.partition(" ")[0].lower()
        if start == "pagopt":
            found["command"] = found["command"] or paragraph
        elif start in (COST, RESULT):
            found[start.removesuffix(":")] = paragraph.partition(" ")[2]
        elif number == 0:
            found["finds"] = paragraph
    return found


def print_list(infos: Sequence[StudyInfo]) -> None:
    """In groups: those that are ready, and those that need something first."""
    console = new_console()
    for title, group in (
        ("Ready", [info for info in infos if not info.missing]),
        ("Need something first", [info for info in infos if info.missing]),
    ):
        if not group:
            continue
        console.print(Text(title, "bold underline"))
        for info in group:
            package = _package(info)
            head = Text(f"pagopt {info.kind} ", "dim") + Text(info.name, "bold") + Text(f"  {info.model}")
            head += Text(f", {info.objective}") if info.objective else Text()
            console.print(head + Text(f"  from {info.package}" if package != OWN_PACKAGE else "", "dim"))
            lines = (info.finds, info.cost and f"cost: {info.cost}", info.result and f"result: {info.result}")
            for line in filter(None, lines):
                console.print(Padding(Text(line), (0, 0, 0, 4), expand=False))
            if info.missing:
                console.print(Padding(Text(f"needs: {info.missing}", "yellow"), (0, 0, 0, 4), expand=False))
        console.print()
    console.print(Text("Your own", "bold underline"))
    console.print(Text("pagopt init NAME", "bold") + Text("  writes a commented one to start from"))


def _row(info: StudyInfo) -> dict[str, Any]:
    return {**dataclasses.asdict(info), "ready": not info.missing}


def _package(info: StudyInfo) -> str:
    return info.package.partition(" ")[0]


def _describe(file: Any, kind: str, point: EntryPoint, rewards: Mapping[str, str]) -> StudyInfo:
    dist = point.dist
    package = f"{dist.name} {dist.version}" if dist is not None else ""
    name = file.name.removesuffix(".yaml")
    try:
        text = file.read_text(encoding="utf-8")
        data = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        data, text, broken = {}, "", f"a file that can be read: {str(error).splitlines()[0]}"
    else:
        broken = "" if isinstance(data, dict) else "a file that holds a study: this one is no mapping"
        data = data if isinstance(data, dict) else {}
    model = str(data.get("model", "emoji"))
    terms = [term for key in ("reward", "objectives", "constraints", "watch") for term in _terms(data.get(key))]
    missing = broken or "; ".join(dict.fromkeys(filter(None, (_model(model), *(_reward(t, rewards) for t in terms)))))
    facts = read_header(text)
    return StudyInfo(name, kind, model, _objective(data), **facts, missing=missing, package=package, file=str(file))


def _terms(given: Any) -> list[dict[str, Any]]:
    """Rewards of a study as mappings, whichever way they are written."""
    items = given if isinstance(given, list) else [given] if given else []
    terms = [item if isinstance(item, dict) else {"name": str(item)} for item in items]
    return [term for term in terms if term.get("name") not in {"cost", "diversity"}]


def _objective(data: Mapping[str, Any]) -> str:
    items = [_words(term) for term in _terms(data.get("reward"))]
    combine = data.get("combine", "sum")
    text = " and ".join(items) + (f" ({combine})" if len(items) > 1 and combine != "sum" else "")
    further = [item if isinstance(item, str) else item.get("name", "") for item in data.get("objectives") or []]
    text += "".join(f" against {name}" for name in further)
    limits = [_words(term) for term in _terms(data.get("constraints"))]
    return text + (f", with {' and '.join(limits)}" if limits else "")


def _words(term: Mapping[str, Any]) -> str:
    weight = term.get("weight", 1)
    words = str(term.get("name")) if weight == 1 else f"{weight:g} x {term.get('name')}"
    for kind, sign in (("at_least", "at least"), ("at_most", "at most")):
        if kind in term:
            words += f" {sign} {term[kind]}"
    return words


def _model(name: str) -> str:
    try:
        return "" if has_weights(name) else f"the weights of {name}"
    except PagoptError as error:
        return str(error)


def _reward(term: Mapping[str, Any], rewards: Mapping[str, str]) -> str:
    """What a reward still needs."""
    name, args = str(term.get("name")), term.get("args") or {}
    if name not in rewards:
        own = ":" in name
        return "" if own else f"the reward {name}, which is not installed"
    given = [args[key] for key in ("weights", "model") if args.get(key)]
    if not given or given == ["emoji"]:
        return f"{name}: {rewards[name]}" if rewards[name] else ""
    return "; ".join(f"{name}: the weights of {one}" for one in given if not _is_here(str(one)))


def _is_here(model: str) -> bool:
    """Whether a file, a folder, or a repository of the hub is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    if model == "emoji" or Path(model).expanduser().exists():
        return True
    files: Iterable[str] = ("model.safetensors", "model.safetensors.index.json")
    return model.count("/") == 1 and any(isinstance(try_to_load_from_cache(model, file), str) for file in files)
