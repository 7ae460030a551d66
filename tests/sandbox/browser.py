"""Drives a headless Chromium over its DevTools protocol, with nothing but aiohttp."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PATIENCE_S = 60.0


class Page:
    """One tab: what it loads, says and raises is remembered."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session_id: str) -> None:
        self._socket = socket
        self._session_id = session_id
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self.requested: list[str] = []
        self.complaints: list[str] = []

    async def read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            waiting = self._answers.pop(told.get("id", 0), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(told)
            method, params = told.get("method"), told.get("params", {})
            if method == "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])
            elif method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
                self.complaints.append(json.dumps(params))
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                self.complaints.append(params["entry"]["text"])

    async def send(self, method: str, **params: Any) -> Any:
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        order = {"id": self._number, "method": method, "params": params}
        if self._session_id:
            order["sessionId"] = self._session_id
        await self._socket.send_json(order)
        async with asyncio.timeout(PATIENCE_S):
            told = await answer
        assert "error" not in told, told
        return told["result"]

    async def open(self, url: str) -> None:
        await self.send("Page.navigate", url=url)
        await self.until("Number(document.body?.dataset.polls || 0) > 0")

    async def eval(self, expression: str) -> Any:
        """Return the JSON value of an expression in the page."""
        told = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression of the page is true."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await self.eval(f"Boolean({expression})"):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            text = await self.eval("document.body.innerText")
            raise AssertionError(f"never: {expression}\n{text}") from None

    async def text(self, selector: str) -> str:
        found: str = await self.eval(f"document.querySelector({json.dumps(selector)}).innerText")
        return found

    async def click(self, selector: str) -> None:
        """Click with the mouse, where a person would."""
        place = await self.eval(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)});"
            "it.scrollIntoView({block: 'center'}); const box = it.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send(
                "Input.dispatchMouseEvent",
                type=kind, x=place[0], y=place[1], button="left", clickCount=1,
            )  # fmt: skip

    async def type(self, selector: str, text: str) -> None:
        """Replace what stands in a field, as typing does."""
        await self.eval(f"document.querySelector({json.dumps(selector)}).select()")
        await self.click(selector)
        await self.eval(f"document.querySelector({json.dumps(selector)}).select()")
        await self.send("Input.insertText", text=text)

    async def look(self, target: Path, width: int, height: int, scheme: str = "light") -> None:
        """Take a picture."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.send("Emulation.setEmulatedMedia", features=features)
        picture = await self.send("Page.captureScreenshot", format="png")
        target.write_bytes(  # noqa: ASYNC240
            base64.b64decode(picture["data"])
        )


@contextmanager
def browser(profile: Path) -> Iterator[str]:
    """Start a browser with a profile of its own, and end it and all its processes.

    Yields the address of its DevTools.
    """
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-extensions", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
            f"--user-data-dir={profile}", "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        address = profile / "DevToolsActivePort"
        patience = time.monotonic() + PATIENCE_S
        while not (address.exists() and address.read_text().count("\n")):
            assert process.poll() is None, "the browser ended"
            assert time.monotonic() < patience, "the browser does not listen"
            time.sleep(0.02)
        port, path = address.read_text().split("\n")[:2]
        yield f"ws://127.0.0.1:{port}{path}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@asynccontextmanager
async def tab(address: str) -> AsyncIterator[Page]:
    """Open a tab of a browser, and close it."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address, max_msg_size=0) as socket,
    ):
        page = Page(socket, "")
        reading = asyncio.create_task(page.read())
        target = await page.send("Target.createTarget", url="about:blank")
        attached = await page.send(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        page._session_id = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            await page.send(f"{domain}.enable")
        yield page
        page._session_id = ""
        await page.send("Target.closeTarget", targetId=target["targetId"])
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
