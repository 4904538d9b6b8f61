"""Serving: what the gate shipped, on live streams and requests, over HTTP, gRPC and WebSocket."""
