"""The sandbox's page as a person has it before them, in a real browser."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bc_attrvals.sandbox import Quirks, Sandbox
from tests.sandbox.api import Api, item, running
from tests.sandbox.browser import CHROMIUM, Page, browser, tab

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)"
)

HOSTILE = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    # Not under tmp_path: a browser that was killed may leave what is hard to count.
    profile = Path(tempfile.mkdtemp(prefix="bc-attrvals-browser-"))
    try:
        with browser(profile) as one:
            yield one
    finally:
        shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
async def page(address: str) -> AsyncIterator[Page]:
    async with tab(address) as one:
        yield one


async def watch_rows(page: Page, sandbox: Sandbox) -> None:
    """Rows appear, are filtered and paged; what they hold is text."""
    await page.until("document.querySelectorAll('#rows tr').length === 50")
    assert await page.text("#rows-count") == "100,000"
    assert await page.text("#page") == "1 / 2,000"
    assert await page.eval("document.querySelector('#rows td.value').textContent") == HOSTILE
    await page.click("#next")
    await page.until("document.querySelector('#rows td').textContent === '51'")
    await page.type("#by-customer", "777")
    await page.until("document.querySelectorAll('#rows tr').length === 1")
    assert (await page.text("#rows")).split() == [
        "777",
        "777",
        "1",
        "v777",
        "2024-05-01",
        "00:00:00",
    ]
    await page.type("#by-customer", "7x")
    await page.until("document.querySelector('#no-rows').innerText.startsWith('customer_id: must')")
    await page.type("#by-customer", "")
    await page.type("#by-value", "onerror=")
    await page.until("document.querySelector('#rows-count').innerText === '1 match'")
    await page.type("#by-value", "no such value")
    await page.until("document.querySelector('#no-rows').innerText === 'No row matches.'")
    await page.type("#by-value", "")
    await page.until("document.querySelectorAll('#rows tr').length === 50")


async def watch_log(page: Page, sandbox: Sandbox, api: Api) -> None:
    """The log grows by itself, and is bounded; quota and rows follow."""
    await api.put(item(1, 1, "new"))
    await page.until("document.querySelectorAll('#log tr').length === 1")
    assert "PUT" in await page.text("#log")
    await page.until("document.querySelector('#rows td.value').textContent === 'new'")
    await page.until("document.querySelector('#quota').innerText.startsWith('499')")
    for number in range(219):
        await api.call("GET", f"name={number}&x=<b>{sandbox.access_token}")
    await page.until("document.querySelector('#log tr td').textContent === '220'")
    assert await page.eval("document.querySelectorAll('#log tr').length") == 200
    assert await page.eval("document.querySelector('#log .q').textContent") == "?name=218&x=<b>***"
    assert await page.text("#log-count") == "the newest 200 of 220"


async def switch_faults(page: Page, sandbox: Sandbox, api: Api) -> None:
    """A fault is switched on and off; those set elsewhere show, too."""
    chip = '.chip[data-kind="503"]'
    pressed = f"document.querySelector('{chip}').getAttribute('aria-pressed')"
    await page.eval("document.querySelector('#operation').value = 'list'")
    await page.click(chip)
    await page.until(f"{pressed} === 'true'")
    assert [str(one.kind) for one in sandbox.faults] == ["503"]
    assert ((await api.get()).status, (await api.put(item(2))).status) == (503, 200)
    await page.until("document.querySelector('#force .hits').innerText === '1 hit'")
    await page.click(chip)
    await page.until(f"{pressed} === 'false'")
    assert len(sandbox.faults) == 0
    assert (await api.get()).status == 200
    sandbox.faults.add("hang,operation=delete")
    await page.until("document.querySelector('#force').innerText.includes('DELETE')")
    await page.click("#force button")
    await page.until("document.querySelector('#force').children.length === 0")
    assert len(sandbox.faults) == 0


async def reset(page: Page, sandbox: Sandbox) -> None:
    """The button asks once more, then empties all."""
    await page.click("#reset")
    await page.until("document.querySelector('#reset').innerText.startsWith('Sure?')")
    assert await sandbox.count() == 100_000
    await page.click("#reset")
    await page.until("document.querySelector('#stored').innerText === '0'")
    await page.until("document.querySelectorAll('#rows tr, #log tr').length === 0")
    assert (await sandbox.count(), len(sandbox.requests)) == (0, 0)


async def switch_quirks(page: Page, sandbox: Sandbox, api: Api) -> None:
    """Each kind of control changes its quirk; quirks that are set elsewhere show, too."""
    if await page.eval("document.querySelector('#quirks').hidden"):
        await page.click("#quirks-fold")
    line = "[aria-label={}]"
    await page.click(line.format("omit_links"))
    await page.until("document.querySelector('#quirks-count').innerText === '1 changed'")
    await page.eval(
        "(() => { const one = document.querySelector('[aria-label=order]'); one.value = 'id_desc';"
        "one.dispatchEvent(new Event('change')); })()"
    )
    await page.until("document.querySelector('#quirks-count').innerText === '2 changed'")
    for name, text in (("max_limit", "9"), ("clock_lags_s", "0, 3"), ("max_limit", "0")):
        await page.type(line.format(name), text)
        await page.eval("document.activeElement.blur()")
    await page.until("document.querySelector('#told').innerText.startsWith('max_limit: ')")
    assert sandbox.quirks == Quirks(
        omit_links=True, order="id_desc", max_limit=9, clock_lags_s=(0, 3)
    )
    assert "links" not in (await api.get()).pagination
    await page.click("#quirks-default")
    await page.until("document.querySelector('#quirks-count').innerText === 'all default'")
    assert sandbox.quirks == Quirks()
    await sandbox.set_quirks(Quirks(trim_values=True))
    await page.until("document.querySelector('[aria-label=trim_values]').ariaChecked === 'true'")
    await sandbox.set_quirks(Quirks())


async def test_names_and_addresses_at_every_width(page: Page) -> None:
    address = "<b>ann</b>@example.org"
    async with running(customers={7: address}, attributes={"Loyalty tier": "string"}) as (
        sandbox,
        api,
    ):
        await api.put(item(7, 1, "gold"))
        await page.open(f"{sandbox.url}/")
        await page.until("document.querySelectorAll('#rows tr').length === 1")
        cells = "[...document.querySelectorAll('#rows td.who')].map(one => one.textContent)"
        assert await page.eval(cells) == [f"7{address}", "1Loyalty tier"]
        assert await page.text("#rejected") == "1 customer, 1 attribute"
        await switch_quirks(page, sandbox, api)
        for width, height in ((390, 844), (1280, 800), (1600, 1000)):
            await page.send(
                "Emulation.setDeviceMetricsOverride",
                width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
            )  # fmt: skip
            await page.until(f"document.documentElement.clientWidth === {width}")
            root = "document.documentElement"
            assert await page.eval(f"{root}.scrollWidth") == width
            if width > 980:
                assert await page.eval(f"{root}.scrollHeight") == height
                right = "document.querySelector('.tiles').getBoundingClientRect().right"
                assert width - 40 < await page.eval(right) <= width


async def test_the_page_in_a_browser(page: Page) -> None:
    async with running(quota=500, window_s=3600, access_token="s3cret-t0ken") as (sandbox, api):
        moment = 1_714_521_600
        await sandbox.seed((n, 1, f"v{n}" if n > 1 else HOSTILE, moment) for n in range(1, 100_001))
        await page.open(f"{sandbox.url}/")
        await watch_rows(page, sandbox)
        await watch_log(page, sandbox, api)
        await switch_faults(page, sandbox, api)
        seen = sandbox.requests.seen
        await reset(page, sandbox)
        whole = await page.eval("document.documentElement.outerHTML")
        # The one thing that complains is the refused filter.
        complaints = [one for one in page.complaints if "status of 400" not in one]
        assert (sandbox.requests.seen, complaints) == (seen, [])
        assert await page.eval("document.title") == "bc_attrvals sandbox"
        assert "s3cret-t0ken" not in whole
        urls = [url for url in page.requested if not url.startswith("data:")]
        assert all(url.startswith(f"{sandbox.url}/") for url in urls)
    await page.until("document.querySelector('#live').innerText === 'not reachable'")
