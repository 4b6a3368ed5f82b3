"""paced.py COUNT RATE: jobs with three events each, so many a second, as a busy worker has them."""

import sys
import time

from instrumented import jobs

count, rate = int(sys.argv[1]), float(sys.argv[2])
began = time.perf_counter()
done = 0
while done < count:
    for _ in range(min(int((time.perf_counter() - began) * rate), count) - done):
        jobs.events(done)
        done += 1
    time.sleep(0.002)
