"""The coordinator: the operator's side."""
