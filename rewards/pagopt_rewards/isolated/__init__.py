"""Packages that need an environment of their own: a YAML record each, and how it is called.

The Python files run in those environments, under a worker, and import nothing of pagopt.
"""

from __future__ import annotations
