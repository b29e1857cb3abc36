"""Files of a data set from the web: several addresses, each file checked, one line when none of them serves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np

from emlib.errors import UserError
from emlib.runs.catalogue.dataset import DataSet, Piece, array_sha256
from emlib.runs.catalogue.layout import find_fault
from emlib.volumes.atomic import atomic_path
from emlib.volumes.tiff import write_tiff

SCRATCH = ".download"  # in the data set's folder: files of the source, until they are converted
TRIES = 2  # per address, where a second one can help
CHUNK = 2**16


class AddressFailed(Exception):
    """An address did not give a file.

    Attributes
    ----------
    dead : bool
        Nothing can be had from it, so that it is left out from now on.
    again : bool
        A second try may succeed.
    """

    def __init__(self, why: str, *, dead: bool = False, again: bool = False) -> None:
        super().__init__(why)
        self.dead, self.again = dead, again


class Download:
    """Downloads files of a data set.

    Parameters
    ----------
    dataset : DataSet
    folder : Path
        Of the data set; files that are to be converted wait in ``.download`` in it.
    mirrors : sequence of str
        Addresses laid out like the data set, tried before its own.
    timeout_s : float
        To connect, and between two parts of an answer.
    warn : function, optional
        Takes a line, once per address, when another one had to serve in its place.

    Raises
    ------
    UserError
        If there is no address to try, or one is not a web address.
    """

    def __init__(
        self,
        dataset: DataSet,
        folder: Path,
        mirrors: Sequence[str] = (),
        timeout_s: float = 30,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        for mirror in mirrors:
            if urlsplit(mirror).scheme not in ("http", "https"):
                raise UserError(f"--mirror {mirror}: a web address begins with http:// or https://")
        if not mirrors and not dataset.bases:
            raise UserError(
                f"{dataset.name} cannot be downloaded: {dataset.no_address}; give a copy of it with --from DIR"
            )
        self.places = [(f"{mirror.rstrip('/')}/", True) for mirror in mirrors]
        self.places += [(base, False) for base in dataset.bases]
        self.dataset, self.scratch, self.timeout_s = dataset, folder / SCRATCH, timeout_s
        self.warn = warn or (lambda line: None)
        self.dead: dict[str, str] = {}
        self.warned: set[str] = set()

    def __call__(self, piece: Piece, target: Path) -> None:
        """Download one file, checked, from the first address that has it."""
        reasons: dict[str, str] = {}
        for base, laid_out_alike in self.places:
            if base in self.dead:
                reasons[base] = self.dead[base]
                continue
            try:
                if laid_out_alike or piece.convert is None:
                    self._take(base, piece, target)
                else:
                    self._convert(base, piece, target)
            except AddressFailed as failure:
                reasons[base] = f"{urlsplit(base).netloc} {failure}"
                if failure.dead:
                    self.dead[base] = reasons[base]
                continue
            for failed in reasons.keys() - self.warned:
                self.warn(f"{reasons[failed]}; {urlsplit(base).netloc} serves in its place")
            self.warned |= reasons.keys()
            return
        raise UserError(
            f"{self.dataset.name}: {piece.path} cannot be downloaded: {'; '.join(reasons.values())}; files already "
            "there are kept: check the network and run this again, or give a copy of the data set with --from DIR"
        )

    def _take(self, base: str, piece: Piece, target: Path) -> None:
        """A file as it is."""

        def check(path: Path) -> None:
            if fault := find_fault(path, piece):
                raise AddressFailed(f"sent a file that {fault}", again=True)

        self._get(base, piece.remote[0] if piece.remote and piece.convert is None else piece.path, target, check)

    def _convert(self, base: str, piece: Piece, target: Path) -> None:
        """A file made from others."""
        parts = [self.scratch / name for name in piece.remote]
        for name, part in zip(piece.remote, parts, strict=True):
            if not part.is_file():
                self._get(base, name, part, lambda path: None)
        try:
            readings = piece.convert(parts)
        except Exception as error:  # whatever a format library raises on what an address sent
            readings = []
            why = f"sent files that cannot be converted ({' '.join(str(error).split())[:150]})"
        else:
            why = f"sent files that do not make the published {piece.path} (the SHA-256 of its array differs)"
        array = next((array for array in readings if array_sha256(array) == piece.sha256), None)
        if array is None:
            for part in parts:
                part.unlink(missing_ok=True)
            raise AddressFailed(why)
        _write(target, array, self.dataset.voxel_size_nm)
        for part in parts:
            part.unlink(missing_ok=True)

    def _get(self, base: str, name: str, target: Path, check: Callable[[Path], None]) -> None:
        """Download one file; it gets its name when it is whole and ``check`` raised nothing."""
        for attempt in range(1, TRIES + 1):
            try:
                with atomic_path(target) as temporary:
                    _request(base + quote(name), temporary, self.timeout_s)
                    check(temporary)
                return
            except AddressFailed as failure:
                if not failure.again or attempt == TRIES:
                    raise


def _request(url: str, path: Path, timeout_s: float) -> None:
    """Write what a web address sends to a file.

    Raises
    ------
    AddressFailed
        If nothing or not all of it came.
    OSError
        If the file cannot be written.
    """
    import pooch
    import requests
    from urllib3.exceptions import ReadTimeoutError

    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        pooch.HTTPDownloader(timeout=timeout_s, chunk_size=CHUNK)(url, path, None)
    except requests.HTTPError as error:
        status = error.response.status_code
        again = status >= 500 or status == 429
        raise AddressFailed(f"answered HTTP {status} for {urlsplit(url).path}", again=again) from error
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise AddressFailed(f"broke off {urlsplit(url).path}", again=True) from error
    except requests.exceptions.SSLError as error:
        raise AddressFailed("has a certificate that is not accepted (clock? proxy?)", dead=True) from error
    except requests.exceptions.ReadTimeout as error:
        raise AddressFailed(f"did not answer within {timeout_s:g} s", dead=True) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        if error.args and isinstance(error.args[0], ReadTimeoutError):  # so `requests` calls a body that stalls
            raise AddressFailed(f"stopped sending {urlsplit(url).path}", again=True) from error
        raise AddressFailed(f"cannot be reached ({_why(error)})", dead=True) from error
    except requests.RequestException as error:
        raise AddressFailed(f"cannot be used ({type(error).__name__})", dead=True) from error


def _why(error: BaseException) -> str:
    """A few words: the deepest cause that is the system's own."""
    told, cause = "no connection", error
    while cause is not None:
        if isinstance(cause, TimeoutError) or "timed out" in str(cause).lower():
            return "time-out"
        if isinstance(cause, OSError) and cause.strerror:
            told = cause.strerror.lower()
        reason = getattr(cause, "reason", None)  # urllib3 hangs the cause on its own errors
        inner = reason if isinstance(reason, BaseException) else cause.args[0] if cause.args else None
        cause = cause.__cause__ or cause.__context__ or (inner if isinstance(inner, BaseException) else None)
    return told


def _write(path: Path, array: np.ndarray, voxel_size_nm: tuple[float, float, float]) -> None:
    if path.suffix == ".png":
        from PIL import Image

        with atomic_path(path) as temporary:
            Image.fromarray(array).save(temporary)
    else:
        write_tiff(path, array, voxel_size_nm)
