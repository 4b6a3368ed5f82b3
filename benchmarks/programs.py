"""What the programs that benchmarks start have in common, as text; their module `jobs` has a `job`."""

from __future__ import annotations

# `private()`: the KiB that the process has for itself, without its arenas and of these.
PRIVATE = """
def private():
    total = arenas = size = 0
    name = b""
    with open("/proc/self/smaps", "rb") as file:
        for line in file:
            words = line.split()
            if not words[0].endswith(b":"):
                name = words[-1]
            elif words[0].startswith(b"Private_") and words[0] != b"Private_Hugetlb:":
                total += int(words[1])
                arenas += int(words[1]) if name.endswith(b".arena") else 0
    return total - arenas, arenas
"""
# Jobs at so many a second for so many seconds; prints how many there were.
PACED = """
import sys, time
import jobs
rate, seconds = float(sys.argv[1]), float(sys.argv[2])
began = time.perf_counter()
done = 0
while (passed := time.perf_counter() - began) < seconds:
    for _ in range(int(passed * rate) - done):
        jobs.job(done)
        done += 1
    time.sleep(0.005)
print(done)
"""
