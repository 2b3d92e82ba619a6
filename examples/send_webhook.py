"""Sign a JSON document and send it to a webhook endpoint of the bridge.

The endpoint and the policy rule it needs are in home-server.toml. Both sides know the secret::

    export URL=http://127.0.0.1:7777 BACKUP_WEBHOOK_SECRET=...
    python3 examples/send_webhook.py backup '{"name": "before-upgrade"}'
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
import time
import urllib.request
import uuid

endpoint, body = sys.argv[1], sys.argv[2].encode()
sent_at = str(int(time.time()))
# The timestamp is signed with the body, so that a recorded request cannot be replayed later.
signature = hmac.new(
    os.environ["BACKUP_WEBHOOK_SECRET"].encode(), sent_at.encode() + b"." + body, hashlib.sha256
).hexdigest()
request = urllib.request.Request(
    f"{os.environ.get('URL', 'http://127.0.0.1:7777').rstrip('/')}/v1/hooks/{endpoint}",
    data=body,
    headers={
        "Content-Type": "application/json",
        "X-Hub-Timestamp": sent_at,
        "X-Hub-Signature-256": f"sha256={signature}",
        "X-Delivery-Id": str(uuid.uuid4()),  # the idempotency key: repeat a failed request with the same one
    },
)
with urllib.request.urlopen(request, timeout=10) as answer:
    print(answer.status, answer.read().decode())
