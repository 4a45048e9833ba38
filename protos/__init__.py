"""The wire: .proto files, generated code and the codec.

Importing this package settles what grpc and flwr read from the environment at their own import,
which is why `coordinator` and `client_sdk` import it before anything else. gRPC for Python accepts
TLS 1.2 and has no setting for the least version: the one TLS 1.2 suite named here needs a
pre-shared key, which nobody has, so TLS 1.2 finds no cipher. TLS 1.3 is not governed by the list.
"""

import os
import pathlib

os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-AES128-CBC-SHA"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ.setdefault("FLWR_HOME", str(pathlib.Path.home() / ".cache" / "alliance" / "flwr"))
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
