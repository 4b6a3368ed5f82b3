"""A worker of RQ that has imported its jobs before it forks for each of them, as RQ's documentation advises."""

import work
from rq import Queue, Worker

Worker([Queue(work.QUEUE, connection=work.done)], connection=work.done).work(burst=True, logging_level="ERROR")
