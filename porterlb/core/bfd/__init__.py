"""BFD (RFC 5880, RFC 5881, RFC 5883): packets, session state machine, and all sessions of one process."""
