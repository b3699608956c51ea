"""Recording and replay of decisions: the inputs, the decisions, and the state at the start of a recording."""
