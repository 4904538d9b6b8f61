"""What the samples prove: pure functions from raw samples to values with one-sided 95 % bounds.

Every interval here is a pair of one-sided bounds at 95 % (together a 90 % interval), because every rule asks one
question: is the bound on the right side of the limit. `None` means unknown, and unknown never passes. Sources stand at
each formula; what each is worth on bursts, restless machines and few cameras: `python -m benchmarks.statistics`.

bounds: of a mean, of a share. percentiles, ratios: latency. accuracy, recall: answers. sizes: how much data a claim
takes. rates: alarms.
"""

from framegate.bench.stats.accuracy import (
    Paired,
    agreement,
    drop_interval,
    drop_without,
    paired,
    tango_variance,
)
from framegate.bench.stats.bounds import CONFIDENCE, Estimate, clustered_proportion, proportion, t_quantile
from framegate.bench.stats.percentiles import (
    MIN_PROCESSES,
    clustered_percentile,
    min_samples,
    min_samples_without_miss,
    percentile,
    percentile_low,
    process_percentile,
)
from framegate.bench.stats.rates import alarm_rate, median_time, min_runs, rate
from framegate.bench.stats.ratios import ratio_p50, ratio_p99
from framegate.bench.stats.recall import ClassRecall, harm, holm, recall_guardrails
from framegate.bench.stats.sizes import Size, enough, min_clips, power, smallest_margin

__all__ = [
    "CONFIDENCE",
    "MIN_PROCESSES",
    "ClassRecall",
    "Estimate",
    "Paired",
    "Size",
    "agreement",
    "alarm_rate",
    "clustered_percentile",
    "clustered_proportion",
    "drop_interval",
    "drop_without",
    "enough",
    "harm",
    "holm",
    "median_time",
    "min_clips",
    "min_runs",
    "min_samples",
    "min_samples_without_miss",
    "paired",
    "percentile",
    "percentile_low",
    "power",
    "process_percentile",
    "proportion",
    "rate",
    "ratio_p50",
    "ratio_p99",
    "recall_guardrails",
    "smallest_margin",
    "t_quantile",
    "tango_variance",
]
