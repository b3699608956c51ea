"""What is wrong with an installation, where, and what to do: facts in, findings out (:mod:`.examine`)."""
