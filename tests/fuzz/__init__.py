"""Coverage-guided fuzzing of all code that reads external input: `make fuzz`."""
