"""burst.py COUNT HOW: jobs in a tight loop, then an end: `exit`, `kill` or `term` (signals), `fork` (a fork a job that
ends by os._exit), `half` (killed in the middle of one more). Prints us a job and private MB, without mapped arenas.
"""

import json
import os
import signal
import sys
import threading
import time

from instrumented import jobs


def private():
    total = 0
    counts = True
    with open("/proc/self/smaps") as file:
        for line in file:
            words = line.split()
            if not words[0].endswith(":"):
                counts = not words[-1].endswith(".arena")
            elif counts and words[0].startswith("Private_") and words[0] != "Private_Hugetlb:":
                total += int(words[1])
    return total / 1024


def forked(count):
    for number in range(count):
        pid = os.fork()
        if not pid:
            jobs.noop(number)
            os._exit(0)
        os.waitpid(pid, 0)


def main():
    count, how = int(sys.argv[1]), sys.argv[2]
    if how == "fork":
        jobs.noop(0)
        forked(count - 1)
        return
    jobs.noop(0)
    idle = private()
    began = time.perf_counter()
    for number in range(1, count):
        jobs.noop(number)
    spent = time.perf_counter() - began
    print(json.dumps({"us": spent / count * 1e6, "idle": idle, "after": private()}), flush=True)
    if how == "half":
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
        jobs.hanging(count)
    elif how != "exit":
        os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGTERM)


main()
