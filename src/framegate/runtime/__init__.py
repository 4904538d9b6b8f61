"""Sessions over a Bundle: one protocol (`session`), one file per backend, opened lazily."""
