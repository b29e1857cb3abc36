"""BossDB through the real client, against servers on loopback: a good one, broken ones and none at all."""

import gzip
import os
import socket
import struct
import time
import traceback
from email.utils import formatdate

import blosc
import boss_server
import numpy as np
import pytest
import requests
from boss_server import ARRAY, TOKEN, URI, channel, frame, running

from emlib.errors import UserError, nearest
from emlib.runs.artefacts import Outputs
from emlib.volumes import bossdb
from emlib.volumes.bossdb import DEFAULT_URI, BossOptions, NetworkUnreachable, list_bossdb, listing_lines, parse_uri
from emlib.volumes.bossdb import channel as channel_module
from emlib.volumes.bossdb.names import hint
from emlib.volumes.cutout import read_cutout
from emlib.volumes.open import open_volume

FAST = {"timeout_s": 5, "backoff_s": 0.001}
IMPATIENT = {"timeout_s": 0.25, "backoff_s": 0.001, "tries": 2}
BOX = tuple(slice(0, n) for n in ARRAY.shape)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def use(monkeypatch):
    """Return a function that points the client at a host."""

    def point(host, token=TOKEN):
        for name, value in (("PROTOCOL", "http"), ("HOST", host), ("TOKEN", token)):
            monkeypatch.setenv(f"INTERN_{name}", value)

    return point


@pytest.fixture
def server(use):
    with running() as server:
        use(server.host)
        yield server


@pytest.fixture
def small_blocks(monkeypatch):
    """The volume of the server takes 18 of these."""
    monkeypatch.setattr(channel_module, "BLOCK", (16, 16, 32))


@pytest.fixture
def refused():
    """A host and port where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def boss(uri=URI, note=lambda line: None, labels=False, **options):
    return open_volume(uri, boss=BossOptions(**{**FAST, **options}), note=note, labels=labels)


def only_cutouts(answer, times=10**6):
    """Misbehave on the first so many cutouts."""
    left = [times]

    def behave(path):
        if "/cutout/" not in path or not left[0]:
            return None
        left[0] -= 1
        return answer

    return behave


# What comes when all is well


def test_metadata_and_a_cutout(server):
    source = open_volume(URI)
    assert source.shape == ARRAY.shape
    assert source.dtype == np.uint8
    assert source.voxel_size_nm == (50.0, 4.2, 3.5)
    assert len(server.paths) == 3
    volume = read_cutout(source, (20, 10, 30), (7, 8, 9))
    np.testing.assert_array_equal(volume.array, ARRAY[9:39, 8:18, 7:27])
    assert volume.source["file"] == {"host": server.host, "frame_origin": [3, 20, 100], "resolution": 0}


def test_blocks_cover_the_box_along_the_servers_grid(server, small_blocks):
    box = (slice(5, 37), slice(1, 30), slice(30, 50))
    np.testing.assert_array_equal(boss().read(box), ARRAY[box])
    assert server.cutouts() == 3 * 3 * 1
    assert all(path.split("/")[-1] in ("8:16", "16:32", "32:40") for path in server.paths[3:])


def test_only_the_cutout_is_asked_for(server):
    read_cutout(boss(), (4, 5, 6), (1, 2, 3))
    assert [path for path in server.paths if "/cutout/" in path] == ["/v1/cutout/lab/brain/em/0/101:105/22:27/6:12"]


@pytest.mark.parametrize("form", ["npy", "npygz"])
def test_cutouts_as_npy(server, form):
    server.form = form
    np.testing.assert_array_equal(boss().read(BOX), ARRAY)
    np.testing.assert_array_equal(boss(URI + "16").read(BOX), ARRAY * np.uint16(150))


def test_big_endian_npy_cutouts_are_turned(server, monkeypatch):
    """They are right, though not in this machine's order of bytes."""
    server.form = "npy"
    pack = boss_server.pack

    def turned(array, form):
        return pack(array.astype(array.dtype.newbyteorder(">")), form)

    monkeypatch.setattr(boss_server, "pack", turned)
    np.testing.assert_array_equal(boss(URI + "16").read(BOX), ARRAY * np.uint16(150))
    assert server.cutouts() == 3, "none of them was asked for twice"


def test_sixteen_bits_become_grey(server):
    volume = read_cutout(boss(URI + "16"))
    assert volume.array.dtype == np.uint8 and volume.source["grey"]["rule"].startswith("linear")


def test_annotations_are_no_em_but_may_be_labels(server):
    uri = "bossdb://lab/brain/neurites"
    with pytest.raises(
        UserError, match=r"neurites is an annotation channel of uint64 ids, not EM; .*--list bossdb://lab/brain shows"
    ):
        boss(uri)
    np.testing.assert_array_equal(boss(uri, labels=True).read(BOX), ARRAY.astype(np.uint64) + 2**40)


@pytest.mark.parametrize("level", [1, 2])
def test_a_coarser_resolution_anisotropic(server, level):
    source = boss(resolution=level)
    step = 2**level
    assert source.voxel_size_nm == (50.0, 4.2 * step, 3.5 * step)
    np.testing.assert_array_equal(source.read(tuple(slice(0, n) for n in source.shape)), ARRAY[:, ::step, ::step])


def test_a_coarser_resolution_isotropic(server):
    source = boss("bossdb://lab/cord/cube", resolution=1)
    assert source.voxel_size_nm == (16.0, 16.0, 16.0) and source.shape == (4, 5, 5)
    expected = server.channels["lab/cord/cube"][1][::2, ::2, ::2]
    np.testing.assert_array_equal(source.read(tuple(slice(0, n) for n in source.shape)), expected)


@pytest.mark.parametrize(("uri", "level", "there"), [(URI, 3, "0 to 2"), ("bossdb://lab/cord/cube", 0, "1 to 2")])
def test_an_unknown_resolution_tells_those_there_are(server, uri, level, there):
    with pytest.raises(UserError, match=rf"{uri} has no resolution {level}; give --resolution: {there} \(0 is the fin"):
        boss(uri, resolution=level)


def test_a_level_that_was_not_made_is_told(server):
    messages = boss(URI + "16", resolution=1).notes["messages"]
    assert messages == [f"the server says that resolution 1 of {URI}16 has not been made; it may be all black"]
    assert "messages" not in boss(URI + "16").notes


def test_a_missing_voxel_size_is_not_invented(server):
    server.frames["frame"] |= {"z_voxel_size": 0}
    assert boss().voxel_size_nm is None


def test_an_empty_frame(server):
    server.frames["frame"] = frame((3, 20, 100), (0, 30, 50))
    with pytest.raises(UserError, match=r"empty coordinate frame, \[3, 20, 100\] to \[3, 50, 150\]"):
        boss()


def test_outside_of_the_extent(server):
    source = boss()
    with pytest.raises(UserError, match=r"--offset 50 0 0 \(x y z\) lies outside of the volume of 50 30 40 voxels"):
        read_cutout(source, (5, 5, 5), (50, 0, 0))
    with pytest.raises(UserError, match=r"the cutout 38:41, 0:5, 0:5 lies outside of the extent of \(40, 30, 50\)"):
        source.read((slice(38, 41), slice(0, 5), slice(0, 5)))
    assert server.cutouts() == 0


# A server that stumbles and heals


@pytest.mark.parametrize(
    "stumble",
    [
        (500, b"<html>oops</html>"),
        (503, b""),
        (200, b"rubbish"),
        (200, boss_server.pack(ARRAY[1:], "blosc")),
        (200, boss_server.pack(ARRAY[1:], "npy")),
        (200, boss_server.pack(ARRAY.transpose(2, 1, 0), "npygz")),
        (200, boss_server.pack(ARRAY.view(np.int8), "npy")),
        (200, boss_server.pack(np.array([print], dtype=object), "npy")),
        (200, boss_server.pack(ARRAY, "npygz")[:900]),
        (200, boss_server.pack(ARRAY, "blosc")[:900]),
        boss_server.break_off,
        boss_server.reset,
    ],
    ids=("500 503 rubbish shape npy-shape transposed dtype pickle half-gzip half-blosc truncated reset").split(),
)
def test_a_stumble_heals(server, stumble):
    server.behave = only_cutouts(stumble, times=2)
    np.testing.assert_array_equal(boss().read(BOX), ARRAY)
    assert server.cutouts() == 3 * 1 * 1 + 2


@pytest.mark.parametrize("stumble", [(500, b""), boss_server.reset, boss_server.break_off], ids=["500", "reset", "cut"])
def test_metadata_is_asked_for_again_too(server, stumble):
    first = iter([stumble])
    server.behave = lambda path: next(first, None)
    assert boss().shape == ARRAY.shape
    assert len(server.paths) == 4


def test_a_hang_heals(server):
    server.behave = only_cutouts(boss_server.hang, times=1)
    np.testing.assert_array_equal(boss(**IMPATIENT).read(BOX), ARRAY)


def test_a_slow_answer_is_waited_for(server):
    server.behave = only_cutouts(boss_server.slowly)
    np.testing.assert_array_equal(boss().read(BOX), ARRAY)
    assert server.cutouts() == 3


def test_the_number_of_tries_is_bounded_and_4xx_is_tried_again_only_if_it_says_not_now(server):
    for status, asked in ((500, 3), (429, 3), (408, 3), (425, 3), (403, 1), (404, 1), (416, 1)):
        server.paths.clear()
        server.behave = only_cutouts((status, b""))
        with pytest.raises(UserError, match=f"answered HTTP {status}"):
            boss(tries=3).read(BOX)
        assert server.cutouts() == asked


def test_pauses_grow_and_are_bounded(monkeypatch, server):
    pauses = []
    monkeypatch.setattr("emlib.volumes.bossdb.server.time.sleep", pauses.append)
    server.behave = only_cutouts((500, b""))
    with pytest.raises(UserError):
        boss(tries=9, backoff_s=1).read(BOX)
    expected = [min(2**n, 20) for n in range(8)]
    assert all(0.5 * most <= pause <= most for pause, most in zip(pauses, expected, strict=True))


def busy(said, status=429):
    """An answer that asks to wait."""

    def answer(handler):
        handler.send_response(status)
        handler.send_header("Retry-After", said)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [("7", 7, 7), ("0", 0, 0.1), ("soon", 0, 0.1), ("-5", 0, 0.1), (60, 57, 60), (-60, 0, 0.1)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(server, monkeypatch, said, least, most, status):
    """In seconds, or until a date; never for less than the usual pause."""
    pauses = []
    monkeypatch.setattr("emlib.volumes.bossdb.server.time.sleep", pauses.append)
    said = said if isinstance(said, str) else formatdate(time.time() + said, usegmt=True)
    server.behave = only_cutouts(busy(said, status), times=2)
    np.testing.assert_array_equal(boss(backoff_s=0.05).read(BOX), ARRAY)
    assert len(pauses) == 2 and all(max(least, 0.025) <= pause <= most for pause in pauses), pauses


def test_a_server_that_asks_for_too_long_is_given_up_at_once(server):
    server.behave = only_cutouts(busy("3600"))
    with pytest.raises(UserError, match=r"answered HTTP 429; try again in 3600 s$"):
        boss().read(BOX)
    assert server.cutouts() == 1


# Answers that would take all memory


def swollen(size):
    """A blosc buffer of a few kB that says it unpacks to ``size`` bytes."""
    packed = bytearray(blosc.compress(bytes(2**20), typesize=1))
    packed[4:8] = struct.pack("<I", size)
    return bytes(packed)


def zipped(handler):
    """A long answer that the connection packs, as HTTP allows."""
    body = gzip.compress(bytes(2**28), 1)
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.mark.parametrize(
    "answer",
    [(200, swollen(2**30)), (200, swollen(10)), (200, b"\x02\x01\x13"), (200, b""), (200, bytes(2**18)), zipped],
    ids=["1 GiB", "10 bytes", "3 bytes", "nothing", "long", "gzip of 256 MiB"],
)
def test_nothing_is_unpacked_that_the_cutout_cannot_be(server, monkeypatch, answer):
    unpacked, decompress = [], blosc.decompress
    monkeypatch.setattr(blosc, "decompress", lambda content: unpacked.append(len(content)) or decompress(content))
    received = []
    content = requests.Response.iter_content
    monkeypatch.setattr(
        requests.Response,
        "iter_content",
        lambda self, *args: (received.append(len(part)) or part for part in content(self, *args)),
    )
    server.behave = only_cutouts(answer)
    with pytest.raises(UserError, match=r"sent a damaged answer, at each try \(ValueError\)"):
        boss(tries=2).read(BOX)
    assert server.cutouts() == 2 and not unpacked and sum(received) < 2**22


# One line for what does not heal


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503])
@pytest.mark.parametrize("where", ["/v1/collection", "/v1/cutout"])
def test_http_errors_tell_status_and_uri_but_not_the_token(server, status, where):
    server.behave = lambda path: (status, f"<html>{TOKEN}</html>".encode()) if path.startswith(where) else None
    with pytest.raises(UserError, match=rf"{URI}: 127.0.0.1:\d+ answered HTTP {status}; ") as caught:
        read_cutout(boss(), (5, 5, 5))
    assert not isinstance(caught.value, NetworkUnreachable)
    assert "html" not in str(caught.value)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_token(server, use):
    use(server.host, "wrong-secret")
    with pytest.raises(UserError, match=r"HTTP 401; check the token in --boss_config, INTERN_TOKEN or") as caught:
        boss()
    shown = "".join(traceback.format_exception(caught.value))
    assert "wrong-secret" not in shown and "bad Token ***" in shown  # the server's words, without the token


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("bossdb://lab/brain/EM", r"no channel EM in lab/brain; did you mean em or em16\?"),
        ("bossdb://lab/brian/em", r"no experiment brian in lab; did you mean brain\?"),
        ("bossdb://lap/brain/em", r"no collection lap; did you mean lab\?"),
        ("bossdb://lab/brain/xyz", r"no channel xyz in lab/brain; there is em, em16, neurites"),
    ],
)
def test_an_unknown_name_tells_the_nearest(server, uri, line):
    with pytest.raises(UserError, match=rf"{uri}: 127.0.0.1:\d+ answered HTTP 404: {line}") as caught:
        boss(uri)
    assert not isinstance(caught.value, NetworkUnreachable)


def test_where_no_name_is_seen_the_token_may_be_why():
    assert hint("em", [], "channel").startswith("there is no channel to be seen with this token")
    assert hint("EM", ["em"], "channel") == nearest("EM", ["em"]) == "did you mean em?"
    assert "token" not in nearest("em", [])


def test_an_unknown_name_where_lists_are_refused(server):
    server.behave = lambda path: (403, b"") if path.endswith(("channel", "experiment", "collection")) else None
    with pytest.raises(UserError, match=r"answered HTTP 404; check the names, bossdb://collection"):
        boss("bossdb://lab/brain/nothing")


@pytest.mark.parametrize("body", [b"<html>log in to the hotel's network</html>", b"[]", b"{}"])
def test_nonsense_is_not_a_network_failure(server, body):
    server.behave = lambda path: (200, body)
    with pytest.raises(UserError, match="gave no answer that a Boss server gives") as caught:
        boss()
    assert not isinstance(caught.value, NetworkUnreachable)


@pytest.mark.parametrize("dtype", ["float32", "uint32", "nonsense", "a b\n"])
def test_a_type_that_is_not_read_is_named(server, dtype):
    server.channels["lab/brain/em"][0]["datatype"] = dtype
    shown = dtype.replace(" ", "?").replace("\n", "?").replace("?", r"\?")
    line = rf"^{URI} holds {shown}, which is not read: EM is uint8 or uint16, labels are uint64; name another channel$"
    with pytest.raises(UserError, match=line):
        boss()
    assert len(server.paths) == 1, "another try would not help"
    table = list_bossdb("bossdb://lab/brain", BossOptions(**FAST))
    assert table.note.tolist() == [f"holds {shown}".replace("\\", ""), "", ""]


def test_damaged_voxels(server):
    server.behave = only_cutouts((200, b"rubbish"))
    with pytest.raises(UserError, match=rf"{URI}: .* sent a damaged answer, at each try \(.*\); try again later"):
        read_cutout(boss(), (5, 5, 5))


def test_refused_connection_fails_at_once(use, refused):
    use(refused)
    start = time.monotonic()
    with pytest.raises(
        NetworkUnreachable,
        match=r"cannot be reached \(connection refused\); check the network, or use sample://phantom",
    ):
        open_volume(URI)  # with the pauses that users have
    assert time.monotonic() - start < 2


def test_a_listing_without_network_has_nothing_to_stand_in(use, refused):
    use(refused)
    with pytest.raises(NetworkUnreachable) as caught:
        list_bossdb("bossdb://lab", BossOptions(**FAST))
    assert "check the network and the proxy, and run it again" in str(caught.value)
    assert "or use sample://phantom" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_config_file_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "my.cfg")
    with pytest.raises(UserError, match=r"--boss_config .*my\.cfg is no file"):
        boss(config_file=tmp_path / "my.cfg")


@pytest.mark.parametrize("way", [boss_server.hang, boss_server.trickle], ids=["silent", "trickling"])
def test_a_hanging_server_is_given_up(server, way):
    """Silence runs into the time-out of a packet; an answer that trickles never does, the deadline ends it."""
    server.behave = lambda path: way
    start = time.monotonic()
    with pytest.raises(NetworkUnreachable, match=r"cannot be reached \(time-out\)"):
        boss(**IMPATIENT)
    assert time.monotonic() - start < 3
    assert len(server.paths) == 2


def test_a_server_that_stops_answering_is_not_unreachable(server):
    server.behave = only_cutouts(boss_server.hang)
    source = boss(**IMPATIENT)
    line = r"stopped answering \(time-out\); try again with a longer --network_timeout"
    with pytest.raises(UserError, match=line) as caught:
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
        boss()


def test_a_rejected_certificate_is_not_a_network_failure(server, monkeypatch):
    error = requests.exceptions.SSLError("certificate verify failed")
    monkeypatch.setattr(requests.Session, "send", lambda *args, **options: (_ for _ in ()).throw(error))
    with pytest.raises(UserError, match="certificate") as caught:
        open_volume(URI)
    assert not isinstance(caught.value, NetworkUnreachable)


@pytest.mark.parametrize(
    "uri",
    """bossdb:// bossdb://a/b bossdb://a/b/c/d bossdb:///b/c a/b/c bossdb://../b/c bossdb://a/b/c?x=1
    bossdb://a/b%2f/c BossDB://a/b/c""".split(),
)
def test_malformed_uris(uri):
    with pytest.raises(UserError, match="is no BossDB address; it has the form bossdb://collection/experiment/channel"):
        parse_uri(uri)


@pytest.mark.parametrize("uri", ["bossdb://a/ /c", "bossdb://a/b\n/c", "bossdb://a/b c/d"])
def test_blanks_in_uris(uri):
    with pytest.raises(UserError, match="is no BossDB address"):
        parse_uri(uri)


def test_the_default_uri_is_well_formed():
    assert parse_uri(DEFAULT_URI) == ("mulcahy2022", "1h_L1", "em")


def test_every_request_carries_a_time_out(server, monkeypatch):
    seen, send = [], requests.Session.send
    monkeypatch.setattr(
        requests.Session, "send", lambda self, r, **o: seen.append(o.get("timeout")) or send(self, r, **o)
    )
    read_cutout(open_volume(URI, network_timeout_s=7), (5, 5, 5))
    assert seen == [7] * 4


# The cache


def test_a_second_run_downloads_nothing(server, tmp_path, small_blocks):
    for expected in (18, 18):
        np.testing.assert_array_equal(boss(cache_dir=tmp_path / "cache").read(BOX), ARRAY)
        assert server.cutouts() == expected
    assert len(server.paths) == 18 + 3 + 3


def test_after_a_death_midway_only_the_missing_blocks_are_downloaded(server, tmp_path, small_blocks):
    server.behave = lambda path: boss_server.reset if server.cutouts() > 10 else None
    source = boss(cache_dir=tmp_path, tries=2)
    with pytest.raises(UserError, match=r"stopped answering \(.*\); 10 of 18 blocks are kept in .*; try again"):
        source.read(BOX)
    server.behave, asked = lambda path: None, server.cutouts()
    np.testing.assert_array_equal(boss(cache_dir=tmp_path).read(BOX), ARRAY)
    assert server.cutouts() - asked == 18 - 10


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "swap", "text"])
def test_a_damaged_block_is_fetched_again_with_a_note(server, tmp_path, small_blocks, damage):
    boss(cache_dir=tmp_path).read(BOX)
    one, two, *_ = sorted(tmp_path.rglob("*.block"))
    content = one.read_bytes()
    bad = {
        "flip": content[:-1] + bytes([content[-1] ^ 1]),
        "truncate": content[:-7],
        "empty": b"",
        "swap": two.read_bytes(),
        "text": b"[" * 100_000,
    }[damage]
    one.write_bytes(bad)
    notes, asked = [], server.cutouts()
    np.testing.assert_array_equal(boss(cache_dir=tmp_path, note=notes.append).read(BOX), ARRAY)
    assert server.cutouts() - asked == 1
    assert notes == [f"{one} is damaged; it is fetched again"]
    assert one.read_bytes() == content


def test_blocks_of_other_hosts_channels_and_levels_are_others(server, use, tmp_path):
    boss(cache_dir=tmp_path).read(BOX)
    boss(resolution=1, cache_dir=tmp_path).read((slice(0, 5),) * 3)
    boss(URI + "16", cache_dir=tmp_path).read(BOX)
    with running() as second:
        second.channels["lab/brain/em"] = (channel("em"), 255 - ARRAY)
        use(second.host)
        np.testing.assert_array_equal(boss(cache_dir=tmp_path).read(BOX), 255 - ARRAY)
    use(server.host)
    asked = server.cutouts()
    np.testing.assert_array_equal(boss(cache_dir=tmp_path).read(BOX), ARRAY)
    assert server.cutouts() == asked


def test_what_is_kept_serves_without_the_server(server, use, refused, tmp_path):
    part = (slice(0, 8), slice(0, 9), slice(0, 10))
    read = boss(cache_dir=tmp_path).read
    read(part)
    server.behave = lambda path: boss_server.hang
    notes = []
    offline = boss(cache_dir=tmp_path, note=notes.append, **IMPATIENT)
    np.testing.assert_array_equal(offline.read(part), ARRAY[part])
    assert offline.voxel_size_nm == (50.0, 4.2, 3.5) and "cannot be reached" in notes[0]
    with pytest.raises(NetworkUnreachable):
        offline.read(BOX)
    use(refused)  # another host, of which nothing is kept
    with pytest.raises(NetworkUnreachable):
        boss(cache_dir=tmp_path)


def test_what_changed_on_the_server_is_seen_with_refresh(server, tmp_path, small_blocks):
    boss(cache_dir=tmp_path).read(BOX)
    server.channels["lab/brain/em"] = (channel("em"), 255 - ARRAY)
    np.testing.assert_array_equal(boss(cache_dir=tmp_path).read(BOX), ARRAY)
    asked = server.cutouts()
    np.testing.assert_array_equal(boss(cache_dir=tmp_path, refresh=True).read(BOX), 255 - ARRAY)
    assert server.cutouts() - asked == 18
    np.testing.assert_array_equal(boss(cache_dir=tmp_path).read(BOX), 255 - ARRAY)
    assert server.cutouts() - asked == 18, "the new blocks are kept in place of the old ones"
    server.behave = lambda path: boss_server.hang
    with pytest.raises(NetworkUnreachable):
        boss(cache_dir=tmp_path, refresh=True, **IMPATIENT)


def test_a_cache_that_cannot_be_written_is_told_before_anything_is_asked_for(server, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write the cache .*/cache/bossdb/.*: .*; choose another --outdir"):
        boss(cache_dir=tmp_path / "cache")
    assert server.paths == []


def test_no_temporary_file_stays_behind(server, tmp_path, small_blocks):
    boss(cache_dir=tmp_path).read(BOX)
    folder = next(tmp_path.rglob("*.block")).parent
    (folder / ".r0_z3-16.tmp999999999-0123abcd.block").write_bytes(b"of a run that was killed")
    boss(cache_dir=tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 18 + 1 and not any(path.name.startswith(".") for path in files)


# Host and token


def config(path, host, token=TOKEN, protocol="http"):
    path.write_text(f"[Default]\nprotocol = {protocol}\nhost = {host}\ntoken = {token}\n")
    return path


def test_a_config_file_wins_over_the_environment(server, use, refused, tmp_path):
    use(refused, "another")
    source = boss(config_file=config(tmp_path / "my.cfg", server.host))
    np.testing.assert_array_equal(source.read(BOX), ARRAY)


def test_the_users_own_file_is_read_where_the_environment_says_nothing(server, monkeypatch, tmp_path):
    for name in ("PROTOCOL", "HOST", "TOKEN"):
        monkeypatch.delenv(f"INTERN_{name}")
    (tmp_path / ".intern").mkdir()
    config(tmp_path / ".intern/intern.cfg", server.host)
    assert boss().shape == ARRAY.shape


def test_half_an_environment(server, monkeypatch):
    monkeypatch.delenv("INTERN_PROTOCOL")
    with pytest.raises(UserError, match="INTERN_PROTOCOL not set; BossDB needs INTERN_PROTOCOL, INTERN_HOST, INTERN_T"):
        boss()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, r"cannot read --boss_config .*my\.cfg: No such file"),
        (b"\xff\xfe\x00", "it is no text"),
        (f"token = {TOKEN}".encode(), r"is no intern\.cfg: it needs \[Default\] with protocol, host and token"),
        (f"[Default]\ntoken = {TOKEN}\n".encode(), r"is no intern\.cfg"),
        (f"[Default]\nprotocol = http\nhost = a\ntoken = %{TOKEN}\n".encode(), r"is no intern\.cfg"),
        (f"[Default]\nprotocol = ftp\nhost = a\ntoken = {TOKEN}\n".encode(), "is http or https, not what it names"),
        (f"[Default]\nprotocol = http\nhost = http://a/\ntoken = {TOKEN}\n".encode(), "for the host is none"),
        (f"[Default]\nprotocol = {TOKEN}\nhost = a\ntoken = t\n".encode(), "is http or https, not what it names"),
        (f"[Default]\nprotocol = http\nhost = {TOKEN}@a\ntoken = t\n".encode(), "for the host is none"),
        (f"[Default]\nprotocol = http\nhost = a\ntoken = {TOKEN} b\n".encode(), "the token has characters that no tok"),
    ],
)
def test_a_config_file_that_is_none(tmp_path, text, line):
    path = tmp_path / "my.cfg"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UserError, match=line) as caught:
        boss(config_file=path)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("token", ["50%off", "Zqj8\tbreak ", "Zqj8\nhost = evil", "café☕"])
def test_odd_tokens_are_never_shown(server, use, token):
    use(server.host, token)
    with pytest.raises(UserError) as caught:
        boss()
    shown = "".join(traceback.format_exception(caught.value))
    assert token.strip() not in shown and token[:4] not in shown and "☕" not in shown


def test_a_token_with_a_percent_sign_arrives(server, use):
    server.token = "50%off%%"
    use(server.host, server.token)
    assert boss().shape == ARRAY.shape


def test_the_token_is_nowhere(server, tmp_path, run_script, capsys):
    """Not in what is printed, with --debug, nor in a sidecar, a run record or the cache."""
    volume = read_cutout(boss(cache_dir=tmp_path / "cache"), (5, 5, 5))
    Outputs(tmp_path).array("em", volume.array, "EM", source=volume.source)
    server.token = "other"
    bad = run_script("run_pipeline.py", "--dataset", URI, "--outdir", tmp_path, "--debug")
    assert "HTTP 401" in bad.stderr and "Traceback" in bad.stderr
    assert TOKEN not in bad.stdout + bad.stderr + "".join(capsys.readouterr())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5 and not [path for path in files if TOKEN.encode() in path.read_bytes()]


# Listing


def test_listing_a_collection(server):
    table = list_bossdb("bossdb://lab", BossOptions(**FAST))
    assert table[["experiment", "channel", "type", "dtype"]].to_numpy().tolist() == [
        ["brain", "em", "image", "uint8"],
        ["brain", "em16", "image", "uint16"],
        ["brain", "neurites", "annotation", "uint64"],
        ["cord", "cube", "image", "uint8"],
    ]
    brain = table.iloc[0]
    assert (brain.size_x, brain.size_y, brain.size_z) == (50, 30, 40)
    assert (brain.voxel_z_nm, brain.voxel_y_nm, brain.voxel_x_nm) == (50, 4.2, 3.5)
    assert table.resolutions.tolist() == ["0-2", "0-2", "0-2", "1-2"]
    lines = listing_lines(table, "bossdb://lab")
    assert len(lines) == 5
    assert lines[1].split() == f"{URI} image uint8 50 × 30 × 40 50 × 4.2 × 3.5 0-2 anisotropic".split()
    assert server.cutouts() == 0


def test_listing_an_experiment_or_a_channel(server):
    assert list_bossdb("bossdb://lab/cord/", BossOptions(**FAST)).channel.tolist() == ["cube"]
    assert list_bossdb(URI, BossOptions(**FAST)).channel.tolist() == ["em"]


def test_a_channel_that_may_not_be_read_is_a_row_with_a_note(server):
    server.behave = lambda path: (403, b"") if path.endswith("em16") else None
    table = list_bossdb("bossdb://lab/brain", BossOptions(**FAST))
    assert table.note.tolist() == ["", "HTTP 403", ""]
    assert listing_lines(table, "bossdb://lab")[2].endswith("HTTP 403")
    server.behave = lambda path: (403, b"") if path.endswith("coord/frame") else None
    assert list_bossdb("bossdb://lab", BossOptions(**FAST)).note.tolist() == ["HTTP 403"] * 3 + [""]


def test_a_listing_ends_where_the_server_is_busy(server):
    server.behave = lambda path: (429, b"") if path.endswith("em16") else None
    with pytest.raises(UserError, match="answered HTTP 429; try again later"):
        list_bossdb("bossdb://lab/brain", BossOptions(**FAST))


def test_an_experiment_without_channels_is_listed(server):
    table = list_bossdb("bossdb://other", BossOptions(**FAST))
    assert table[["experiment", "channel", "note"]].to_numpy().tolist() == [["thing", "", "no channels"]]
    assert listing_lines(table, "bossdb://other")[1].split() == ["bossdb://other/thing", "no", "channels"]


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("bossdb://lap", r"no collection lap; did you mean lab\?"),
        ("bossdb://lab/brian", r"no experiment brian in lab; did you mean brain\?"),
        ("bossdb://lab/brain/e", r"no channel e in lab/brain; did you mean em\?"),
        ("bossdb://", "cannot be listed; give bossdb://collection or .*, for instance bossdb://mulcahy2022"),
        ("bossdb://a/b/c/d", "cannot be listed"),
        ("lab", "cannot be listed"),
    ],
)
def test_what_cannot_be_listed(server, uri, line):
    with pytest.raises(UserError, match=line):
        list_bossdb(uri, BossOptions(**FAST))


def test_listing_without_a_network(use, refused):
    use(refused)
    with pytest.raises(NetworkUnreachable, match="cannot be reached"):
        list_bossdb("bossdb://lab")


# What is said meanwhile


def test_the_bar_is_drawn_on_a_terminal_only_and_when_wanted(server, monkeypatch, capsys, small_blocks):
    for terminal, progress, drawn in ((True, True, True), (False, True, False), (True, False, False)):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        open_volume(URI, boss=BossOptions(**FAST), progress=progress).read(BOX)
        assert ("0/18" in capsys.readouterr().err) is drawn


def test_names_that_others_import():
    assert {"DEFAULT_URI", "NetworkUnreachable", "open_bossdb", "parse_uri"} <= set(bossdb.__all__)
