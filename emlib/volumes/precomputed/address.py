"""Where a precomputed volume lies, and how patiently it is asked for.

``precomputed://`` is followed by a folder, or by an address of ``file://``, ``https://``, ``http://``, ``s3://`` or
``gs://``. Public buckets are read without a name; who has access to others sets the variables that their services
define (``AWS_ACCESS_KEY_ID`` or ``AWS_PROFILE``; ``GOOGLE_APPLICATION_CREDENTIALS``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emlib.errors import UserError

SCHEME = "precomputed://"
REMOTE = ("https://", "http://", "s3://", "gs://")
TRIES = 3
PUBLIC_GOOGLE = "https://storage.googleapis.com/"


def find_place(name: str) -> str:
    """Return the address of a volume in the words of TensorStore, with a slash behind it.

    Parameters
    ----------
    name : str
        With or without ``precomputed://``.

    Raises
    ------
    UserError
        If the scheme is not known or nothing follows it.

    Examples
    --------
    >>> find_place("precomputed://gs://bucket/em"), find_place("precomputed://file:///data/em")
    ('https://storage.googleapis.com/bucket/em/', 'file:///data/em/')
    """
    place = name.removeprefix(SCHEME)
    if not place.strip("/") or place in REMOTE or place == "file://":
        raise UserError(f"{name} names no volume; write {SCHEME}FOLDER or {SCHEME}https://…")
    if place.startswith(REMOTE):
        if place.startswith("gs://") and not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            place = PUBLIC_GOOGLE + place.removeprefix("gs://")
        return place.rstrip("/") + "/"
    if "://" in place and not place.startswith("file://"):
        known = ", ".join((*REMOTE, "file://"))
        raise UserError(f"{name}: unknown scheme {place.split('://')[0]}://; {SCHEME} goes with a folder or {known}")
    return Path(place.removeprefix("file://")).expanduser().resolve().as_uri() + "/"


def asking(timeout_s: float = 30.0) -> Any:
    """Return TensorStore's context: few tries, and no search for anybody's credentials."""
    import tensorstore as ts

    patience = {"max_retries": TRIES - 1, "initial_delay": "200ms", "max_delay": f"{max(1, timeout_s / TRIES):g}s"}
    told: dict[str, Any] = {f"{kind}_request_retries": patience for kind in ("http", "s3", "gcs")}
    if not any(os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE")):
        told["aws_credentials"] = {"type": "anonymous"}
    return ts.Context(told)


def library() -> Any:
    """Return TensorStore.

    Raises
    ------
    UserError
        If it is not installed.
    """
    try:
        import tensorstore
    except ImportError as error:
        raise UserError("precomputed volumes need tensorstore; pip install -r requirements-view.txt") from error
    return tensorstore


@contextmanager
def reaching(name: str, timeout_s: float) -> Iterator[None]:
    """Turn what TensorStore says of a place that cannot be reached into one line."""
    try:
        yield
    except FutureTimeout as error:
        raise UserError(
            f"{name} does not answer within {timeout_s:g} s; look at the address, or wait longer with --network_timeout"
        ) from error
    except Exception as error:
        told = str(error)
        if isinstance(error, UserError):
            raise
        if told.startswith(("ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")):
            reason = told.split("CURL error ")[-1].split(" [")[0].split(":")[0]
            raise UserError(f"{name} cannot be reached: {reason[:150]}; look at the address and the network") from error
        if told.startswith(("PERMISSION_DENIED", "UNAUTHENTICATED")):
            raise UserError(f"no permission to read {name}; set the credentials of its service") from error
        raise
