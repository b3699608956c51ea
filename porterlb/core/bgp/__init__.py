"""The decisions of the BGP speaker: pure, with time as an argument. edge/bgp has the processes, pipes and files."""
