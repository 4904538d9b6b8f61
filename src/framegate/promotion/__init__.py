"""Promotion: from a verdict to exports/shipped, and back. Files first, registry second, alias last.

record (what lies on disk) <- origin, archive (how it is made and checked) <- ship (ship, roll back, release).
registry: the one seam to MLflow. serving: whether a shipped bundle was judged on this host.
Importing this package loads the records only.
"""

from framegate.promotion.record import Hold, Promotion

__all__ = ["Hold", "Promotion"]
