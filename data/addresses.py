"""Addresses such as s3://BUCKET/FOLDER: what one is, and addresses without passwords."""

from __future__ import annotations

import re


def is_url(text: str) -> bool:
    """Whether the text is an address such as s3://BUCKET/FOLDER, not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def without_passwords(text: str) -> str:
    """Any text without the user names and passwords in its addresses: an address alone, a message, a traceback.

    A password may hold characters that should have been encoded, such as a slash, a quotation mark, a question mark or
    an "@"; a space only where the text is an address alone. In doubt the text loses more than the password. But
    http://HOST:5000/x@y stays, as every program reads 5000 as the port there. Of options such as `?password=…` the
    value goes, if the name speaks of a password, a secret, a token or a key.
    """
    any_of = "." if is_url(text) else r"\S"
    port = r"(?<=http://|ttps://)[^\s/?@:]*:\d{1,5}/"
    before_options = rf"[^\s/?@:]*:(?:(?!\?){any_of})*@"
    with_password, user_alone = rf"{before_options}|[^\s/?@:]*:{any_of}*@", r"[^\s/?@:]*@"
    text = re.sub(rf"(?<=://)(?!{port})(?:{with_password}|{user_alone})", "", text, flags=re.DOTALL)
    return re.sub(r"([?&][\w.-]*(?:passw|pwd|secret|token|key)[\w.-]*=)[^\s&#'\"]+", r"\1…", text, flags=re.IGNORECASE)
