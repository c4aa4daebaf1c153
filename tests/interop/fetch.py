"""Asks a Workload API with py-spiffe, whose transport is gRPC's own core. It knows nothing of Tacit.

usage: fetch.py SOCKET AUDIENCE
"""

import sys

from spiffe import WorkloadApiClient


def main() -> None:
    socket, audience = sys.argv[1:]
    with WorkloadApiClient(f"unix://{socket}") as client:
        context = client.fetch_x509_context()
        print("x509", context.default_svid.spiffe_id, len(context.x509_svids))
        token = client.fetch_jwt_svid(audience={audience})
        valid = client.validate_jwt_svid(token.token, audience)
        print("jwt", valid.spiffe_id)


main()
