"""The names of all keys in the store.

What each holds stands at the top of ``middleware/broker/prelude.lua``, whose functions build the same names
from the same prefix.
"""

from __future__ import annotations

from middleware.job.states import State

QUEUE = "jobs"
#: Results on their way to who wants them: jobs of their own, which no list of commands shows.
DELIVER_QUEUE = "deliver"
QUEUES = (QUEUE, DELIVER_QUEUE)


class Keys:
    """Makes key names.

    Args:
        prefix: Put before every name, so that several bridges can share a store.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.index_all = f"{prefix}index:all"
        self.index_tail = f"{prefix}index:tail"
        self.workers = f"{prefix}workers"
        self.daemons = f"{prefix}daemons"
        self.sessions = f"{prefix}sessions"
        self.events = f"{prefix}events"
        self.unsealed = f"{prefix}unsealed"
        self.running = f"{prefix}running"
        self.approvals = f"{prefix}approvals"

    def state(self, state: State, queue: str = QUEUE) -> str:
        """Give the sorted set of all jobs in this state."""
        place = f"queue:{queue}" if state is State.QUEUED else f"{queue}:{state}"
        return f"{self.prefix}{place}"

    def job(self, job_id: str) -> str:
        """Give the job's hash."""
        return f"{self.prefix}job:{job_id}"

    def receipts(self, job_id: str) -> str:
        """Give the job's receipt chain."""
        return f"{self.prefix}receipts:{job_id}"

    def result(self, job_id: str) -> str:
        """Give the job's result."""
        return f"{self.prefix}result:{job_id}"

    def idempotency(self, key: str) -> str:
        """Give the id of the job that an idempotency key stands for."""
        return f"{self.prefix}idempotency:{key}"

    def webhook(self, name: str, signature: str) -> str:
        """Give the delivery under which a signed webhook came first."""
        return f"{self.prefix}webhook:{name}:{signature}"

    def output(self, job_id: str) -> str:
        """Give the job's output."""
        return f"{self.prefix}output:{job_id}"

    def session(self, session_id: str) -> str:
        """Give the messages of a session."""
        return f"{self.prefix}session:{session_id}"

    def session_facts(self, session_id: str) -> str:
        """Give what is known of a session beside its messages."""
        return f"{self.prefix}sessionfacts:{session_id}"

    def index_type(self, job_type: str) -> str:
        """Give the ids of all jobs of a type."""
        return f"{self.prefix}index:type:{job_type}"

    def index_project(self, project: str) -> str:
        """Give the ids of all jobs of a project."""
        return f"{self.prefix}index:project:{project}"

    def processing(self, worker_id: str) -> str:
        """Give what this worker holds."""
        return f"{self.prefix}processing:{worker_id}"

    def heartbeat(self, worker_id: str) -> str:
        """Give what the worker said of itself."""
        return f"{self.prefix}worker:{worker_id}:heartbeat"

    def daemon(self, member: str) -> str:
        """Give what an ingress daemon said of itself."""
        return f"{self.prefix}daemon:{member}"

    def telegram(self, bot: str, what: str) -> str:
        """Give what the Telegram door keeps for a bot: ``taken``, ``tries``, ``owed`` or ``asked``."""
        return f"{self.prefix}telegram:{bot}:{what}"

    def bell(self, queue: str = QUEUE) -> str:
        """Give the list on which consumers block."""
        return f"{self.prefix}bell:{queue}"

    def event_channel(self, job_id: str) -> str:
        """Give the channel on which changes of this job are told."""
        return f"{self.prefix}event:{job_id}"

    def control_channel(self, worker_id: str) -> str:
        """Give the channel on which a worker is told to stop a job."""
        return f"{self.prefix}control:{worker_id}"
