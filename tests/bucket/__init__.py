"""Tests of the buckets; the contract's assertions are explained by pytest as those of a test module are."""

import pytest

pytest.register_assert_rewrite("tests.bucket.contract")
