"""Tunings that ship with pagopt (`pagopt tune NAME`): one YAML file each, with only what differs from the defaults."""
