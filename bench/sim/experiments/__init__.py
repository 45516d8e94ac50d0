"""The experiments on simulated workers, and the page of their results."""
