"""The decisions of the BGP speaker: pure, with time as an argument. Processes, pipes and files are in edge/bgp."""
