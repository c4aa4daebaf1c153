"""Validates a JWT-SVID with a stock JWT library: PyJWT. It knows nothing of SPIFFE or Tacit.

usage: validate.py TOKEN JWKS AUDIENCE
"""

import json
import sys

import jwt


def main() -> None:
    token, jwks, audience = sys.argv[1:]
    keys = jwt.PyJWKSet.from_dict(json.loads(jwks))
    header = jwt.get_unverified_header(token)
    key = next(key for key in keys.keys if key.key_id == header["kid"])
    required = {"require": ["sub", "aud", "exp", "iat"]}
    claims = jwt.decode(token, key, algorithms=["ES256"], audience=audience, options=required)
    print("valid for", claims["sub"])
    try:
        jwt.decode(token, key, algorithms=["ES256"], audience="somebody else")
    except jwt.InvalidAudienceError:
        print("refused for somebody else")


main()
