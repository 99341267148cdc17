"""Study and tuning files on the command line: what is wrong with one is said by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, get_loader

from pagopt.errors import PagoptError, StudyError, UnknownName
from pagopt.reward import specs_of
from pagopt.study import available_studies
from pagopt.tuning import Tuning, available_tunings

__all__ = ["as_config", "explained"]

TUNING = set(Tuning.__dataclass_fields__) - {"study"}
"""Keys that a tuning has and a study has not."""


def as_config(file: Path, command: ArgumentParser) -> str:
    """What ``--config`` takes for a file: its text, without what a finished run wrote there for itself.

    Args:
        file: A study, a tuning, or the ``config.yaml`` of a search.
        command: Whose options the keys are.

    Raises:
        StudyError: If it is no YAML with options by name, or of another command.
        UnknownName: For a key that is no option.
    """
    try:
        data = get_loader("yaml")(file.read_text(encoding="utf-8"))  # to which 1e-1 is a number, as to the parser
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"cannot read {file}: {error}") from error
    except yaml.YAMLError as error:
        raise StudyError(f"{file} is no valid YAML: {error}") from error
    if not isinstance(data, dict):
        what = "is empty" if data is None else f"holds {type(data).__name__} and no options by name"
        raise StudyError(f"{file} {what}; `pagopt init my_style` writes a study to start from")
    if {"study", "precision"} <= data.keys():  # what a search keeps of itself
        del data["study"]
        if (precision := data.pop("precision")) != "32-true":
            data["trainer"] = {"precision": precision}
    known = {action.dest.partition(".")[0] for action in command._actions} - {"help", "config"}
    for key in data:
        if key in TUNING - known:
            raise StudyError(f"{file} is a tuning (it has {key}): `pagopt tune {file}` runs it")
        if str(key).partition(".")[0] not in known:
            raise UnknownName(f"option in {file}:", str(key), sorted(known))
    return yaml.safe_dump(_read(data, file), sort_keys=False)


def _read(data: dict[str, Any], file: Path) -> dict[str, Any]:
    """The same, with one term written as a list of one.

    Mistakes that a parser would tell in its own words are told here.
    """
    for key in ("reward", "watch", "objectives", "constraints"):
        terms = data.get(key)
        if isinstance(terms, dict) or (isinstance(terms, str) and key in TUNING):
            terms = data[key] = [terms]
        for term in terms if isinstance(terms, list) else ():
            try:
                specs_of([term])
            except PagoptError as error:
                raise StudyError(f"{key} in {file}: {error}") from error
            if key == "constraints" and not isinstance(term, dict):
                raise StudyError(
                    f"constraints in {file}: {term!r} says no limit; write {{name: {term}, at_least: baseline}}"
                )
    for key in ("prompts", "held_out_prompts"):
        prompts = data.get(key)
        if isinstance(prompts, str):
            raise StudyError(f"{key} in {file} is one text; a list is written as {key}: [{prompts}]")
        for prompt in prompts if isinstance(prompts, list) else ():
            if not isinstance(prompt, str):
                raise StudyError(f"{key} in {file}: {prompt!r} is no text for YAML; put the prompt into quotes")
    return data


def explained(error: UnknownName, name: str, command: str) -> UnknownName | StudyError:
    """An unknown study, said better: it may be a file, or of another command.

    Args:
        error: What was to be said.
        name: The study's.
        command: The command, such as "search".
    """
    for suffix in (".yaml", ".yml"):
        if Path(name + suffix).is_file():
            return StudyError(f"there is no shipped study {name}, but a file: pagopt {command} {name}{suffix}")
    if command != "tune" and name in set(available_tunings()) - set(available_studies()):
        return StudyError(f"{name} is a tuning: `pagopt tune {name}` runs it")
    return error
