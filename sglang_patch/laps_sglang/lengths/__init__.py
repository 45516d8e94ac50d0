"""Output lengths predicted from prompts: `--laps-length-model`, in the planner process."""
