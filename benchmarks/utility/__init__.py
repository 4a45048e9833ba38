"""What joining is worth: alone against alliance, over epsilon, on real data or on one's own."""
