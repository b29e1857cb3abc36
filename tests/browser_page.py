"""A page in a headless Chromium, driven over its debugging port: opened, looked at, asked."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

FLAGS = (
    "--headless=new --no-sandbox --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--ignore-gpu-blocklist --disable-background-networking --disable-sync --no-first-run "
    "--remote-debugging-port=0 --remote-allow-origins=* --window-size=1280,900"
).split()


def find_browser() -> str:
    """The browser to test with; the test is skipped where there is none."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    return browser


class Browser:
    """A browser with one page.

    Parameters
    ----------
    folder : Path
        For its profile and its log.
    """

    def __init__(self, folder: Path) -> None:
        self.log = folder / "browser.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [find_browser(), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"], stderr=log, stdout=log
            )
        self.loop, self.number, self.events = asyncio.new_event_loop(), 0, []
        self.socket = self.loop.run_until_complete(self._connect())
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)
        self.loop.close()

    async def _connect(self):
        from tornado.httpclient import AsyncHTTPClient
        from tornado.websocket import websocket_connect

        for _ in range(300):
            if found := re.search(r"ws://([^/]+)/", self.log.read_text(errors="replace")):
                break
            await asyncio.sleep(0.2)
        answer = await AsyncHTTPClient().fetch(f"http://{found[1]}/json")
        page = next(target for target in json.loads(answer.body) if target["type"] == "page")
        return await websocket_connect(page["webSocketDebuggerUrl"], max_message_size=2**28)

    def ask(self, method: str, **params):
        """Call a method of the DevTools protocol; events that come meanwhile are kept in ``events``."""
        return self.loop.run_until_complete(self._ask(method, params))

    async def _ask(self, method, params):
        self.number += 1
        await self.socket.write_message(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.read_message(), 120))
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self.ask("Page.navigate", url=url)
        self.wait_until("location.href != 'about:blank' && document.readyState == 'complete'")

    def value(self, expression: str):
        """The value of a JavaScript expression on the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_until(self, expression: str, seconds: float = 120) -> None:
        """Wait until an expression is true on the page."""
        end = time.monotonic() + seconds
        while not self.value(f"!!({expression})"):
            assert time.monotonic() < end, f"the page never came to {expression}; {self.failures()}"
            time.sleep(0.3)

    def screenshot(self) -> bytes:
        """The page as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def failures(self) -> list[str]:
        """What the page complained of, and requests that failed."""
        self.value("1")
        lines = []
        for event in self.events:
            kind, told = event["method"], event.get("params", {})
            if kind == "Runtime.exceptionThrown":
                lines.append(json.dumps(told["exceptionDetails"])[:500])
            elif kind == "Network.responseReceived" and told["response"]["status"] >= 400:
                lines.append(f"{told['response']['status']} {told['response']['url']}")
            elif kind == "Log.entryAdded" and told["entry"]["level"] == "error":
                lines.append(told["entry"]["text"])
        return lines

    def requests(self) -> list[str]:
        """All addresses that were asked for."""
        self.value("1")
        sent = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:"))]
