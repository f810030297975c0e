"""Functions recorded as a whole: capture, guards, replay, control flow."""
