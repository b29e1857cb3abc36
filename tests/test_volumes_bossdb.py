"""BossDB through the real client, against servers on loopback: a good one, broken ones and none at all."""

import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import blosc
import numpy as np
import pytest
import requests
from volume_files import noise

from emlib.errors import UserError
from emlib.volumes import bossdb
from emlib.volumes.bossdb import DEFAULT_URI, NetworkUnreachable, open_bossdb, parse_uri
from emlib.volumes.cutout import read_cutout
from emlib.volumes.open import open_volume

ARRAY = noise((40, 30, 50))
START = (3, 20, 100)  # of the coordinate frame, z y x
URI = "bossdb://lab/brain/em"
TOKEN = "very-secret"
FRAME = {
    "name": "frame",
    "description": "",
    **{f"{axis}_start": start for axis, start in zip("zyx", START, strict=True)},
    **{f"{axis}_stop": start + n for axis, start, n in zip("zyx", START, ARRAY.shape, strict=True)},
    "z_voxel_size": 0.05,
    "y_voxel_size": 0.0042,
    "x_voxel_size": 0.0035,
    "voxel_unit": "micrometers",
}
CHANNEL = {"name": "em", "description": "", "type": "image", "datatype": "uint8", "base_resolution": 0, "creator": ""}
CHANNEL |= {"default_time_sample": 0, "sources": [], "related": [], "downsample_status": "DOWNSAMPLED"}
EXPERIMENT = {"name": "brain", "description": "", "creator": "", "coord_frame": "frame", "num_hierarchy_levels": 1}
EXPERIMENT |= {"hierarchy_method": "anisotropic", "num_time_samples": 1, "time_step": 0, "time_step_unit": "seconds"}
ANSWERS = {
    "/v1/collection/lab/experiment/brain/channel/em": CHANNEL,
    "/v1/collection/lab/experiment/brain": EXPERIMENT,
    "/v1/coord/frame": FRAME,
}


class Server(ThreadingHTTPServer):
    """A Boss as small as it gets; ``behave(path)`` returns (status, bytes) to answer otherwise, or None."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths, self.behave, self.closing = [], lambda path: None, threading.Event()

    @property
    def host(self):
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split("?")[0].rstrip("/")
        self.server.paths.append(path)
        status, body = self.server.behave(path) or self.answer(path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, path):
        if path in ANSWERS:
            return 200, json.dumps(ANSWERS[path]).encode()
        if found := re.fullmatch(r"/v1/cutout/lab/brain/em/0/(\d+):(\d+)/(\d+):(\d+)/(\d+):(\d+)", path):
            x0, x1, y0, y1, z0, z1 = map(int, found.groups())
            z, y, x = START
            part = ARRAY[z0 - z : z1 - z, y0 - y : y1 - y, x0 - x : x1 - x]
            return 200, blosc.compress(np.ascontiguousarray(part), typesize=8)
        return 404, b"<html>no such thing</html>"

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def use(monkeypatch):
    """Return a function that points the client at a host."""

    def point(host, token=TOKEN):
        for name, value in (("PROTOCOL", "http"), ("HOST", host), ("TOKEN", token)):
            monkeypatch.setenv(f"INTERN_{name}", value)

    return point


@pytest.fixture
def server(use):
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        use(server.host)
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture
def refused():
    """A host and port where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_metadata_and_a_cutout(server):
    source = open_volume(URI)
    assert source.shape == ARRAY.shape
    assert source.dtype == np.uint8
    assert source.voxel_size_nm == (50.0, 4.2, 3.5)
    assert len(server.paths) == 3
    volume = read_cutout(source, (20, 10, 30), (7, 8, 9))
    np.testing.assert_array_equal(volume.array, ARRAY[9:39, 8:18, 7:27])
    assert volume.source["file"] == {"host": server.host, "frame_origin": [3, 20, 100]}


def test_blocks_cover_the_box_along_the_servers_grid(server, monkeypatch):
    monkeypatch.setattr(bossdb, "BLOCK", (16, 16, 32))
    box = (slice(5, 37), slice(1, 30), slice(30, 50))
    np.testing.assert_array_equal(open_volume(URI).read(box), ARRAY[box])
    assert len(server.paths) == 3 + 3 * 2 * 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503])
@pytest.mark.parametrize("where", ["/v1/collection", "/v1/cutout"])
def test_http_errors_tell_status_and_uri_but_not_the_token(server, status, where):
    server.behave = lambda path: (status, f"<html>{TOKEN}</html>".encode()) if path.startswith(where) else None
    with pytest.raises(UserError, match=rf"{URI}: 127.0.0.1:\d+ answered HTTP {status}; ") as caught:
        read_cutout(open_volume(URI), (5, 5, 5))
    assert not isinstance(caught.value, NetworkUnreachable)
    assert TOKEN not in str(caught.value)
    assert "html" not in str(caught.value)


def test_a_wrong_name_is_a_404(server):
    with pytest.raises(UserError, match=r"answered HTTP 404; check the names, bossdb://collection") as caught:
        open_volume("bossdb://lab/brain/nothing")
    assert not isinstance(caught.value, NetworkUnreachable)


@pytest.mark.parametrize("body", [b"<html>log in to the hotel's network</html>", b"[]", b"{}"])
def test_nonsense_is_not_a_network_failure(server, body):
    server.behave = lambda path: (200, body)
    with pytest.raises(UserError, match="gave no answer that a Boss server gives") as caught:
        open_volume(URI)
    assert not isinstance(caught.value, NetworkUnreachable)


def test_damaged_voxels(server):
    server.behave = lambda path: (200, b"rubbish") if "cutout" in path else None
    with pytest.raises(UserError, match=URI):
        read_cutout(open_volume(URI), (5, 5, 5))


def test_refused_connection_fails_at_once(use, refused):
    use(refused)
    start = time.monotonic()
    with pytest.raises(
        NetworkUnreachable, match=r"cannot be reached \(connection refused\); check the network, or use"
    ):
        open_volume(URI)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("trickle", [False, True], ids=["silent", "trickling"])
def test_a_hanging_server_is_given_up(server, trickle):
    """Silence runs into the time-out of a packet; an answer that trickles never does, the deadline ends it."""

    def hang(path):
        server.closing.wait(10)
        return 200, b"{}"

    class Trickle(Handler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            while not server.closing.wait(0.1):
                self.wfile.write(b" ")

    server.behave = hang
    if trickle:
        server.RequestHandlerClass = Trickle
    start = time.monotonic()
    with pytest.raises(NetworkUnreachable, match=r"cannot be reached \(time-out\)"):
        open_volume(URI, network_timeout_s=0.5)
    assert time.monotonic() - start < 3


def test_a_server_that_dies_during_the_cutout_is_not_unreachable(server):
    server.behave = lambda path: server.closing.wait(10) and None if "cutout" in path else None
    source = open_volume(URI, network_timeout_s=0.5)
    with pytest.raises(UserError, match=r"stopped answering \(time-out\); try again") as caught:
        read_cutout(source, (5, 5, 5))
    assert not isinstance(caught.value, NetworkUnreachable)


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.ConnectionError(socket.gaierror(-2, "Name or service not known")),
        requests.exceptions.ConnectTimeout(),
        requests.exceptions.ReadTimeout(),
        requests.exceptions.ProxyError("403 Forbidden"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_counts_as_unreachable(server, monkeypatch, error):
    monkeypatch.setattr(requests.Session, "send", lambda *args, **options: (_ for _ in ()).throw(error))
    with pytest.raises(NetworkUnreachable, match="cannot be reached"):
        open_volume(URI)


def test_a_rejected_certificate_is_not_a_network_failure(server, monkeypatch):
    error = requests.exceptions.SSLError("certificate verify failed")
    monkeypatch.setattr(requests.Session, "send", lambda *args, **options: (_ for _ in ()).throw(error))
    with pytest.raises(UserError, match="certificate") as caught:
        open_volume(URI)
    assert not isinstance(caught.value, NetworkUnreachable)


@pytest.mark.parametrize("token", ["50%off", "line\tbreak ", "café☕"])
def test_odd_tokens_are_never_shown(server, use, token):
    use(server.host, token)
    try:
        open_volume(URI)
    except UserError as error:
        assert token.strip() not in str(error)
        assert token[:4] not in str(error)


@pytest.mark.parametrize(
    "uri", ["bossdb://", "bossdb://a/b", "bossdb://a/b/c/d", "bossdb:///b/c", "bossdb://a/ /c", "a/b/c"]
)
def test_malformed_uris(uri):
    with pytest.raises(UserError, match="is no BossDB address; it has the form bossdb://collection/experiment/channel"):
        parse_uri(uri)


def test_the_default_uri_is_well_formed():
    assert parse_uri(DEFAULT_URI) == ("mulcahy2022", "1h_L1", "em")


def test_every_request_carries_a_time_out(server, monkeypatch):
    seen, send = [], requests.Session.send
    monkeypatch.setattr(
        requests.Session, "send", lambda self, r, **o: seen.append(o.get("timeout")) or send(self, r, **o)
    )
    read_cutout(open_bossdb(URI, 7), (5, 5, 5))
    assert seen == [7] * 4
