"""A thousand members at one coordinator, and strangers at its door; see ``__main__``."""
