"""What secure aggregation costs a member, the coordinator and a whole round on loopback."""
