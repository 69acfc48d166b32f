"""What tests ask of a Prefect server, by its own client: a busy server answers 503, and the client asks again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.client.orchestration import SyncPrefectClient


def call(api: str, method: Any, path: Any, content: Any = None) -> Any:
    """The answer to one request, None where it is empty. Raises httpx.HTTPStatusError."""
    with SyncPrefectClient(api) as client:
        response = client.request(method, path, json=content)
    return response.json() if response.content else None


def asked(api: str, path: str, **filters: Any) -> list[dict[str, Any]]:
    """The answer to one of the API's filter queries."""
    return list(call(api, "POST", f"/{path}/filter", filters))


def newest(api: str, flow: str) -> dict[str, Any]:
    """The last run of a flow; other flows' schedules may have left later ones."""
    flows = {"name": {"any_": [flow]}}
    return asked(api, "flow_runs", flows=flows, sort="START_TIME_DESC", limit=1)[0]


@contextmanager
def under_way(api: str, flow: str, name: str) -> Iterator[None]:
    """A run of a flow that takes as long as the block."""
    (found,) = asked(api, "flows", flows={"name": {"any_": [flow]}})
    running = {"flow_id": found["id"], "name": name, "state": {"type": "RUNNING"}}
    run = call(api, "POST", "/flow_runs/", running)
    try:
        yield
    finally:
        call(api, "POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": "COMPLETED"}})
