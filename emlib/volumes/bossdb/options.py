"""Where the server is, what it is asked for and how patiently; the token stays out of everything that is kept."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emlib.errors import UserError

if TYPE_CHECKING:
    from intern.remote.boss import BossRemote

PUBLIC = {"protocol": "https", "host": "api.bossdb.io", "token": "public"}
DEFAULT_FILE = "~/.intern/intern.cfg"
TOKEN_PLACES = f"--boss_config, INTERN_TOKEN or {DEFAULT_FILE}"


@dataclass(frozen=True)
class BossOptions:
    """How to ask a Boss server.

    Attributes
    ----------
    timeout_s : float
        Seconds for each request, from the look-up of the host's name to the last byte.
    tries : int
        How often a request is made at most.
    resolution : int
        Level of the hierarchy; 0 is the finest. A channel whose base resolution is not 0 has no level 0.
    config_file : path, optional
        Protocol, host and token in the form of ``intern.cfg``. Without it the variables ``INTERN_PROTOCOL``,
        ``INTERN_HOST`` and ``INTERN_TOKEN`` hold, then ``~/.intern/intern.cfg``, then the public server.
    cache_dir : path, optional
        Folder that keeps the blocks; None keeps none.
    refresh : bool
        Fetch all blocks anew, and keep those in place of the old ones.
    backoff_s : float
        Wait before the second try; it doubles from try to try.
    """

    timeout_s: float = 30.0
    tries: int = 4
    resolution: int = 0
    config_file: str | Path | None = None
    cache_dir: str | Path | None = None
    refresh: bool = False
    backoff_s: float = 0.5

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense, whoever gives them."""
        if not self.timeout_s > 0 or self.tries < 1 or self.backoff_s < 0:
            raise ValueError(f"time-out and tries must be positive, the wait not negative: {self}")


def connect(options: BossOptions) -> tuple[BossRemote, set[str]]:
    """Return the real client for the configured server, with a time-out on each packet, and the tokens to hide.

    Raises
    ------
    UserError
        If the configuration cannot be read or is not whole; neither the message nor its cause holds the token.
    """
    from intern.remote.boss import BossRemote

    settings, where = _settings(options.config_file)
    try:
        remote = BossRemote(settings)
    except Exception:  # its text, and the errors it comes from, may hold the token
        raise UserError(f"{where} is no intern.cfg: it needs [Default] with protocol, host and token") from None
    services = (remote.project_service, remote.metadata_service, remote.volume_service)
    for service in services:  # no value is quoted: a token that stands in the wrong place is one
        if service.base_protocol not in ("http", "https"):
            raise UserError(f"{where}: the protocol of a Boss server is http or https, not what it names")
        if not re.fullmatch(r"[\w.:\[\]-]+", service.base_url):
            raise UserError(f"{where}: what it gives for the host is none; it has the form {PUBLIC['host']}")
        if not re.fullmatch(r"[\x21-\x7e]+", service.auth):  # before a library complains, and quotes it
            raise UserError(f"{where}: the token has characters that no token has; check {TOKEN_PLACES}")
        service.session_send_opts = {**service.session_send_opts, "timeout": options.timeout_s}
    return remote, {service.auth for service in services}


def server_address(config_file: str | Path | None) -> str:
    """Return protocol and host of the configured server, as ``https://api.bossdb.io``; empty if that is not whole."""
    try:
        remote, _ = connect(BossOptions(config_file=config_file))
    except UserError:  # told by what asks the server
        return ""
    return f"{remote.project_service.base_protocol}://{remote.project_service.base_url}"


def _settings(config_file: str | Path | None) -> tuple[dict[str, str] | str, str]:
    """What `BossRemote` takes, and what to call it in an error."""
    if config_file is not None:
        return _readable(Path(config_file).expanduser()), f"--boss_config {config_file}"
    names = {key: f"INTERN_{key.upper()}" for key in PUBLIC}
    given = {key: os.environ.get(name, "") for key, name in names.items()}
    if all(given.values()):
        # `intern` writes them into an INI text: a % would be an interpolation there, a line break another setting
        return {key: re.sub(r"[\r\n]", "\t", value).replace("%", "%%") for key, value in given.items()}, "INTERN_*"
    if any(given.values()):
        missing = " and ".join(names[key] for key, value in given.items() if not value)
        raise UserError(f"{missing} not set; BossDB needs {', '.join(names.values())}, all or none, or --boss_config")
    if Path(DEFAULT_FILE).expanduser().is_file():
        return str(Path(DEFAULT_FILE).expanduser()), DEFAULT_FILE
    return PUBLIC, "the public server"


def _readable(path: Path) -> str:
    """The path, if it is a file that can be read: else `intern` would silently take the environment instead."""
    if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
        raise UserError(f"--boss_config {path} is no file; give one in the form of intern.cfg")
    try:
        path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"cannot read --boss_config {path}: {reason}; give a file in the form of intern.cfg") from None
    return str(path)
