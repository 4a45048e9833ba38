"""Recorded bytes of every frame and message on the wire."""
