"""Submit a command from Python, follow it, and print its output and receipt.

Run it on the bridge's host, with the bridge's Python::

    .venv/bin/python examples/submit.py
"""

from __future__ import annotations

from ingress.dispatch import dispatch, follow, get_receipt, read_output

receipt = dispatch(
    "shell.cmd",
    {"argv": ["sh", "-c", "for n in 1 2 3; do echo step $n; sleep 0.2; done"]},
    priority=3,  # 1 is first, 10 last
)
print(f"submitted {receipt.job_id}")

# Blocks until the job has finished; yields the job's record after each change.
for job in follow(receipt.job_id, timeout_s=60):
    print(f"{job.status}: {job.reason}")

for chunk in read_output(receipt.job_id):
    print(chunk.text, end="")

for entry in get_receipt(receipt.job_id).transitions:
    print(entry.at, entry.status)
