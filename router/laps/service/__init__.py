"""The scheduling service: one engine for each worker, behind gRPC."""
