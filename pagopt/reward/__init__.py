"""Rewards: any judgement of images, higher is better, one number an image."""

from __future__ import annotations

from pagopt.reward.loading import RewardInfo, available_rewards, describe_rewards, load_reward
from pagopt.reward.objective import Objective, RewardSpec, check_terms
from pagopt.reward.protocol import FunctionReward, Reward

__all__ = [
    "FunctionReward",
    "Objective",
    "Reward",
    "RewardInfo",
    "RewardSpec",
    "available_rewards",
    "check_terms",
    "describe_rewards",
    "load_reward",
]
