"""The signature against the vendor's own examples."""

import json
from pathlib import Path
from typing import Any

import pytest

from ernie_async.sansio.signing import (
    authorization,
    canonical_query,
    canonical_request,
    canonical_uri,
    signing_key,
)

CASES = json.loads(
    (Path(__file__).parents[1] / "fixtures/auth/bce_v1_signing_vectors.json").read_text("utf-8")
)
each = pytest.mark.parametrize("case", CASES["vectors"], ids=lambda case: case["name"])


def listed(case: dict[str, Any]) -> list[str] | None:
    """The names to sign, unless the result is to leave the default ones unsaid."""
    return None if "//" in case["authorization"] else case["headers_to_sign"]


@each
def test_authorization_is_the_vendors(case: dict[str, Any]) -> None:
    signed = authorization(
        case["method"],
        case["path"],
        case["query"],
        case["headers"],
        access_key=case["access_key"],
        secret_key=case["secret_key"],
        date=case["timestamp"],
        seconds=case["expires_in"],
        signed=listed(case),
    )
    assert str.__str__(signed) == case["authorization"]
    assert case["signature"] not in repr(signed)


@each
def test_steps_are_the_vendors(case: dict[str, Any]) -> None:
    request = canonical_request(
        case["method"], case["path"], case["query"], case["headers"], signed=listed(case)
    )
    assert request == case["canonical_request"]
    assert signing_key(case["secret_key"], case["auth_prefix"]) == case["signing_key"]


@pytest.mark.parametrize("case", CASES["canonical_query_cases"])
def test_query_is_sorted_by_its_finished_pairs(case: dict[str, Any]) -> None:
    assert canonical_query(case["query"]) == case["expected"]
    assert canonical_query({**case["query"], "Authorization": "x"}) == case["expected"]


@pytest.mark.parametrize("case", CASES["canonical_uri_cases"])
def test_path_keeps_its_slashes(case: dict[str, Any]) -> None:
    assert canonical_uri(case["path"]) == canonical_uri(case["path"][1:]) == case["expected"]


def test_empty_headers_are_not_signed() -> None:
    request = canonical_request(
        "get", "/", {}, {"Host": " h ", "x-bce-a": " ", "Accept": "x"}, signed=None
    )
    assert request == "GET\n/\n\nhost:h"
