"""The contract of a job, and everything that happens to it between ingress and actor body."""
