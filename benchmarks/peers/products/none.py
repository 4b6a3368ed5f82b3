"""Nothing: what the others are compared with."""

from benchmarks.peers.product import Product

PRODUCT = Product()
