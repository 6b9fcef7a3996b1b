"""The way to the server and back: gRPC over HTTP/2 on gevent, and the stock tritonclient behind the same interface."""
