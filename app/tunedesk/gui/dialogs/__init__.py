"""Windows over the window: settings, logs, questions, and what went wrong."""
