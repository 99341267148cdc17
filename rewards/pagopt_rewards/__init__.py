"""The rewards that come with pagopt, one a file, written exactly as a user would write one."""

from __future__ import annotations
