"""Child processes of jobs: commands, process groups, pipes, output, and git worktrees."""
