"""Room llutil/task_link."""
