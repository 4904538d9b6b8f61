"""Was it really so? Recomputes a verdict from the raw samples beside it and follows every digest, offline.

check (one finding) <- files (nothing leaves the folder) <- subject (what is verified) <- measured, data, origin,
decision, shipped: one family of checks each. Reads only; needs neither git, DVC nor torch. Digests show integrity;
who made them shows only a signature.
"""

from framegate.verify.check import Check
from framegate.verify.run import verify

__all__ = ["Check", "verify"]
