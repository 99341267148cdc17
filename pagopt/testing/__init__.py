"""For authors of rewards: the checks that every shipped reward passes, for your own tests.

::

    from pagopt.testing import RewardContract
    from my_package import Warmth

    class TestWarmth(RewardContract):
        reward = Warmth
        arguments = {"gain": 2.0}
        other_arguments = ({"gain": 3.0},)

pytest runs the inherited ``test_...`` methods. With unittest write ``class TestWarmth(RewardContract, TestCase)``.
Without either, ``TestWarmth().check()`` runs them all and says everything that is wrong.
"""

from __future__ import annotations

from pagopt.testing.contract import RewardContract
from pagopt.testing.pictures import example_pictures

__all__ = ["RewardContract", "example_pictures"]
