"""A Boss on loopback, as small as it gets and as ill-behaved as a test wants it."""

import gzip
import io
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import blosc
import numpy as np
from volume_files import noise

TOKEN = "very-secret"
START = (3, 20, 100)  # of the coordinate frame, z y x
ARRAY = noise((40, 30, 50))
URI = "bossdb://lab/brain/em"
CUTOUT = re.compile(r"/v1/cutout/(\w+/\w+/\w+)/(\d+)/(\d+):(\d+)/(\d+):(\d+)/(\d+):(\d+)")


def frame(start, shape, unit="micrometers", size=(0.05, 0.0042, 0.0035)):
    """A coordinate frame; ``size`` is z y x in ``unit``."""
    return {
        "name": "frame",
        "description": "",
        **{f"{axis}_start": a for axis, a in zip("zyx", start, strict=True)},
        **{f"{axis}_stop": a + n for axis, a, n in zip("zyx", start, shape, strict=True)},
        **{f"{axis}_voxel_size": v for axis, v in zip("zyx", size, strict=True)},
        "voxel_unit": unit,
    }


def experiment(name, frame_name, levels=3, method="anisotropic"):
    """An experiment."""
    time = {"num_time_samples": 1, "time_step": 0, "time_step_unit": "seconds"}
    kind = {"num_hierarchy_levels": levels, "hierarchy_method": method}
    return {"name": name, "description": "", "creator": "", "coord_frame": frame_name, **kind, **time}


def channel(name, datatype="uint8", kind="image", base=0, status="DOWNSAMPLED"):
    """A channel."""
    empty = {"description": "", "creator": "", "default_time_sample": 0, "sources": [], "related": []}
    about = {"type": kind, "datatype": datatype, "base_resolution": base, "downsample_status": status}
    return {"name": name, **about, **empty}


class BossServer(ThreadingHTTPServer):
    """Collections, experiments, coordinate frames, channels and cutouts.

    ``behave(path)`` returns None to answer well, (status, bytes) to answer otherwise, or a function of the handler.
    ``paths`` holds what was asked for; ``form`` is what cutouts are sent as: blosc, npy or npygz.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths, self.behave, self.closing = [], lambda path: None, threading.Event()
        self.form, self.token = "blosc", TOKEN
        self.frames = {
            "frame": frame(START, ARRAY.shape),
            "cube": frame((0, 0, 0), (8, 9, 10), "nanometers", (8, 8, 8)),
        }
        self.experiments = {
            "lab/brain": experiment("brain", "frame"),
            "lab/cord": experiment("cord", "cube", levels=2, method="isotropic"),
            "other/thing": experiment("thing", "cube"),
        }
        self.channels = {
            "lab/brain/em": (channel("em"), ARRAY),
            "lab/brain/em16": (channel("em16", "uint16", status="NOT_DOWNSAMPLED"), ARRAY * np.uint16(150)),
            "lab/brain/neurites": (channel("neurites", "uint64", "annotation"), ARRAY.astype(np.uint64) + 2**40),
            "lab/cord/cube": (channel("cube", base=1), noise((8, 9, 10))),
        }

    @property
    def host(self):
        """As the client takes it."""
        return f"127.0.0.1:{self.server_port}"

    def cutouts(self):
        """How many cutouts were asked for so far."""
        return sum("/cutout/" in path for path in self.paths)

    def listing(self, path):
        """JSON of a path that is no cutout; None where there is nothing."""
        names = path.removeprefix("/v1/").split("/")
        if names[0] == "coord":
            return self.frames.get(names[-1])
        if names == ["collection"]:
            return {"collections": sorted({key.split("/")[0] for key in self.experiments})}
        below = [key for key in (*self.experiments, *self.channels) if key.startswith(f"{names[1]}/")]
        if names[2:] == ["experiment"] and below:
            return {"experiments": [key.split("/")[1] for key in below if key.count("/") == 1]}
        parent = "/".join(names[1:4:2])
        if len(names) == 4:
            return self.experiments.get(parent)
        if len(names) == 5 and parent in self.experiments:
            return {"channels": [key.split("/")[2] for key in self.channels if key.startswith(f"{parent}/")]}
        return self.channels.get("/".join(names[1:6:2]), (None,))[0]

    def cutout(self, found):
        """Bytes of a cutout, or None where the frame does not reach."""
        key, level, *ranges = found.groups()
        about, array = self.channels[key]
        project = self.experiments[key.rpartition("/")[0]]
        step = 2 ** int(level)
        z_step = step if project["hierarchy_method"] == "isotropic" else 1
        array = array[::z_step, ::step, ::step]
        box = self.frames[project["coord_frame"]]
        first = [box["z_start"] // z_step, box["y_start"] // step, box["x_start"] // step]
        x0, x1, y0, y1, z0, z1 = map(int, ranges)
        part = [slice(a - f, b - f) for a, b, f in zip((z0, y0, x0), (z1, y1, x1), first, strict=True)]
        if any(s.start < 0 or s.stop > n for s, n in zip(part, array.shape, strict=True)):
            return None
        return pack(np.ascontiguousarray(array[tuple(part)], about["datatype"]), self.form)


def pack(array, form):
    """A cutout as a Boss sends it."""
    if form == "blosc":
        return blosc.compress(array.tobytes(), typesize=8)
    file = io.BytesIO()
    np.save(file, array, allow_pickle=array.dtype == object)
    return gzip.compress(file.getvalue()) if form == "npygz" else file.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers as the server says."""

    def do_GET(self):
        path = self.path.split("?")[0].rstrip("/")
        self.server.paths.append(path)
        told = self.server.behave(path)
        if callable(told):
            told(self)
            return
        self.reply(*(told or self.answer(path)))

    def answer(self, path):
        """Status and body of a good answer."""
        if self.headers["Authorization"] != f"Token {self.server.token}":
            return 401, f"<html>bad {self.headers['Authorization']}</html>".encode()
        if found := CUTOUT.fullmatch(path):
            body = self.server.cutout(found) if found[1] in self.server.channels else None
            return (400, b"<html>outside</html>") if body is None else (200, body)
        body = self.server.listing(path)
        return (404, b"<html>no such thing</html>") if body is None else (200, json.dumps(body).encode())

    def reply(self, status, body, length=None):
        """Send an answer, with a false length if one is given."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Silence."""


def hang(handler):
    """Never answer."""
    handler.server.closing.wait(10)


def break_off(handler):
    """Send half of what was announced."""
    body = handler.answer(handler.path.split("?")[0].rstrip("/"))[1]
    handler.reply(200, body[: len(body) // 2], len(body))


def reset(handler):
    """Close the connection without a word."""
    handler.close_connection = True
    handler.connection.close()


def trickle(handler, pause_s=0.1):
    """Send a header and then spaces for ever."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.closing.wait(pause_s):
        handler.wfile.write(b" ")


def slowly(handler, pieces=5, pause_s=0.03):
    """Send the right answer in pieces."""
    status, body = handler.answer(handler.path.split("?")[0].rstrip("/"))
    handler.reply(status, b"", len(body))
    step = len(body) // pieces + 1
    for start in range(0, len(body), step):
        handler.wfile.write(body[start : start + step])
        handler.server.closing.wait(pause_s)


@contextmanager
def running():
    """A server that listens until the block ends."""
    with BossServer() as server:
        server.handle_error = lambda *args: None  # connections that break are what the tests are about
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()
