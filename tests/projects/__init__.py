"""Projects: worktrees, dependencies, concurrency, tracked processes."""
