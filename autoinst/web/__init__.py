"""The web page of `autoinst ui`: server-rendered, read from the store; never imported by a worker."""
