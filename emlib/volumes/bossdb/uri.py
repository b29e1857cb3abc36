"""Addresses on BossDB: a collection holds experiments, an experiment holds channels."""

from __future__ import annotations

import re
from typing import NamedTuple

from emlib.errors import UserError

DEFAULT_URI = "bossdb://mulcahy2022/1h_L1/em"
SCHEME = "bossdb://"
FORM = "bossdb://collection/experiment/channel"
LIST_FORM = "bossdb://collection or bossdb://collection/experiment"
NAME = re.compile(r"(?!\.+$)[^\s/\\?#%\x00-\x1f\x7f]+")  # the rest would change the address that is asked for


class BossUri(NamedTuple):
    """The three names of a channel."""

    collection: str
    experiment: str
    channel: str


def parse_uri(uri: str) -> BossUri:
    """Split a BossDB URI into its names.

    Raises
    ------
    UserError
        If it has not the form ``bossdb://collection/experiment/channel``.

    Examples
    --------
    >>> parse_uri(DEFAULT_URI).experiment
    '1h_L1'
    """
    names = _names(uri)
    if len(names) != 3:
        raise UserError(f"{uri} is no BossDB address; it has the form {FORM}, for instance {DEFAULT_URI}")
    return BossUri(*names)


def parse_listing_uri(uri: str) -> tuple[str, ...]:
    """Split an address that is to be listed into one, two or three names.

    Raises
    ------
    UserError
        If there are none, more than three, or names that no server allows.

    Examples
    --------
    >>> parse_listing_uri("bossdb://mulcahy2022/")
    ('mulcahy2022',)
    """
    names = _names(uri)
    if not 1 <= len(names) <= 3:
        example = SCHEME + parse_uri(DEFAULT_URI).collection
        raise UserError(f"{uri} cannot be listed; give {LIST_FORM}, for instance {example}")
    return names


def _names(uri: str) -> tuple[str, ...]:
    """The names in an address; none if one of them cannot be a name."""
    names = uri.removeprefix(SCHEME).rstrip("/").split("/")
    return tuple(names) if uri.startswith(SCHEME) and all(map(NAME.fullmatch, names)) else ()
