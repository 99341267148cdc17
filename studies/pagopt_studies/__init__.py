"""Studies that ship with pagopt: one YAML file each, which says only what differs from the defaults."""
