"""Other people's SDKs, unchanged, through the proxy: they list, upsert and delete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from bc_attrvals.sandbox import ThreadedSandbox

pytest.importorskip("trustme", reason="the extra sandbox is not installed")

PATH = "/customers/attribute-values"
BIGC = f"""
import os
from bigc import BigCommerceAPI
api = BigCommerceAPI(os.environ["BIGCOMMERCE_STORE_HASH"], os.environ["BIGCOMMERCE_ACCESS_TOKEN"])
api.api_v3.put("{PATH}", data=[{{"customer_id": 7, "attribute_id": 1, "value": "gold"}}])
since = {{"date_modified:min": "2020-01-01T00:00:00-0400"}}
(row,) = api.api_v3.get_many("{PATH}", params=since)
api.api_v3.delete("{PATH}", params={{"id:in": row["id"]}})
"""
BIGCOMMERCE = f"""
import os
from bigcommerce.connection import OAuthConnection
api = OAuthConnection(
    "client", os.environ["BIGCOMMERCE_STORE_HASH"], os.environ["BIGCOMMERCE_ACCESS_TOKEN"],
    host="api.bigcommerce.com", api_path="/stores/{{}}/v3/{{}}",
)
item = {{"customer_id": 7, "attribute_id": 1, "value": "gold"}}
api.make_request("PUT", "{PATH[1:]}", data=[item])
(row,) = api.make_request("GET", "{PATH[1:]}")["data"]
api.make_request("DELETE", "{PATH[1:]}?id:in=" + str(row["id"]))
"""
NODE_BIGCOMMERCE = f"""
const BigCommerce = require("node-bigcommerce");
(async () => {{
  const api = new BigCommerce({{
    clientId: "client", accessToken: process.env.BIGCOMMERCE_ACCESS_TOKEN,
    storeHash: process.env.BIGCOMMERCE_STORE_HASH, responseType: "json", apiVersion: "v3",
  }});
  await api.put("{PATH}", [{{ customer_id: 7, attribute_id: 1, value: "gold" }}]);
  const found = await api.get("{PATH}?date_modified:min=2020-01-01T00%3A00%3A00Z");
  await api.delete("{PATH}?id:in=" + found.data[0].id);
}})();
"""
SPACE48 = f"""
const {{ Management }} = require("@space48/bigcommerce-api");
(async () => {{
  const api = new Management.Client({{
    accessToken: process.env.BIGCOMMERCE_ACCESS_TOKEN,
    storeHash: process.env.BIGCOMMERCE_STORE_HASH,
  }});
  await api.v3.put("{PATH}", {{ body: [{{ customer_id: 7, attribute_id: 1, value: "gold" }}] }});
  const ids = [];
  const rows = api.v3.list("{PATH}", {{ query: {{ "customer_id:in": [7] }} }});
  for await (const row of rows) ids.push(row.id);
  await api.v3.delete("{PATH}", {{ query: {{ "id:in": ids }} }});
}})();
"""


NODE_FETCH = f"""
const url = `https://api.bigcommerce.com/stores/${{process.env.BIGCOMMERCE_STORE_HASH}}/v3{PATH}`;
const headers = {{
  "X-Auth-Token": process.env.BIGCOMMERCE_ACCESS_TOKEN,
  "Content-Type": "application/json", Accept: "application/json",
}};
(async () => {{
  const body = JSON.stringify([{{ customer_id: 7, attribute_id: 1, value: "gold" }}]);
  await fetch(url, {{ method: "PUT", headers, body }});
  const since = new URLSearchParams({{ "date_modified:min": "2020-01-01T00:00:00Z" }});
  const found = await (await fetch(`${{url}}?${{since}}`, {{ headers }})).json();
  await fetch(`${{url}}?id:in=${{found.data[0].id}}`, {{ method: "DELETE", headers }});
}})();
"""


def run_and_check(*command: str, **more: str) -> None:
    """Run an SDK's program against a sandbox, which must have seen its three kinds of calls."""
    with ThreadedSandbox(quota=None, customers={7: "ann@example.org"}) as sandbox:
        environment = {**os.environ, **more, **sandbox.proxy_environment}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert {one.method for one in sandbox.requests} == {"PUT", "GET", "DELETE"}
        assert {one.status for one in sandbox.requests} == {200, 204}
        (put,) = sandbox.requests_of("upsert")
        assert (put.item_count, sandbox.count()) == (1, 0)


@pytest.mark.parametrize(("package", "program"), [("bigc", BIGC), ("bigcommerce", BIGCOMMERCE)])
def test_python(package: str, program: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed (extra benchmarks)")
    run_and_check(sys.executable, "-c", program)


def node_modules() -> str:
    if shutil.which("npm") is None or shutil.which("node") is None:
        return ""
    done = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=False)
    return os.pathsep.join(filter(None, (os.environ.get("NODE_PATH"), done.stdout.strip())))


@pytest.mark.parametrize(
    ("package", "program"),
    [("node-bigcommerce", NODE_BIGCOMMERCE), ("@space48/bigcommerce-api", SPACE48)],
)
def test_node(package: str, program: str) -> None:
    folders = node_modules().split(os.pathsep)
    found = [
        next((folder for folder in folders if os.path.isdir(f"{folder}/{name}")), None)  # noqa: PTH112
        for name in (package, "global-agent")
    ]
    if None in found:
        pytest.skip(f"needs npm, with: npm install -g {package} global-agent@3")
    bootstrap = f"--require {found[1]}/global-agent/bootstrap"
    run_and_check("node", "-e", program, NODE_PATH=os.pathsep.join(folders), NODE_OPTIONS=bootstrap)


def test_fetch_of_node() -> None:
    node = shutil.which("node")
    version = ""
    if node is not None:
        done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
        version = done.stdout.strip()
    if not version or int(version.removeprefix("v").partition(".")[0]) < 24:
        pytest.skip(f"needs Node 24 or newer, whose fetch knows proxies; here: {version or 'none'}")
    run_and_check("node", "-e", NODE_FETCH)
