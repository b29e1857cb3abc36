"""A Boss server, asked with a deadline and a bounded number of tries."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

from emlib.errors import UserError
from emlib.volumes.bossdb.errors import http_status, redacted, retry_after_s, told, worth_another_try
from emlib.volumes.bossdb.options import BossOptions, connect

GRACE_S = 0.2  # the library's own time-out comes first: it tells a connection that was never made from a silent one
LONGEST_WAIT_S = 20.0
LONGEST_ASKED_S = 120.0  # of what a server may ask for; one that is busy for longer is left alone


class Server:
    """The real client and how patient we are with it.

    Parameters
    ----------
    options : BossOptions

    Attributes
    ----------
    remote : intern.remote.boss.BossRemote
    host : str
    heard : bool
        Whether it has answered anything, be it an error.
    """

    def __init__(self, options: BossOptions) -> None:
        self.options = options
        self.remote, self._tokens = connect(options)
        self.host = self.remote.project_service.base_url
        self.heard = False

    def ask(
        self,
        uri: str,
        request: Callable[[Any], Any],
        *,
        tries: int | None = None,
        kept: str = "",
        retrying: Callable[[str], None] = lambda line: None,
    ) -> Any:
        """Make a request, again if it fails in a way that may heal, with growing pauses.

        A pause is never shorter than the server asks for (``Retry-After``). Where it asks for more than two minutes,
        the request is given up at once: to come back earlier would only keep it busy.

        Parameters
        ----------
        uri : str
            What to name in an error.
        request : function of the client
            One request; what it returns is returned.
        tries : int, optional
            Instead of those in the options.
        kept : str
            For the error of a server that dies midway: what is already in place.
        retrying : function of a line
            Told before each pause.

        Raises
        ------
        NetworkUnreachable
            If the server has never answered.
        UserError
            If it answers with an error (the HTTP status is told) or with nonsense, or stops answering.
        """
        tries = tries or self.options.tries
        for attempt in range(1, tries + 1):
            try:
                answer = within(self.options.timeout_s + GRACE_S, lambda: request(self.remote))
            except UserError:
                raise
            except Exception as error:
                line = told(error, uri, self.host, not self.heard, kept)
                self.heard = self.heard or http_status(error) is not None
                asked = retry_after_s(error)
                healing = worth_another_try(error, not self.heard) and asked <= LONGEST_ASKED_S
                if attempt == tries or not healing:
                    raise line from redacted(error, self._tokens)
            else:
                self.heard = True
                return answer
            pause = max(asked, _pause(self.options.backoff_s, attempt))
            retrying(f"try {attempt + 1} of {tries} in {pause:.1f} s")
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Call ``function``, but wait no longer than this.

    A time-out of `requests` is per packet and address; looking up a name and an answer that trickles have none.

    Raises
    ------
    TimeoutError
        If the time runs out; whatever ``function`` raises is raised here.

    Examples
    --------
    >>> within(5, lambda: 42)
    42
    """
    outcome: dict[str, Any] = {}

    def call() -> None:
        try:
            outcome["value"] = function()
        except BaseException as error:  # handed over to the caller's thread
            outcome["error"] = error

    thread = Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if "error" in outcome:
        raise outcome["error"]
    if "value" not in outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return outcome["value"]


def _pause(backoff_s: float, attempt: int) -> float:
    """Exponential back-off with jitter.

    The jitter is not seeded: it keeps many clients of one server from asking all at once, and touches no data.
    """
    return min(backoff_s * 2 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
