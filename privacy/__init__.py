"""Mathematics and evidence: the private sum, its accounting, what members sign. No sockets."""
