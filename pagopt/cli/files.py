"""Study and tuning files on the command line: what is wrong with one is said by its name."""

from __future__ import annotations

from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from pagopt.errors import StudyError, UnknownName
from pagopt.reward import RewardSpec
from pagopt.study import available_studies
from pagopt.tuning import Tuning, available_tunings

__all__ = ["as_config", "explained"]

TUNING = set(Tuning.__dataclass_fields__) - {"study"}
"""Keys that a tuning has and a study has not."""


def as_config(file: Path, command: ArgumentParser) -> str:
    """What ``--config`` takes for a file: its path, or its text where a finished run wrote it.

    Args:
        file: A study, a tuning, or the ``config.yaml`` of a search.
        command: Whose options the keys are.

    Raises:
        StudyError: If it is no YAML with options by name, or of another command.
        UnknownName: For a key that is no option.
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"cannot read {file}: {error}") from error
    except yaml.YAMLError as error:
        raise StudyError(f"{file} is no valid YAML: {error}") from error
    if not isinstance(data, dict):
        what = "is empty" if data is None else f"holds {type(data).__name__} and no options by name"
        raise StudyError(f"{file} {what}; `pagopt init my_style` writes a study to start from")
    ran = {"study", "precision"} <= data.keys()  # what a search keeps of itself
    if ran:
        del data["study"]
        if (precision := data.pop("precision")) != "32-true":
            data["trainer"] = {"precision": precision}
    known = {action.dest.partition(".")[0] for action in command._actions} - {"help", "config"}
    for key in data:
        if key in TUNING - known:
            raise StudyError(f"{file} is a tuning (it has {key}): `pagopt tune {file}` runs it")
        if str(key).partition(".")[0] not in known:
            raise UnknownName(f"option in {file}:", str(key), sorted(known))
    for key in ("reward", "watch"):
        terms = data.get(key)
        for term in terms if isinstance(terms, list) else [terms]:
            for word in term if isinstance(term, dict) else ():
                if word not in RewardSpec.__dataclass_fields__:
                    raise UnknownName(f"key of a {key} in {file}:", str(word), RewardSpec.__dataclass_fields__)
    return yaml.safe_dump(data, sort_keys=False) if ran else str(file)


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
