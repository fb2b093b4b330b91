"""Cards to one self-contained HTML file, without importing torch."""

from secateur.report.page import render, write_report

__all__ = ["render", "write_report"]
