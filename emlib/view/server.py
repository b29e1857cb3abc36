"""A local web server for one run: Neuroglancer's page, and the run's volumes and meshes as the page asks for them.

Every address begins with a token that nobody can guess, so that other users of the machine, and pages of other origins,
see nothing. Voxels are read when they are asked for.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import Callable
from typing import Any

from emlib.errors import UserError
from emlib.view.contents import Contents
from emlib.view.meshes import MESH_INFO, Mesher, encode_mesh, mesh_manifest
from emlib.view.precomputed_info import chunk_box, encode_chunk, volume_info
from emlib.view.state import make_state

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"


class Source:
    """Answers what a page asks about a run, as files of precomputed volumes.

    Parameters
    ----------
    contents : Contents
    """

    def __init__(self, contents: Contents) -> None:
        self.volumes = {**contents.images, "neurites": contents.neurites}
        self.mesher = Mesher(contents.neurites)

    def get(self, path: str) -> tuple[bytes, str] | None:
        """Return content and its type; None where there is none.

        Parameters
        ----------
        path : str
            ``em/info``, ``em/0/0-64_0-64_0-64``, ``neurites/mesh/info``, ``neurites/mesh/7:0``, ``neurites/mesh/7``.
        """
        name, _, rest = path.partition("/")
        if name not in self.volumes:
            return None
        if rest == "info":
            found = volume_info(self.volumes[name], *(("segmentation", "mesh") if name == "neurites" else ("image",)))
            return json.dumps(found).encode(), "application/json"
        if name == "neurites" and rest.startswith("mesh/"):
            return self._mesh(rest.removeprefix("mesh/"))
        level, _, chunk = rest.partition("/")
        if not level.isdecimal() or int(level) >= len(self.volumes[name].levels):
            return None
        box = chunk_box(chunk, self.volumes[name].levels[int(level)].shape)
        if box is None:
            return None
        return encode_chunk(self.volumes[name].read(int(level), box)), "application/octet-stream"

    def _mesh(self, asked: str) -> tuple[bytes, str] | None:
        if asked == "info":
            return MESH_INFO.encode(), "application/json"
        neurite, colon, _ = asked.partition(":")
        if not neurite.isdecimal():
            return None
        if colon:
            return mesh_manifest(int(neurite)).encode(), "application/json"
        mesh = self.mesher.make(int(neurite))
        return None if mesh is None else (encode_mesh(mesh), "application/octet-stream")


class Page:
    """A page that shows a run, until `close`.

    Parameters
    ----------
    contents : Contents
    title : str
    port : int
        0 takes any that is free.
    share : bool
        Answer other machines too; without it only this one.
    warn : function of a line
        Told once of each file that cannot be read.

    Raises
    ------
    UserError
        If neuroglancer is not installed, or the port is in use.
    """

    def __init__(
        self,
        contents: Contents,
        title: str,
        port: int = 0,
        share: bool = False,
        warn: Callable[[str], None] = lambda line: print(f"warning: {line}", file=sys.stderr),
    ) -> None:
        neuroglancer = _library()
        address, token = EVERYWHERE if share else LOOPBACK, secrets.token_urlsafe(24)
        neuroglancer.set_server_bind_address(address, port)
        try:
            self.viewer = neuroglancer.Viewer(
                token=token, allow_credentials=False
            )  # of other services, on this machine
        except OSError as error:
            raise UserError(
                f"--port {port} cannot be used: {error.strerror or error}; choose another, or leave it out"
            ) from error
        self._server = neuroglancer.server
        served = self._server.global_server
        handler = _handler(Source(contents), token, served.executor, warn)
        served.app.add_handlers(".*$", [(rf"/data/{token}/(.*)", handler)])
        self.port, self.token = served.port, token
        self.viewer.set_state(make_state(contents, f"{served.server_url}/data/{token}", title))
        self.url = self.viewer.get_viewer_url()

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()


def _library() -> Any:
    try:
        import neuroglancer
    except ImportError as error:
        raise UserError("the viewer needs neuroglancer; pip install -r requirements-view.txt") from error
    return neuroglancer


def _handler(source: Source, token: str, executor: Any, warn: Callable[[str], None]) -> type:
    """A handler of requests for what `Source` gives; reading is done by threads beside the server's own."""
    import tornado.web

    told: set[str] = set()

    class Data(tornado.web.RequestHandler):
        async def get(self, path: str) -> None:
            try:
                found = await asyncio.get_running_loop().run_in_executor(executor, source.get, path)
            except UserError as error:
                if str(error) not in told:
                    told.add(str(error))
                    warn(str(error))
                raise tornado.web.HTTPError(500, reason="this part cannot be read") from error
            if found is None:
                raise tornado.web.HTTPError(404)
            self.set_header("Content-Type", found[1])
            self.set_header("Cache-Control", "no-cache")
            self.set_header("Access-Control-Allow-Origin", "*")  # through a tunnel, or another name of this machine
            self.finish(found[0])

    return Data
