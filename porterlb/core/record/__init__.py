"""Recording and replay of decisions: what goes in, what comes out, and the state that a recording begins with."""
