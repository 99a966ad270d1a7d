"""Addresses without passwords, whatever the password holds."""

from __future__ import annotations

import pytest

from data.addresses import without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:5000", "http://host:5000"),
        ("postgresql://me:p%40ss@host/db", "postgresql://host/db"),
        ("http://me@host", "http://host"),
        ("http://host:5000/path@x", "http://host:5000/path@x"),
        ("https://host:5000/path@x", "https://host:5000/path@x"),
        ("http://host/path@x", "http://host/path@x"),
        ("sqlite:////runs/a@b/mlflow.db", "sqlite:////runs/a@b/mlflow.db"),
        ("sqlite:////runs/me:a@b/mlflow.db", "sqlite:////runs/me:a@b/mlflow.db"),
        ("s3://KEY:SECRET@bucket/x?a=b@c", "s3://bucket/x?a=b@c"),
        ("s3://KEY:123/4+5@bucket/x", "s3://bucket/x"),
        ("s3://KEY:one two@bucket/x", "s3://bucket/x"),
        ("s3://bucket/folder@2", "s3://bucket/folder@2"),
        ("cannot read s3://bucket/a: ask me@home", "cannot read s3://bucket/a: ask me@home"),
        (
            "postgresql://host/db?user=me&password=p%40ss&sslmode=require",
            "postgresql://host/db?user=me&password=…&sslmode=require",
        ),
        ("get('s3://bucket/x?Secret_Key=a+/b')", "get('s3://bucket/x?Secret_Key=…')"),
        ("https://host/x?X-Amz-Security-Token=abc#there", "https://host/x?X-Amz-Security-Token=…#there"),
        ("why? the key=value pair", "why? the key=value pair"),
        ("from http://a:b@c/d to s3://e:f@g", "from http://c/d to s3://g"),
        ("get('http://me:it's/\"so@host:5000/x')\nand more", "get('http://host:5000/x')\nand more"),
    ],
)
def test_people_see_no_password(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


@pytest.mark.parametrize("password", ["a/b", "a'b", 'a"b', "a@b", "a?b", "a#b", "a:b", "/", "@@"])
@pytest.mark.parametrize("around", ["{}", "cannot read {}", "get('{}') failed"])
def test_a_password_that_is_not_encoded_is_seen_nowhere(password: str, around: str) -> None:
    address = f"postgresql://me:{password}@host/db"
    assert without_passwords(around.format(address)) == around.format("postgresql://host/db")
