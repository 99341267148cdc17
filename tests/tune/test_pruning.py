"""The pruner that compares trials on the same tasks, beside Optuna's."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from pagopt.tuning.methods import PRUNERS, Paired, check_pruner, make_pruner

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
TASKS = [9.0, 8.0, 9.5, 8.5, 7.5, 1.0, 2.0, 1.5, 0.5, 2.5]  # easy ones first


def study_with(pruner: optuna.pruners.BasePruner, direction: str = "maximize") -> optuna.Study:
    """One complete trial whose objective on the tasks is ``TASKS``; less where less is better."""
    study = optuna.create_study(direction=direction, pruner=pruner)
    sign = 1 if direction == "maximize" else -1
    values = {task: sign * value for task, value in enumerate(TASKS)}
    study.add_trial(create_trial(value=sum(values.values()) / len(values), intermediate_values=values))
    return study


def stops(study: optuna.Study, differences: list[float]) -> bool:
    """Whether a trial is stopped that differs so from the complete one on the first tasks."""
    trial, sign = study.ask(), 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    for task, difference in enumerate(differences):
        trial.report(sign * (TASKS[task] + difference), task)
    return trial.should_prune()


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_easy_tasks_first_do_not_keep_a_trial_that_is_behind(direction: str) -> None:
    behind = [-0.5, -0.6, -0.4, -0.7, -0.3]
    assert not stops(study_with(optuna.pruners.WilcoxonPruner(), direction), behind), "or ours is not needed any more"
    assert stops(study_with(Paired(), direction), behind)
    assert not stops(study_with(Paired(), direction), [-difference for difference in behind])
    assert not stops(study_with(Paired(), direction), behind[:3]), "three tasks are no evidence"


def test_who_is_ahead_on_the_mean_goes_on() -> None:
    """As with Optuna's: behind on most tasks, but far ahead on one."""
    assert not stops(study_with(Paired(p_threshold=0.5)), [-0.5, -0.6, -0.4, -0.7, 9.0])


def test_it_compares_with_the_best_that_keeps_to_the_constraints() -> None:
    study = study_with(make_pruner("wilcoxon", {}))
    assert isinstance(study.pruner, Paired)
    loud = create_trial(value=90.0, intermediate_values={task: value + 80 for task, value in enumerate(TASKS)})
    loud.set_constraint("clip", 1.0)
    study.add_trial(loud)
    assert study.best_trial.number == 0
    assert not stops(study, [0.5, 0.6, 0.4, 0.7, 0.3])
    assert stops(study, [-0.5, -0.6, -0.4, -0.7, -0.3])


def test_with_nothing_to_compare_with_it_stops_nothing() -> None:
    study = optuna.create_study(direction="maximize", pruner=Paired())
    assert not stops(study, [-5.0] * 5)
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={0: 99.0}))
    assert not stops(study, [-5.0] * 5)


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_works_by_its_name_alone(name: str) -> None:
    check_pruner(name, {})
    stops(study_with(make_pruner(name, {})), [-5.0] * 5)


def test_the_percentile_is_the_best_quarter_unless_it_is_given() -> None:
    for options, stopped in (({}, True), ({"percentile": 50}, False)):
        study = optuna.create_study(direction="maximize", pruner=make_pruner("percentile", options))
        for value in range(8):
            study.add_trial(create_trial(value=float(value), intermediate_values={0: float(value)}))
        trial = study.ask()
        trial.report(4.5, 0)
        assert trial.should_prune() == stopped
