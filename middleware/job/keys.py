"""The names of all keys in the store.

``middleware/broker/prelude.lua`` builds the same names from the same prefix and describes what each holds.
"""

from __future__ import annotations

from middleware.job.states import State

QUEUE = "jobs"
#: Queue of deliveries: jobs of the type ``deliver``, which are not in the lists of jobs.
DELIVER_QUEUE = "deliver"
QUEUES = (QUEUE, DELIVER_QUEUE)
#: Queue of the jobs that ask a language model: `3ox up` runs a worker unit of its own for it where a model
#: server is configured, so that only that unit imports the model library.
LLM_QUEUE = "llm"


class Keys:
    """The key names of one bridge.

    Args:
        prefix: Prefix of every name, so that several bridges can share a store.
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
        self.queues = f"{prefix}queues"
        self.types = f"{prefix}types"

    def state(self, state: State, queue: str = QUEUE) -> str:
        """Return the sorted set of the jobs in a state; only that of ``queued`` is one for each queue."""
        if state is State.QUEUED:
            return f"{self.prefix}queue:{queue}"
        return f"{self.prefix}{DELIVER_QUEUE if queue == DELIVER_QUEUE else QUEUE}:{state}"

    def index_queue(self, queue: str) -> str:
        """Return the ids of all jobs of a queue other than ``jobs`` and ``deliver``."""
        return f"{self.prefix}index:queue:{queue}"

    def job(self, job_id: str) -> str:
        """Return the job's hash."""
        return f"{self.prefix}job:{job_id}"

    def receipts(self, job_id: str) -> str:
        """Return the job's receipt chain."""
        return f"{self.prefix}receipts:{job_id}"

    def result(self, job_id: str) -> str:
        """Return the job's result."""
        return f"{self.prefix}result:{job_id}"

    def idempotency(self, key: str) -> str:
        """Return the key that holds the id of the job with this idempotency key."""
        return f"{self.prefix}idempotency:{key}"

    def content(self, digest: str) -> str:
        """Return the key that holds the id of the first ``ingest.file`` job of a content."""
        return f"{self.prefix}content:{digest}"

    def output(self, job_id: str) -> str:
        """Return the stream of the job's output, and the channel on which new output is announced."""
        return f"{self.prefix}output:{job_id}"

    def session(self, session_id: str) -> str:
        """Return the list of the messages of a session."""
        return f"{self.prefix}session:{session_id}"

    def session_facts(self, session_id: str) -> str:
        """Return the hash with the number and times of the messages of a session."""
        return f"{self.prefix}sessionfacts:{session_id}"

    def index_type(self, job_type: str) -> str:
        """Return the index of all jobs of a type."""
        return f"{self.prefix}index:type:{job_type}"

    def index_project(self, project: str) -> str:
        """Return the index of all jobs of a project."""
        return f"{self.prefix}index:project:{project}"

    def processing(self, worker_id: str) -> str:
        """Return the hash of the jobs that this worker has."""
        return f"{self.prefix}processing:{worker_id}"

    def heartbeat(self, worker_id: str) -> str:
        """Return the hash of the worker's last heartbeat."""
        return f"{self.prefix}worker:{worker_id}:heartbeat"

    def daemon(self, member: str) -> str:
        """Return the hash of the daemon's last heartbeat."""
        return f"{self.prefix}daemon:{member}"

    def telegram(self, bot: str, what: str) -> str:
        """Return a key of the Telegram bot: ``taken``, ``tries``, ``owed`` or ``asked``."""
        return f"{self.prefix}telegram:{bot}:{what}"

    def bell(self, queue: str = QUEUE) -> str:
        """Return the list on which consumers block."""
        return f"{self.prefix}bell:{queue}"

    def event_channel(self, job_id: str) -> str:
        """Return the channel on which changes of this job are published."""
        return f"{self.prefix}event:{job_id}"

    def control_channel(self, worker_id: str) -> str:
        """Return the channel on which cancellations of a worker's jobs are published."""
        return f"{self.prefix}control:{worker_id}"

    def caller_channel(self, job_id: str) -> str:
        """Return the channel on which the caller of an attached command listens."""
        return f"{self.prefix}caller:{job_id}"

    def command_channel(self, job_id: str, session: int) -> str:
        """Return the channel on which one run of an attached command listens.

        Args:
            job_id: The job.
            session: Number of the run.
        """
        return f"{self.prefix}command:{job_id}:{session:x}"
