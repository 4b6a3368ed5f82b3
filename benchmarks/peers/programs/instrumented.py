"""`jobs` under the product that BENCH_PRODUCT names: started, and told of each job."""

import os

import jobs

product = __import__("benchmarks.peers.products." + os.environ["BENCH_PRODUCT"], fromlist=["PRODUCT"]).PRODUCT
product.start()
for name in ("noop", "events", "raising", "hanging"):
    setattr(jobs, name, product.job(getattr(jobs, name)))
jobs.step = product.event(jobs.step)
