"""Load test of ``fruits serve``: latencies, throughput, refusals and memory of a real server process."""
