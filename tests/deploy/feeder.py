"""``python -m tests.deploy.feeder``: commands tasks over REST at a steady rate; prints what was accepted.

A line each: the job's id, and when its receipt came, in seconds since 1970.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from urllib.parse import urlsplit


def main(url: str, token: str, count: int, per_s: float) -> int:
    """Command so many tasks of the project ``note``.

    Args:
        url: Of the REST API.
        token: For it.
        count: How many tasks.
        per_s: How many a second.

    Returns:
        0 if all were accepted.
    """
    place = urlsplit(url)
    link = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30.0)
    begun_s = time.monotonic()
    for number in range(count):
        # So many a second: the pace is what is laid down.
        time.sleep(max(0.0, begun_s + number / per_s - time.monotonic()))
        body = {"job_type": "task.custom", "project": "note", "payload": {"task": str(number)}}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        link.request("POST", "/v1/jobs", json.dumps(body), {**headers, "Idempotency-Key": f"n-{number}"})
        answer = link.getresponse()
        reply = json.loads(answer.read())
        if answer.status != http.HTTPStatus.ACCEPTED:
            sys.stderr.write(f"{answer.status}: {reply}\n")
            return 1
        sys.stdout.write(f"{reply['job_id']} {time.time()}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
