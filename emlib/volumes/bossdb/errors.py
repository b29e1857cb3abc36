"""What may go wrong between here and a Boss server, in one line each, and what is worth another try."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException

from emlib.errors import UserError
from emlib.volumes.bossdb.options import TOKEN_PLACES
from emlib.volumes.bossdb.uri import FORM

NOT_NOW = (408, 425, 429)  # time-out, too early, too many requests: the statuses of 4xx that a moment may heal
REMEDY = "check the network, or use sample://phantom"


class NetworkUnreachable(UserError):
    """The server gave no answer at all: no such host, connection refused, no route, or the time ran out."""


def told(error: Exception, uri: str, host: str, opening: bool, kept: str = "") -> UserError:
    """Return the line for an error that `requests` or `intern` raised.

    Their own words stay out of it: they hold pages of HTML, and the token where that is what is wrong.

    Parameters
    ----------
    error : Exception
    uri : str
        What was asked for.
    host : str
        Who was asked.
    opening : bool
        Whether the server has not answered anything yet: then it is `NetworkUnreachable`.
    kept : str
        What became of the blocks so far, for a server that dies midway.
    """
    if (status := http_status(error)) is not None:
        return UserError(f"{uri}: {host} answered HTTP {status}; {_advice(status, retry_after_s(error))}")
    if _certificate(error):
        return UserError(f"{uri}: the certificate of {host} is not accepted; check the clock and the proxy")
    if _connection(error):
        why = _why(error)
        if opening:
            return NetworkUnreachable(f"{uri}: {host} cannot be reached ({why}); {REMEDY}")
        longer = " with a longer --network_timeout" if why == "time-out" else ""
        return UserError(f"{uri}: {host} stopped answering ({why}); {kept}try again{longer}")
    kind = type(error).__name__
    if not opening:
        return UserError(f"{uri}: {host} sent a damaged answer, at each try ({kind}); {kept}try again later")
    return UserError(
        f"{uri}: {host} gave no answer that a Boss server gives ({kind}); check the host in INTERN_HOST or "
        "--boss_config, and the proxy"
    )


def worth_another_try(error: Exception, opening: bool) -> bool:
    """Whether the same request may go well a moment later.

    A status of 4xx never heals, but for those that say "not now". While the server has not been heard of, neither does
    a host that is not there: the run should tell so at once. Everything else may: 5xx, a reset, a time-out, a body that
    breaks off or makes no sense.
    """
    if (status := http_status(error)) is not None:
        return status >= 500 or status in NOT_NOW
    return not (_certificate(error) or isinstance(error, MemoryError) or (opening and _never_connected(error)))


def http_status(error: BaseException) -> int | None:
    """Return the status that a server answered with, or None if that is not what went wrong."""
    from requests import HTTPError

    for cause in _chain(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(cause, HTTPError) and status is not None:
            return int(status)
    return None


def retry_after_s(error: BaseException) -> float:
    """Return how many seconds the server asks to wait (``Retry-After``, a number or a date); 0 if it does not say.

    RFC 9110, section 10.2.3.
    """
    for cause in _chain(error):
        said = str(getattr(getattr(cause, "response", None), "headers", {}).get("Retry-After", "")).strip()
        if said.isdecimal():
            return float(said)
        with suppress(ValueError, OverflowError):
            return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    return 0.0


def redacted(error: Exception, tokens: Iterable[str]) -> Exception:
    """Return what ``--debug`` may show as the cause: kind, text and place of an error, without the tokens."""
    text = str(error)
    for token in tokens:
        text = text.replace(token, "***").replace(repr(token)[1:-1], "***")
    return RuntimeError(f"{type(error).__name__}: {text[:300]}").with_traceback(error.__traceback__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _certificate(error: BaseException) -> bool:
    from requests.exceptions import SSLError

    return any(isinstance(cause, SSLError) and "certificate" in str(cause).lower() for cause in _chain(error))


def _connection(error: BaseException) -> bool:
    from requests import exceptions

    kinds = (exceptions.ConnectionError, exceptions.ChunkedEncodingError, exceptions.Timeout, TimeoutError)
    return any(isinstance(cause, kinds) for cause in _chain(error))


def _never_connected(error: BaseException) -> bool:
    """No such host, connection refused, no route; not a connection that broke."""
    from requests import exceptions

    causes = list(_chain(error))
    if any(isinstance(cause, exceptions.ConnectTimeout) for cause in causes):
        return True
    broke = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, HTTPException, TimeoutError)
    broke = (*broke, exceptions.Timeout, exceptions.ChunkedEncodingError)
    return _connection(error) and not any(isinstance(cause, broke) for cause in causes)


def _why(error: BaseException) -> str:
    """A few words: the deepest cause that is the system's own."""
    from requests import exceptions

    causes = list(_chain(error))
    if any(isinstance(cause, (TimeoutError, exceptions.Timeout)) for cause in causes):
        return "time-out"
    text = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    if text:
        return text[-1].lower()
    broke = any(isinstance(cause, (HTTPException, exceptions.ChunkedEncodingError)) for cause in causes)
    return "the answer broke off" if broke else "no connection"


def _advice(status: int, wait_s: float) -> str:
    if status in (401, 403):
        return f"check the token in {TOKEN_PLACES}"
    if status == 404:
        return f"check the names, {FORM}"
    if status >= 500 or status in NOT_NOW:
        return f"try again in {wait_s:.0f} s" if wait_s else "try again later"
    return "check the address and the cutout"
