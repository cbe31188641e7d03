"""Real clients against the real command, over a real socket."""
