"""The report: one HTML page from a verdict and its measurements."""

from framegate.report.page import render

__all__ = ["render"]
