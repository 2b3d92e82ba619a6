"""Submit a job over HTTP, wait for it, and print its result; standard library only.

export URL=http://127.0.0.1:7777 TOKEN=$(3ox token make example --scope submit)
python3 examples/rest_client.py
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
import uuid
from typing import Any

URL = os.environ.get("URL", "http://127.0.0.1:7777")


def call(method: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
    """Return the decoded answer of one request.

    Raises:
        SystemExit: The API refused it; the message has the reason and the remedy.
    """
    request = urllib.request.Request(
        URL.rstrip("/") + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {os.environ['TOKEN']}",
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        raise SystemExit(f"{error.code}: {problem['detail']} {problem.get('remedy', '')}") from None


# The same key may be sent again after a timeout: it never makes a second job.
job = call(
    "POST",
    "/v1/jobs",
    {"job_type": "heartbeat", "payload": {"nonce": "hello"}},
    Idempotency_Key=str(uuid.uuid4()),
)
print(f"submitted {job['job_id']}")

while True:
    done = call("GET", f"/v1/jobs/{job['job_id']}?wait=30")
    if done["status"] in {"completed", "failed", "cancelled"}:
        break
print(done["status"], done["result"])
