"""The problems of an installation, where they are, and what to do: facts in, findings out (:mod:`.examine`)."""
