"""Child processes of jobs: commands, their groups, pipes, output, and worktrees."""
