"""Rewards: any judgement of images, higher is better, one number an image."""

from __future__ import annotations

from pagopt.reward.loading import RewardInfo, as_reward, available_rewards, describe_rewards, load_reward
from pagopt.reward.objective import Objective, rewards_by_label
from pagopt.reward.own import code_in, own_keys
from pagopt.reward.protocol import FunctionReward, Reward
from pagopt.reward.spec import RewardSpec, check_terms, specs_of

__all__ = [
    "FunctionReward",
    "Objective",
    "Reward",
    "RewardInfo",
    "RewardSpec",
    "as_reward",
    "available_rewards",
    "check_terms",
    "code_in",
    "describe_rewards",
    "load_reward",
    "own_keys",
    "rewards_by_label",
    "specs_of",
]
