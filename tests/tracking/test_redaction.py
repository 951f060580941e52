"""Redaction: secrets are hidden, ordinary values are not."""

import pytest

from medexp.tracking.redaction import HIDDEN, redact


@pytest.mark.parametrize(
    "key", ["password", "MLFLOW_TRACKING_TOKEN", "aws_secret_access_key", "api-key".replace("-", "_")]
)
def test_value_under_a_secret_key_is_hidden(key: str) -> None:
    assert redact({"outer": {key: "value"}}, {}) == {"outer": {key: HIDDEN}}


def test_value_of_a_secret_variable_is_hidden_inside_texts_and_lists() -> None:
    assert redact(["go to s3cretvalue/x"], {"MY_PASSWORD": "s3cretvalue"}) == [f"go to {HIDDEN}/x"]


def test_credentials_in_an_address_are_hidden() -> None:
    assert redact("http://user:word@host:5000", {}) == f"http://{HIDDEN}@host:5000"


def test_ordinary_values_stay() -> None:
    record = {"lr": 0.1, "path": "/data/brats", "names": ["t1c"], "nothing": None, "tokens_per_batch": 3}
    assert redact(record, {"HOME": "/data", "SHORT_TOKEN": "abc"}) == record
