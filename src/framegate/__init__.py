"""framegate: from a folder of clips to the fastest video model that is still as good, with proof."""
