"""Parts of models: plain arguments, no settings, no tasks."""
