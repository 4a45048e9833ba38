"""The coordinator: the operator's side."""

import protos  # noqa: F401  (settles what grpc and flwr read at import)
