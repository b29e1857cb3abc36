"""The page in a headless Chromium: it draws the data, without the network.

Screenshots are kept in the folder that ``EMLIB_SCREENSHOTS`` names (default: ``outputs/screenshots``).
"""

import io
import json
import os
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from browser_page import Browser
from PIL import Image
from proofread_run import blobs, write_run

pytest.importorskip("neuroglancer")
from emlib.view.contents import open_contents
from emlib.view.export_precomputed import export_precomputed
from emlib.view.server import Page

pytestmark = pytest.mark.gui
SCREENSHOTS = Path(os.environ.get("EMLIB_SCREENSHOTS", Path(__file__).resolve().parent.parent / "outputs/screenshots"))


def panels(png: bytes) -> dict[str, np.ndarray]:
    """The four panels of the page, without their rims; float RGB."""
    page = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float32)[48:]
    middle_y, middle_x = page.shape[0] // 2, page.shape[1] // 2
    up, down = slice(30, middle_y - 30), slice(middle_y + 30, -30)
    left, right = slice(30, middle_x - 30), slice(middle_x + 30, -30)
    return {"xy": page[up, left], "xz": page[up, right], "3d": page[down, left], "yz": page[down, right]}


def colours(panel: np.ndarray) -> int:
    """How many clearly different colours a panel has, grey and black left out."""
    vivid = panel.max(-1) - panel.min(-1) > 40
    return len(np.unique((panel[vivid] // 32).astype(int), axis=0))


def keep(name: str, png: bytes) -> None:
    """Keep a picture for those who look at a run of the tests; also the last one of a page that never draws."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / f"{name}.png").write_bytes(png)


def watch(browser: Browser, name: str, seconds: float = 240) -> dict[str, np.ndarray]:
    """Wait until all four panels show colours and nothing changes any more; keep the picture."""
    end, before = time.monotonic() + seconds, b""
    while True:
        png = browser.screenshot()
        keep(name, png)
        seen = panels(png)
        if png == before and all(colours(panel) > 5 for panel in seen.values()):
            break
        assert time.monotonic() < end, f"{ {k: colours(v) for k, v in seen.items()} }; {browser.failures()}"
        before = png
        time.sleep(2)
    return seen


def watch_synapse(browser: Browser, seconds: float = 120) -> None:
    """Wait until a synapse shows: the orange end of a line at the sender, the blue one at the receiver."""
    end, counts = time.monotonic() + seconds, {}
    while not all(counts.values()) or not counts:
        assert time.monotonic() < end, f"{counts}; {browser.failures()}"
        png = browser.screenshot()
        keep("view_synapse", png)
        seen = panels(png)["xy"]
        ends = {"sends": (255, 140, 0), "receives": (51, 191, 255)}
        counts = {name: int((np.abs(seen - colour).max(-1) < 12).sum()) for name, colour in ends.items()}


def wait_for(asked: list[str], *names: str, seconds: float = 60) -> None:
    """Wait until a server was asked for these files: by the page's workers, of which the browser does not tell."""
    end, left = time.monotonic() + seconds, set(names)
    while left:
        assert time.monotonic() < end, f"never asked for {left}"
        time.sleep(0.5)
        left = {name for name in left if not any(name in path for path in asked)}


def check(browser: Browser, *hosts: str) -> None:
    """Nothing failed, and nobody but this machine was asked."""
    assert [line for line in browser.failures() if "favicon" not in line and "Failed to load" not in line] == []
    assert {url.split("/")[2] for url in browser.requests()} == set(hosts)


@pytest.fixture
def contents(tmp_path):
    write_run(tmp_path / "run", blobs((16, 96, 96), 14, background=0.0))
    return open_contents(tmp_path / "run")


def test_the_page_draws_the_run(contents, tmp_path):
    page = Page(contents, "a run")
    try:
        with Browser(tmp_path) as browser:
            browser.open(page.url)
            seen = watch(browser, "view_run")
            check(browser, f"127.0.0.1:{page.port}")
            assert "a run" in browser.value("document.title")
            first = contents.synapses.iloc[0]
            with page.viewer.txn() as state:
                state.position = [first.x + 0.5, first.y + 0.5, first.z + 0.5]
            watch_synapse(browser)
            assert {"em", "neurites"} <= {url.split("/")[5] for url in browser.requests() if url.endswith("/info")}
    finally:
        page.close()
    assert (seen["3d"].max(-1) < 5).mean() > 0.3  # meshes before a black background, not sections
    em = seen["xy"][: seen["xy"].shape[0] // 2]
    assert em.std() > 20


def test_an_exported_folder_opens_elsewhere(contents, tmp_path):
    """In any Neuroglancer, here a page of another origin that knows nothing of the run but its state."""
    import neuroglancer

    class Open(SimpleHTTPRequestHandler):
        def end_headers(self):
            self.send_header("Access-Control-Allow-Origin", "*")
            super().end_headers()

        def log_message(self, *_):
            asked.append(self.path)

    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Open, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    export_precomputed(contents, tmp_path / "run1", "exported", f"http://{host}/run1")
    neuroglancer.set_server_bind_address("127.0.0.1", 0)
    viewer = neuroglancer.Viewer()
    viewer.set_state(json.loads((tmp_path / "run1/state.json").read_text()))
    try:
        with Browser(tmp_path) as browser:
            browser.open(viewer.get_viewer_url())
            watch(browser, "view_exported")
            wait_for(asked, "em/", "synapses/info", "synapses/spatial0", "neurites/mesh/info", "neurites/mesh/1:0")
            check(browser, host, viewer.get_viewer_url().split("/")[2])
    finally:
        neuroglancer.stop()
        server.shutdown()
        server.server_close()
