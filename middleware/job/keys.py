"""The names of all keys in the store, in one place; ``prelude.lua`` makes the same from the same prefix.

    queue:jobs            sorted set   ready jobs; score: priority * 10^14 + order of arrival
    jobs:STATE            sorted set   every other state: scheduled and retrying by due time, held and
                                       processing by when it began, completed, failed (the dead letters)
                                       and cancelled by when it ended
    queue:deliver, deliver:STATE       the same for the delivery of results; ids are the jobs' with -1, -2
    job:ID                hash         what was dispatched (``spec``) and what has become of it
    receipts:ID           list         the receipt chain, a line for each transition
    result:ID             string       the result, JSON
    output:ID             stream       the job's output, pieces as they came
    session:ID            list         the last messages of a conversation, JSON, with a time to live
    sessionfacts:ID       hash         how many messages it has had, and when; with the same time to live
    sessions              sorted set   session ids by the time of their last message, at most 10,000
    index:all             sorted set   ids of all jobs, sorted by time of creation
    index:tail            sorted set   the same ids reversed, to look a job up by the end of its id
    index:type:T          sorted set   ids by job type; index:project:P by project
    approvals             sorted set   held jobs that wait for approval, by when they began to
    idempotency:KEY       string       the job that this key stands for, with a time to live
    webhook:NAME:SIGNATURE string      the delivery under which it came first, with a time to live
    ask:use:DAY           hash         tokens and money that a day's answers took, with a time to live
    ask:held:DAY          hash         what answers that are being waited for may take at most
    ask:job:ID            hash         the same for one job, while there is a budget of a job
    dependents:ID         set          held jobs that wait for this one
    endings               list         ended jobs whose dependents are being settled, 200 at a time
    ended:ID:N            set          those dependents that are still to be settled
    waiting:NAME          sorted set   held jobs that wait for a slot of a resource
    running               hash         how much of each limited resource is in use
    processing:WORKER     hash         job id -> delivery: what this worker holds; the fence
    workers               sorted set   worker ids by the end of their lease
    worker:ID:heartbeat   hash         what the worker said of itself last, with a time to live
    daemons               sorted set   ingress daemons by the end of their lease
    lead                  hash         which clock leads (holder, fence, until); see lead.lua
    ledgers               hash         ledger -> number and SHA-256 of its last line; see seal.lua
    schedules             hash         schedule id -> up to when its runs have been treated
    metrics:RESOLUTION    stream       samples of the bridge: an hour, one each 10 s; a week, one each 10 min
    daemon:NAME@HOST:PID  hash         what the daemon said of itself last, with a time to live
    bell:QUEUE            list         at most 64 tokens that wake blocked consumers
    events                stream       the last transitions and progress reports of all jobs
    unsealed              set          ids of jobs with transitions that the ledger does not have yet
    unsealed:lost         integer      jobs that were deleted before the ledger had them
    telegram:BOT:taken    sorted set   ids of the Telegram updates that have been taken, by when; two days
    telegram:BOT:tries    hash         update id -> how often it was begun; until it is taken
    telegram:BOT:owed     hash         update id -> the reply that is still owed to it
    telegram:BOT:asked    hash         job id -> the messages that ask for its approval
    looked                integer      when somebody last looked for workers whose lease has ended
    seq                   integer      order of arrival

Channels: ``event:ID`` (something happened to this job), ``control:WORKER`` (cancel a running job).
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
