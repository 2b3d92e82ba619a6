"""Projects: worktrees, dependencies, concurrency, processes that are followed."""
