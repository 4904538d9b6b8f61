"""The report: a verdict and its evidence as one HTML page, or as Markdown for a pull request."""

from framegate.report.clips import Thumbnail, WorstClip, thumbnails, worst_clips
from framegate.report.markdown import summary
from framegate.report.page import render

__all__ = ["Thumbnail", "WorstClip", "render", "summary", "thumbnails", "worst_clips"]
