"""The page a person looks at after a search: one self-contained HTML file."""

from pagopt.report.page import write_report
from pagopt.report.sheet import draw_sheet, write_sheet

__all__ = ["draw_sheet", "write_report", "write_sheet"]
