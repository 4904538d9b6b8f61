"""`Accept` decides between two forms of an answer as RFC 9110 has it."""

import pytest

from framegate.serve.accept import preferred

JSON, LINES = "application/json", "application/x-ndjson"


@pytest.mark.parametrize(
    ("accepted", "form"),
    [
        ([], JSON),
        (["*/*"], JSON),
        (["text/html"], JSON),
        (["application/*;q=0.3"], JSON),
        ([LINES], LINES),
        (["APPLICATION/X-NDJSON"], LINES),
        (["application/x-ndjson; charset=utf-8"], LINES),
        (["application/x-ndjson-2, text/application/x-ndjson"], JSON),
        # weights
        (["application/x-ndjson;q=0"], JSON),
        (["application/x-ndjson; Q=0.000, */*"], JSON),
        (["application/json, application/x-ndjson;q=0.5"], JSON),
        (["application/json;q=0.4, application/x-ndjson;q=0.5"], LINES),
        (["application/json;q=0.4", "application/x-ndjson;q=0.5"], LINES),
        (["application/json;q=0, */*;q=0.1"], LINES),
        (["application/x-ndjson;q=0.2, */*;q=0.9"], JSON),
        # of equal weight: by name before by a wildcard, then the first
        (["*/*, application/x-ndjson"], LINES),
        (["application/json, application/x-ndjson"], JSON),
        (["application/x-ndjson, application/json"], LINES),
        # what is no weight, and a comma that separates nothing
        (["application/x-ndjson;q=much"], LINES),
        (["application/json;q=nan, application/x-ndjson;q=0.9"], JSON),
        (['text/html;level="1, application/x-ndjson, 2"'], JSON),
        (['",;=q'], JSON),
    ],
)
def test_the_form_that_is_preferred_is_given(accepted: list[str], form: str) -> None:
    assert preferred(accepted, (JSON, LINES)) == form
