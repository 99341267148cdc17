"""The page a person looks at after a search: one self-contained HTML file."""

from pagopt.report.page import write_report

__all__ = ["write_report"]
