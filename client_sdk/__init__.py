"""The member's side. Loads neither torch nor flwr: a coordinator uses a recipe's fold."""

import protos  # noqa: F401  (settles what grpc and flwr read at import)
