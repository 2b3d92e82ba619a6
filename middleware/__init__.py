"""The contract of a job, and everything that happens to it between ingress and actor body."""

import cmd_bridge

cmd_bridge.require_own("ops")
cmd_bridge.warn_of_foreign_actors()
