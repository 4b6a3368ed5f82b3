"""Time single calls in their thread, a few at a time and pauses between: calls.py COUNT. Prints ns by kind of job."""

import json
import sys
import threading
import time

from instrumented import jobs

AT_ONCE = 10
PAUSE = 0.002  # seconds


def once(function):
    try:
        function(1)
    except ValueError:
        pass


def timed(function, count):
    clock = time.perf_counter_ns
    figures = []
    for number in range(count):
        if number % AT_ONCE == 0:
            time.sleep(PAUSE)
        began = clock()
        once(function)
        figures.append(clock() - began)
    return figures


def burn(stop):
    while not stop.is_set():
        sum(range(1000))


def main():
    count = int(sys.argv[1])
    for function in (jobs.noop, jobs.events, jobs.raising):
        timed(function, 50)
    found = {
        "noop": timed(jobs.noop, count),
        "events": timed(jobs.events, count // 2),
        "raising": timed(jobs.raising, count // 2),
    }
    stop = threading.Event()
    threads = [threading.Thread(target=burn, args=(stop,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    found["beside"] = timed(jobs.noop, count // 10)
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps(found))


main()
