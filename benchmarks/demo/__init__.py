"""The demo: five retailers learn together on one machine, and what that was worth."""
