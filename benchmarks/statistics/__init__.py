"""How often the stated intervals of private statistics cover the exact figure, on real data."""
