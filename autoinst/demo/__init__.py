"""The program of `autoinst demo`: a worker and its jobs as a stranger would write them, and rules for them."""
