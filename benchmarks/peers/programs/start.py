"""Start, run one job, end."""

from instrumented import jobs

jobs.noop(1)
